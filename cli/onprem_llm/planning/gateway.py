"""The gateway: rendered from all deployments of the book, for each gateway host, and compared with what runs there."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from onprem_llm.errors import InvalidError
from onprem_llm.hosts import Current, HostState
from onprem_llm.json_values import is_mapping
from onprem_llm.planning.addresses import LOOPBACK, Claim, bind_address, reached_at
from onprem_llm.planning.certificates import good, is_other
from onprem_llm.planning.difference import Outcome, compare
from onprem_llm.planning.fleet import Fleet
from onprem_llm.planning.out_of_sight import gateway_peers
from onprem_llm.planning.scheduled import is_due_off
from onprem_llm.planning.staging import HostImage, image_for
from onprem_llm.planning.types import ImageSource, Step, Wanted
from onprem_llm.rendering.haproxy import Backend, Gateway, draft
from onprem_llm.rendering.haproxy_backends import key_variable
from onprem_llm.rendering.haproxy_maps import CLI_KEY, PAGE_KEY
from onprem_llm.spec.deployment import Deployment
from onprem_llm.spec.site import Site

PROJECT = "gateway"
START_SECONDS = 60
# A name that is in every certificate of ours, whatever a site calls its gateway.
INTERNAL_NAME = "gateway.onprem-llm"


@dataclass(frozen=True, slots=True)
class PlannedGateway:
    """The gateway on one host, with the files of one moment of a change; `variant` is their folder in the seam."""

    host: HostState
    claim: Claim
    image: HostImage
    outcome: Outcome
    servers: tuple[str, ...]  # deployment/project
    variant: str = PROJECT
    regiven: bool = False  # the site gives another certificate than the one that the host has
    keyless: frozenset[str] = frozenset()  # deployments behind Ray Serve, which asks for no key

    @property
    def moved(self) -> tuple[str, ...]:
        """Say what of the running process is not as the files say, and needs no other files."""
        state = self.host.gateway_state
        if state is None:
            return ()
        if not state.running:
            return ("its process does not answer",)
        reasons = ["it has not read its files"] if state.pending_reload else []
        reasons += ["the site gives another certificate"] if self.regiven else []
        held = [name for name in self.servers if (s := state.servers.get(name)) is not None and s.admin != "ready"]
        # The clock drains what it is about to stop, and lets it in itself once that is down.
        out = [name for name in held if not is_due_off(self.host, name.partition("/")[2])]
        return (*reasons, *([f"out of rotation: {', '.join(out)}"] if out else []))


def plan_gateways(
    site: Site, wanted: Wanted, current: Current, backends: Sequence[Backend], variant: str = PROJECT
) -> tuple[PlannedGateway, ...]:
    """Render the gateway for every gateway host."""
    return tuple(_plan(site, wanted, current, host, backends, variant) for host in current.gateways)


def _plan(
    site: Site, wanted: Wanted, current: Current, host: HostState, backends: Sequence[Backend], variant: str
) -> PlannedGateway:
    settings = site.gateway
    claim = Claim(PROJECT, bind_address(settings.listen, host, "onprem_llm_site.gateway"), site.public_port)
    image = image_for(host, wanted.gateway_image or ImageSource(settings.image), None)
    gateway = Gateway(
        image=image.reference,
        data_root=site.data_root,
        address=claim.address,
        port=claim.port,
        tls=settings.tls.mode != "off",
        max_body=settings.max_body,
        timeout=settings.timeout,
        backends=tuple(sorted(backends, key=lambda one: one.deployment)),
        shared=settings.address,
        own=host.cluster_address,
        peers=gateway_peers(current, host),
    )
    listed = ", ".join(one.deployment for one in gateway.backends) or "nothing"
    outcome = compare(host, draft(gateway), revision=None, image_id=image.id, secrets={}, why=(f"routes to {listed}",))
    servers = tuple(f"{one.deployment}/{server.project}" for one in gateway.backends for server in one.servers)
    regiven = is_other(wanted.given_certificate, host.certificates.get(PROJECT))
    keyless = frozenset(one.deployment for one in gateway.backends if one.prefix is not None)
    return PlannedGateway(host, claim, image, _explained(outcome, host), servers, variant, regiven, keyless)


def _explained(outcome: Outcome, host: HostState) -> Outcome:
    """Other routes are files that differ; they were not edited by somebody. A process that answers has started."""
    change = outcome.change
    if change.action == "wait" and host.gateway_state is not None and host.gateway_state.running:
        return replace(outcome, change=replace(change, action="keep", reasons=()))
    edited = [reason for reason in change.reasons if reason.startswith("conf/")]
    if not edited:
        return outcome
    others = tuple(reason for reason in change.reasons if reason not in edited)
    return replace(outcome, change=replace(change, reasons=(*others, "its routes or settings change")))


def check_reach(deployment: Deployment, fleet: Fleet, current: Current) -> None:
    """Raise InvalidError where a replica listens on loopback and a gateway is on another host."""
    if deployment.listen != "local":
        return
    for replica in fleet.replicas:
        far = next((host.name for host in current.gateways if host.name != replica.host.name), None)
        if far:
            raise InvalidError(
                f"listen: {deployment.name} listens on {LOOPBACK} of {replica.host.name} only: the gateway on {far} "
                "cannot reach it",
                hint="write listen: cluster, or name the gateway host in resources.hosts",
            )


def gateway_url(site: Site, host: HostState) -> str:
    """Return the address for clients: the shared one, else the first name given for it, else the host's."""
    settings, tls = site.gateway, site.gateway.tls.mode != "off"
    name = settings.address or next(iter(settings.tls.names), None)
    address = bind_address(settings.listen, host, "onprem_llm_site.gateway")
    if name and address != LOOPBACK:
        shown = f"[{name}]" if ":" in name else name
        return f"{'https' if tls else 'http'}://{shown}:{site.public_port}"
    return own_url(site, host)


