"""Certificates that end: which ones a change renews on its way, and which replicas take a new one by starting anew."""

import re
from collections.abc import Iterable, Mapping

from onprem_llm.gateway_state import DAY_S, Certificate, day
from onprem_llm.hosts import Current, HostState
from onprem_llm.planning.types import Change, Order, Wanted
from onprem_llm.probe_values import moment
from onprem_llm.spec.site import Site


def engine_name(host: str) -> str:
    """Return the name in the certificate of a host's engines."""
    return f"engine.{re.sub('[^a-z0-9.-]', '-', host.lower())}"


def good(host: HostState, kind: str, names: Iterable[str], authority: HostState | None = None) -> bool:
    """Tell whether a host's certificate (`engine`, `gateway`) is for these names and does not end soon.

    One that ends with the authority itself, as far as `authority`'s host says, cannot be made to last any longer.
    """
    there = host.certificates.get(kind)
    if there is None or not set(names) <= set(there.names):
        return False
    root = authority.certificates.get("ca") if authority else None
    return not there.ends_soon or (root is not None and there.not_after > root.not_after - 2 * DAY_S)


def is_other(given: Certificate | None, there: Certificate | None) -> bool:
    """Tell whether the site gives a gateway another certificate than its host has."""
    return given is not None and (there is None or (given.not_after, given.names) != (there.not_after, there.names))


def outdated(host: HostState, project: str) -> bool:
    """Tell whether an engine runs with a certificate from before its host's was renewed: it reads it at its start."""
    found = host.projects.get(project)
    return found is not None and found.label("tls") == "on" and older(host, project, "engine")


def older(host: HostState, project: str, kind: str) -> bool:
    """Tell whether a project runs since before its host's certificate of this kind was written."""
    found, certificate = host.projects.get(project), host.certificates.get(kind)
    if found is None or certificate is None or certificate.written is None:
        return False
    began = [moment(container.started_at) for container in found.containers if container.state == "running"]
    return any(at is not None and at.timestamp() < certificate.written for at in began)


def taken_up(host: HostState, project: str, authority: HostState | None) -> str | None:
    """Say why an engine must start anew for its certificate's sake; None where it need not."""
    if not good(host, "engine", [engine_name(host.name)], authority):
        return "the certificate of its host's engines is renewed"
    return "it started before the certificate of its host's engines was renewed" if outdated(host, project) else None


def renewals(site: Site, current: Current, guards: Mapping[str, Order]) -> list[Change]:
    """Say which certificates a change renews since they end; `guards` are its orders for the engines' hosts."""
    engines = [host for host in current.hosts if "engine_tls" in guards.get(host.name, {})]
    gateways = current.gateways if site.gateway.tls.mode == "ca" else ()
    ending = [("engine", "the engines", host) for host in engines] + [("gateway", "the gateway", h) for h in gateways]
    return [
        Change(host.name, f"certificate of {what}", "update", (f"it ends on {day(there.not_after)}: it is renewed",))
        for kind, what, host in ending
        if (there := host.certificates.get(kind)) is not None and there.ends_soon
    ]


def certificate_warnings(wanted: Wanted, current: Current, guards: Mapping[str, Order]) -> tuple[str, ...]:
    """Name a given certificate that ends, and other deployments' engines that do not take a renewed one by this."""
    given, found = wanted.given_certificate, []
    if given is not None and given.ends_soon:
        found.append(
            f"the certificate that the site gives the gateway ends on {day(given.not_after)}: put a new one into the "
            "file that onprem_llm_site.gateway.tls.certificate names, and deploy again"
        )
    for host in current.hosts:
        if "engine" not in host.certificates or "engine_tls" not in guards.get(host.name, {}):
            continue
        for project in host.projects.values():
            other = project.label("deployment")
            if other not in {None, wanted.focus} and project.label("tls") == "on":
                found.append(
                    f"{project.name} on {host.name} goes on with the certificate that ends until it starts anew: "
                    f"onprem-llm restart {other}"
                )
    return tuple(found)


def tls_references(site: Site) -> dict[str, dict[str, dict[str, str]]]:
    """Say where a given certificate and its key are read from when a step needs them."""
    tls = site.gateway.tls
    if tls.mode != "files" or tls.certificate is None or tls.key is None:
        return {}
    return {"gateway": {"certificate": {"from_file": tls.certificate}, "key": {"from_file": tls.key}}}
