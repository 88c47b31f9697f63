"""The service as a whole, from what the hosts say: deployments as clients meet them, gateways, what is to be mended."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime

from onprem_llm.book_state import BookEntry
from onprem_llm.errors import InvalidError, OnpremError
from onprem_llm.gateway_state import DAY_S, RENEW_S, day
from onprem_llm.hosts import Current, HostState
from onprem_llm.planning.certificates import outdated
from onprem_llm.planning.copies import is_behind
from onprem_llm.planning.gateway import PROJECT, gateway_url
from onprem_llm.planning.out_of_sight import unseen_gateways
from onprem_llm.ray_running import ray_bounds, ray_wanted, ray_worries
from onprem_llm.running import book_of, running_gateways
from onprem_llm.running_rows import Running
from onprem_llm.schedule_state import Decided
from onprem_llm.spec.deployment import Deployment, parse_deployment
from onprem_llm.spec.site import Site


@dataclass(frozen=True, slots=True)
class Deployed:
    """A deployment as clients meet it. `wanted` and `routing` come from the book; None: not known."""

    name: str
    revision: int | None
    recorded_at: str | None
    ready: int
    wanted: int | None
    requests: int | None
    """In flight through the gateways now; None where no gateway runs."""
    routing: str | None
    address: str | None
    schedule: str | None = None
    """How many run now by the clock, and what comes next, as its hosts have decided; None without a schedule."""
    bounds: str | None = None
    """On Ray: between how many replicas it chooses, "1-3"; None where their number is fixed."""

    def as_json(self) -> dict[str, object]:
        """Return it for --json."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class GatewayHost:
    """A gateway host that answered, and where clients reach its gateway."""

    host: HostState
    running: bool
    error: str | None
    url: str | None

    def as_json(self) -> dict[str, object]:
        """Return it for --json."""
        state = self.host.gateway_state
        return {
            "host": self.host.name,
            "running": self.running,
            "error": self.error,
            "url": self.url,
            "pending_reload": bool(state and state.pending_reload),
        }


def gateway_hosts(current: Current, site: Site | None) -> list[GatewayHost]:
    """Return the hosts that run a gateway or are recorded to, in the order of the inventory."""
    found = []
    for host in current.hosts:
        book, state = host.book, host.gateway_state
        if state is None and PROJECT not in host.projects and not (book and (book.gateway or book.second)):
            continue
        found.append(GatewayHost(host, bool(state and state.running), state.error if state else None, _url(site, host)))
    return found


def _url(site: Site | None, host: HostState) -> str | None:
    try:
        return gateway_url(site, host) if site and PROJECT in host.projects else None
    except InvalidError:  # an address that this host does not have; deploy says so
        return None


def deployed(current: Current, rows: Sequence[Running], gateways: Sequence[GatewayHost]) -> list[Deployed]:
    """Return a line for each deployment of the book, and for those that only run (the book is on a silent host)."""
    book = book_of(current)
    others = dict.fromkeys(row.deployment for row in rows if row.deployment and row.deployment not in book)
    return [_deployed(name, book.get(name), rows, gateways, current) for name in (*book, *others)]


def _deployed(
    name: str,
    entry: BookEntry | None,
    rows: Sequence[Running],
    gateways: Sequence[GatewayHost],
    current: Current,
) -> Deployed:
    mine = [row for row in rows if row.deployment == name]
    deployment = _parsed(name, entry)
    routed = [server for state in running_gateways(current) for key, server in state.servers.items()
              if key.startswith(f"{name}/")]  # fmt: skip
    decided = _decided(name, deployment, current)
    revisions = [int(row.revision) for row in mine if row.revision and row.revision.isdigit()]
    return Deployed(
        name=name,
        revision=entry.revision if entry else max(revisions, default=None),
        recorded_at=entry.recorded_at if entry else None,
        ready=sum(row.ready for row in mine),
        wanted=_wanted(deployment, decided, current),
        requests=sum(server.sessions for server in routed) if running_gateways(current) else None,
        routing=deployment.routing if deployment else None,
        address=_address(mine, gateways, current),
        schedule=decided.said if decided else None,
        bounds=ray_bounds(deployment),
    )


def _decided(name: str, deployment: Deployment | None, current: Current) -> Decided | None:
    """Return what the clocks have decided: the gateway's host first, which is where the replicas are let in."""
    if deployment is None or not deployment.schedule:
        return None
    there = [host.schedules[name] for host in (*current.gateways, *current.hosts) if name in host.schedules]
    return next((one.decided for one in there if one.decided), None)


def _wanted(deployment: Deployment | None, decided: Decided | None, current: Current) -> int | None:
    if deployment is None:
        return None
    if deployment.backend == "ray":
        return ray_wanted(current, deployment)
    return decided.replicas if decided else deployment.slots


def _address(mine: Sequence[Running], gateways: Sequence[GatewayHost], current: Current) -> str | None:
    """Return what clients use: a gateway that runs, else one that should; a replica only where there is no gateway."""
    url = next((one.url for one in sorted(gateways, key=lambda one: not one.running) if one.url), None)
    if url is None and current.gateway is not None and PROJECT not in current.gateway.projects:
        url = next((f"http://{row.address}" for row in mine if row.address), None)
    return f"{url}/v1" if url else None


