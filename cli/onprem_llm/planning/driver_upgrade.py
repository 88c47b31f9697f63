"""Another version of the driver for a fleet: which hosts, in which order, what each costs, what forbids it. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from onprem_llm.errors import InvalidError
from onprem_llm.hosts import Current, Gpu, HostState, Project
from onprem_llm.planning.clock_rest import follows_clock
from onprem_llm.planning.compatibility.images import is_own
from onprem_llm.planning.compatibility.judging import asked_of
from onprem_llm.planning.driver_serving import (
    drained_beside,
    drained_hosts,
    left_by_upgrade,
    serving_on,
    undrain_words,
)
from onprem_llm.planning.hosts_change import recorded_on
from onprem_llm.probe_values import mapping, number, text, texts
from onprem_llm.recorded import GONE
from onprem_llm.rendering.ray_node import HEAD_PROJECT, WORKER_PROJECT
from onprem_llm.spec.deployment import parse_deployment


@dataclass(frozen=True, slots=True)
class Seen:
    """What a host said of its driver (nvidia_driver, tasks_from: look). `then`: what it would get."""

    host: str
    gpus: int = 0
    loaded: str | None = None
    installed: str | None = None  # what the next boot loads
    then: str | None = None
    kind: str | None = None  # of the modules: open or proprietary
    done: bool = False
    refused: str = ""
    reboot: tuple[str, ...] = ()  # why the new one can only be loaded by one
    at_work: str = ""  # who is at work on the driver; nothing else is known then

    @classmethod
    def of(cls, host: str, returned: Mapping[str, object]) -> "Seen":
        """Read what a run returned for a host."""
        raw = mapping(returned.get("driver_upgrade"))
        return cls(
            host,
            number(raw, "gpus") or 0,
            text(raw, "loaded"),
            text(raw, "installed"),
            text(raw, "then"),
            text(raw, "kind"),
            raw.get("done") is True,
            text(raw, "refused") or "",
            texts(returned.get("reboot")),
            text(raw, "at_work") or "",
        )

    @property
    def now(self) -> str | None:
        """The version that counts as the host's: what runs, else what is there and does not."""
        return self.loaded or self.installed

    @property
    def is_downgrade(self) -> bool:
        """Tell whether the version is older than the host's."""
        return bool(self.now and self.then) and _numbers(self.then or "") < _numbers(self.now or "")


@dataclass(frozen=True, slots=True)
class HostUpgrade:
    """One host's turn: what it has and gets, what serves there, and what its turn costs."""

    seen: Seen
    serves: tuple[str, ...] = ()  # replicas that get requests there: tiny/tiny-0
    alone: tuple[str, ...] = ()  # deployments that have no replica elsewhere
    gateway: bool = False
    drained: bool = False  # before we came
    left: bool = False  # by an earlier upgrade, which came to no end: let in at the end of the turn
    beside: tuple[str, ...] = ()  # drained hosts that have replicas of those in `alone`
    worker: bool = False  # of the Ray cluster: it leaves before the turn, and joins again after it
    clock: bool = False  # it has a schedule, which may start a replica in the middle of the turn

    @property
    def host(self) -> str:
        """The host's name."""
        return self.seen.host

    @property
    def unfinished(self) -> bool:
        """Tell whether an earlier run ended here: the version is there, and does not run."""
        return self.seen.loaded != self.seen.then and self.seen.installed == self.seen.then

    @property
    def only_let_in(self) -> bool:
        """Tell whether the version runs there, and all that is left to do is to look at the host and let it in."""
        return self.seen.done and self.left


@dataclass(frozen=True, slots=True)
class UpgradePlan:
    """Hosts in the order of their turns, the canary first; `there` have the version, `left_out` take no part.

    `drained`: hosts that get no requests before we come, with a turn or without.
    """

    version: str
    hosts: tuple[HostUpgrade, ...]
    there: tuple[str, ...] = ()
    left_out: tuple[tuple[str, str], ...] = ()
    drained: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    """Those of `drained` that an earlier upgrade left so."""

    @property
    def why_first(self) -> str:
        """Say why the first host is the canary."""
        return _why_first(self.hosts[0]) if self.hosts else ""

    @property
    def downgrades(self) -> tuple[str, ...]:
        """Name the hosts that would get an older version."""
        return tuple(one.host for one in self.hosts if one.seen.is_downgrade)

    @property
    def reboots(self) -> dict[str, tuple[str, ...]]:
        """Name the hosts that want a reboot, and why."""
        return {one.host: one.seen.reboot for one in self.hosts if one.seen.reboot}


def plan_upgrade(version: str, seen: Sequence[Seen], current: Current) -> UpgradePlan:
    """Plan the turns. InvalidError names every host that cannot have the version, and why; nothing was changed then."""
    left_out = {one.host: why for one in seen if (why := _left_out(one, current))}
    mine = [one for one in seen if one.host not in left_out]
    _refuse(version, mine, current)
    drained = drained_hosts(current)
    left = tuple(host for host in drained if left_by_upgrade(current, host))
    having = [one for one in mine if not one.done or one.host in left]
    back = [one.host for one in having if one.host in left]
    turns = [_turn(one, current, back) for one in having]
    return UpgradePlan(
        version,
        tuple(sorted(turns, key=_order)),
        tuple(one.host for one in mine if one.done),
        tuple(left_out.items()),
        drained,
        left,
    )


def _left_out(seen: Seen, current: Current) -> str:
    mark = current.marks.get(seen.host)
    if mark is not None and mark.state in GONE:
        return f"the book says that it is {mark.state}"
    if seen.refused:  # said with the others
        return ""
    if not seen.gpus:
        return "it has no NVIDIA GPU"
    return "" if seen.now else "it has no driver: bootstrap installs one"