def own_url(site: Site, host: HostState) -> str:
    """Return the address of the gateway on one host, whoever has the shared one."""
    address = bind_address(site.gateway.listen, host, "onprem_llm_site.gateway")
    return reached_at(Claim(PROJECT, address, site.public_port), host, tls=site.gateway.tls.mode != "off")


def certificate_names(site: Site, host: HostState) -> list[str]:
    """Return the names and addresses that clients may reach this gateway by."""
    shared = [site.gateway.address] if site.gateway.address else []
    own = [host.name, host.hostname, host.cluster_address, *host.addresses, *shared, *site.gateway.tls.names]
    usable = [name for name in own if re.fullmatch(r"[A-Za-z0-9.:-]+", name)]
    return list(dict.fromkeys([INTERNAL_NAME, "localhost", LOOPBACK, *usable]))


def needed(site: Site, planned: PlannedGateway, deployments: Iterable[str]) -> bool:
    """Tell whether a gateway is to be touched: other files, a process that is behind them, keys or names missing."""
    keyed = [name for name in deployments if name not in planned.keyless]
    return planned.outcome.needed or bool(planned.moved) or not furnished(site, planned.host, keyed)


def furnished(site: Site, host: HostState, deployments: Iterable[str]) -> bool:
    """Tell whether a gateway host has the keys and the certificate that its configuration names."""
    keys = all(name in host.keys for name in deployments) and {PAGE_KEY, CLI_KEY} <= set(host.client_keys)
    named = site.gateway.tls.mode != "ca" or good(host, "gateway", certificate_names(site, host))
    return PROJECT in host.projects and keys and named


def gateway_step(
    site: Site, planned: Sequence[PlannedGateway], deployments: Sequence[str], first: HostState, title: str
) -> Step:
    """Return the step that loads a configuration on every gateway."""
    orders = {one.host.name: _order(site, one, deployments, first) for one in planned}
    return Step("gateway", title, orders)


def kept_out(step: Step, servers: Collection[str], undo: tuple[Step, ...] = ()) -> Step:
    """Return a gateway's step that leaves `servers` out of rotation."""
    out = dict.fromkeys(servers, "drain")
    orders = {
        host: {**order, "states": {**(states if is_mapping(states := order["states"]) else {}), **out}}
        for host, order in step.orders.items()
    }
    return Step(step.kind, step.title, orders, undo)


def _order(site: Site, planned: PlannedGateway, deployments: Sequence[str], first: HostState) -> Mapping[str, object]:
    rendered = planned.outcome.rendered
    deployments = [name for name in deployments if name not in planned.keyless]
    # A given certificate may be another one each time; what is made on the hosts is there or it is not.
    ready = site.gateway.tls.mode != "files" and furnished(site, planned.host, deployments)
    return {
        **({} if ready else _furniture(site, planned.host, deployments, first)),
        "project": {
            "name": PROJECT,
            "path": site.project_path(PROJECT),
            "source": planned.variant,
            "files": rendered.sums(),
            "wait": START_SECONDS,
            "recreate": planned.outcome.recreate,
        },
        "engine_keys": {key_variable(name): name for name in deployments},
        "states": dict.fromkeys(planned.servers, "ready"),
    }


def _furniture(site: Site, host: HostState, deployments: Sequence[str], first: HostState) -> dict[str, object]:
    return {
        "keys": list(deployments),
        "keys_host": first.name,
        "client_keys": [PAGE_KEY, CLI_KEY],
        "tls": {
            "mode": site.gateway.tls.mode,
            "names": certificate_names(site, host) if site.gateway.tls.mode == "ca" else [],
            "ca_host": first.name,
        },
    }