def _parsed(name: str, entry: BookEntry | None) -> Deployment | None:
    try:
        return parse_deployment(entry.model_yaml, f"the book's {name}") if entry else None
    except OnpremError:
        return None  # written by a newer version; what runs is shown all the same


def worries(
    site: Site | None,
    current: Current,
    rows: Sequence[Running],
    gateways: Sequence[GatewayHost],
    silent: Sequence[str],
    now: datetime,
) -> list[str]:
    """Say what a person should know beside the tables, each with what to do. `silent`: hosts that may be gateways."""
    return [
        *_gateway_worries(current, gateways, silent),
        *[text for one in gateways for text in _rotation_worries(one.host, rows)],
        *ray_worries(current, book_of(current)),
        *_copy_worries(current),
        *[text for host in current.hosts for text in _certificate_worries(host, site, now)],
        *[text for host in current.hosts for text in _guard_worries(host, rows)],
        *_marks(current),
    ]


def _gateway_worries(current: Current, gateways: Sequence[GatewayHost], silent: Sequence[str]) -> list[str]:
    found = []
    serving = [one for one in gateways if one.running]
    tell = ", ".join(f"curl -ks {one.url}/healthz" for one in serving if one.url)
    others = f"{', '.join(one.host.name for one in serving)} goes on serving ({tell})" if serving else ""
    if silent:
        alone = ", and no host that answered runs a gateway: clients get no answer while it is off; the replicas run on"
        found.append(f"{_silent_gateways(current, silent)} did not answer" + (f": {others}" if others else alone))
    for one in gateways:
        if not one.running and (one.error or PROJECT in one.host.projects):
            rest = others or "clients get no answer; the replicas themselves run on"
            found.append(
                f"The gateway on {one.host.name} does not run ({one.error or 'no reason is known'}): {rest}. "
                "See: onprem-llm logs gateway; deploy starts it again"
            )
        elif one.host.gateway_state and one.host.gateway_state.pending_reload:
            found.append(f"The gateway on {one.host.name} has not read its newest files: run deploy again")
    return found


def _silent_gateways(current: Current, silent: Sequence[str]) -> str:
    """Name them, or those among which they are where nobody says who it is."""
    names = ", ".join(silent)
    if len(silent) > 1 and (current.gateway is None or 0 < len(unseen_gateways(current)) < len(silent)):
        return f"The gateway host (one of {names})"
    return f"The gateway host{'s' if len(silent) > 1 else ''} {names}"


def _rotation_worries(host: HostState, rows: Sequence[Running]) -> list[str]:
    """Say why a gateway keeps a replica out that it is meant to use."""
    state = host.gateway_state
    if state is None or not state.running:
        return []
    names = {f"{row.deployment}/{row.project}": row.project for row in rows if row.state == "running"}
    return [
        f"{names[key]}: the gateway on {host.name} keeps it out, its check says {server.check or 'nothing yet'}: "
        f"onprem-llm logs {names[key].rpartition('-')[0]}"
        for key, server in state.servers.items()
        if key in names and server.admin == "ready" and not server.up
    ]


def _copy_worries(current: Current) -> list[str]:
    """Say where the second gateway's book is not the first one's, or what else is copied with it is not there."""
    first = current.gateway
    return [
        f"The book on {host.name} differs from {first.name}'s, which counts, or lacks its keys: "
        "the next deploy brings it in line"
        for host in current.gateways[1:]
        if first is not None and is_behind(host, first)
    ]


def _certificate_worries(host: HostState, site: Site | None, now: datetime) -> list[str]:
    given = site is not None and site.gateway.tls.mode == "files"
    advice = {
        "ca": "docs/security.md says how it is replaced",
        **({"gateway": "it is the site's own: replace the files that gateway.tls names, then deploy"} if given else {}),
    }
    found = []
    for name, certificate in host.certificates.items():
        left = certificate.not_after - now.timestamp()
        if left < RENEW_S:
            ends = day(certificate.not_after)
            when = f"ends in {left / DAY_S:.0f} days, on {ends}" if left > 0 else f"ended on {ends}"
            what = "certificate of the CA" if name == "ca" else f"{name}'s certificate"
            found.append(f"{host.name}: the {what} {when}: {advice.get(name, 'onprem-llm tls renew')}")
    return found


def _guard_worries(host: HostState, rows: Sequence[Running]) -> list[str]:
    found = []
    if host.firewall and not host.firewall.active:
        found.append(f"{host.name}: the rules that guard the engines' ports are not in force: run deploy again")
    for row in rows:
        if row.host == host.name and row.state == "running" and outdated(host, row.project):
            found.append(
                f"{host.name}: {row.project} goes on with the certificate from before it was renewed: "
                f"onprem-llm restart {row.deployment}"
            )
    if not host.healer and any(row.host == host.name and row.state == "running" for row in rows):
        found.append(f"{host.name}: nothing restarts a replica that hangs there: onprem-llm bootstrap")
    return found


def _marks(current: Current) -> list[str]:
    return [
        f"{name} is {mark.words}{f', by {mark.by}' if mark.by else ''}{f', since {mark.at}' if mark.at else ''}"
        for name, mark in current.marks.items()
    ]