def _refuse(version: str, seen: Iterable[Seen], current: Current) -> None:
    reasons = {
        one.host: why for one in seen if (why := one.refused or _head(one, current) or "; ".join(_images(one, current)))
    }
    if not reasons:
        return
    alike: dict[str, list[str]] = {}
    for host, why in reasons.items():
        alike.setdefault(why, []).append(host)
    raise InvalidError(
        f"driver {version} cannot be brought to {', '.join(reasons)}; nothing was changed",
        details="\n".join(f"{', '.join(hosts)}: {why}" for why, hosts in alike.items()),
        hint="do what is said for each host, or name the others alone: --limit",
    )


def _head(seen: Seen, current: Current) -> str:
    """Say that a host's GPUs are the Ray cluster's head's, which cannot be emptied."""
    host = current.host(seen.host)
    project = host.projects.get(HEAD_PROJECT) if host is not None and not seen.done else None
    if project is None or not project.label("gpus"):
        return ""
    return (
        "it has the head of the Ray cluster, which carries replicas on its GPUs and cannot be drained. Take the "
        "cluster down first (onprem-llm cluster down), and bring it up afterwards"
    )


def _images(seen: Seen, current: Current) -> Iterable[str]:
    """Say which engines' images would not run under the version, and do under the driver of now."""
    host = current.host(seen.host)
    if host is None or seen.done or seen.then is None:
        return
    for name, projects in recorded_on(current, seen.host).items():
        deployment = parse_deployment(current.book[name].model_yaml, f"the book's {name}")
        asked = asked_of(deployment, None)
        if asked is None or is_own(asked.image):
            continue
        for project in projects:
            gpus = _gpus(host, host.projects.get(project))
            before = {one.text for one in asked.of(host, gpus).verdict.refusals}
            after = asked.of(replace(host, driver=seen.then), gpus).verdict.refusals
            worse = [one.text for one in after if one.about == "image" and one.text not in before]
            if worse:
                yield f"{project} runs there: {'; '.join(worse)}. Deploy it with another image first, or take it down"
                break


def _gpus(host: HostState, project: Project | None) -> list[Gpu]:
    given = (project.label("gpus") or "").split(",") if project else []
    return [gpu for gpu in host.gpus if gpu.uuid in given] or list(host.gpus)


def check_reboots(plan: UpgradePlan, *, allowed: bool) -> None:
    """Raise InvalidError where hosts want a reboot that nobody allows: they would be left with half a driver."""
    if allowed or not plan.reboots:
        return
    raise InvalidError(
        f"{', '.join(plan.reboots)} want a reboot for driver {plan.version}, and none is allowed; nothing was changed",
        details="\n".join(f"{host}: {'; '.join(why)}" for host, why in plan.reboots.items()),
        hint="set onprem_llm_site.reboot to auto, or to ask and run it on a terminal without --yes; or name the other "
        "hosts alone: --limit",
    )


def check_drained(plan: UpgradePlan) -> None:
    """Raise InvalidError where a turn would take a deployment's last replica, since the others' host is drained.

    One that has its own turn before may be let in by then; that turn looks again.
    """
    for index, turn in enumerate(plan.hosts):
        before = [one.host for one in plan.hosts[:index]]
        drained = [name for name in turn.beside if name not in before]
        if drained:
            raise InvalidError(
                f"{', '.join(drained)} is drained, and {', '.join(turn.alone)} would have no replica in "
                f"{turn.host}'s turn; nothing was changed",
                hint=f"{undrain_words(drained)}; then run the same command again, or name the other hosts alone: "
                "--limit",
            )


def _turn(seen: Seen, current: Current, back: Sequence[str]) -> HostUpgrade:
    """Return a host's turn. `back`: the hosts that are let in by then, whose replicas count; the turn looks again."""
    serves, alone = serving_on(current, seen.host)
    returning = {name for host in back if host != seen.host for name in recorded_on(current, host)}
    alone = tuple(name for name in alone if name not in returning)
    gateways = {gateway.name for gateway in current.gateways}
    beside = drained_beside(current, seen.host, alone)
    left = left_by_upgrade(current, seen.host)
    state = current.host(seen.host)
    worker = state is not None and WORKER_PROJECT in state.projects
    drained, clock = seen.host in current.marks, follows_clock(current, seen.host)
    return HostUpgrade(seen, serves, alone, seen.host in gateways, drained, left, beside, worker, clock)


def _order(turn: HostUpgrade) -> tuple[bool, bool, bool, int]:
    """Sort the turns: what an earlier run left, then by what a host costs. The inventory's order else."""
    return (not (turn.unfinished or turn.left), turn.gateway, bool(turn.alone), len(turn.serves) + turn.worker)


def _why_first(turn: HostUpgrade) -> str:
    if turn.unfinished:
        return f"driver {turn.seen.then} is there since an earlier run, and does not run"
    if turn.left:
        return "an earlier run left it drained"
    if turn.gateway:
        return "no other host is left" if not turn.serves else "only gateway hosts are left"
    if not turn.serves and not turn.worker:
        return "it is drained" if turn.drained else "nothing serves there"
    if turn.alone:
        return f"every host serves what no other does; here it is {', '.join(turn.alone)}"
    if turn.worker:
        return "every host serves; the other nodes of the Ray cluster carry what it does"
    return f"every host serves; the other replicas carry {_names(turn.serves)}"


def _names(servers: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(server.partition("/")[0] for server in servers))


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())
