"""Replicas leave a host that is serviced for good, replaced or lost: deployment after deployment, under one lock."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from onprem_llm.apply import carry
from onprem_llm.backups import set_mark
from onprem_llm.caches import cache_folder
from onprem_llm.connection import Connection
from onprem_llm.errors import InvalidError, OnpremError, RefusedError, UnreachableError
from onprem_llm.gateway_moves import take_away
from onprem_llm.look import View, gateway_of, look_whole
from onprem_llm.output import Progress, note
from onprem_llm.plan_view import plan_text
from onprem_llm.planned import with_images
from onprem_llm.planning.host_checks import check_removable, check_replacement, leftovers
from onprem_llm.planning.hosts_change import Resettled, leaving_text, marked, plan_mark, recorded_on
from onprem_llm.planning.no_room import NoRoomError
from onprem_llm.planning.plan import plan
from onprem_llm.planning.types import Plan, Wanted, WantedDeployment
from onprem_llm.registry import resolve
from onprem_llm.run_lock import locked
from onprem_llm.spec.deployment import parse_deployment
from onprem_llm.spec.model_source import ModelSource
from onprem_llm.spec.site import Site
from onprem_llm.spec.weights_folder import check_folder
from onprem_llm.spec.weights_identity import WeightsManifest, scan_folder
from onprem_llm.wanted import load_site, wanted_again
from onprem_llm.weights.local import pulled_as

Planner = Callable[[int], Plan]


@dataclass(frozen=True)
class Leaving:
    """A host that leaves: its mark from then on, where its replicas shall go, folders that weights can be sent from."""

    host: str
    state: str  # removed or lost
    to: str | None = None
    folders: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Outlook:
    """What will happen, as far as it can be said before: every deployment planned on its own."""

    view: View
    site: Site
    mark: Plan
    deployments: tuple[Resettled, ...]


class Sources:
    """Weights that can be sent from here, by identity. A folder is read once."""

    def __init__(self, folders: Sequence[Path]) -> None:
        """Check the folders that were named; InvalidError for one that holds no model."""
        self._named: dict[str, tuple[Path, WeightsManifest]] = {}
        for folder in folders:
            # Only weights that were deployed are sent from it, so that pickles were allowed, or refused, then.
            check_folder(folder, None)
            self._add(folder)

    def of(self, identity: str, model: ModelSource) -> tuple[Path, WeightsManifest] | None:
        """Return folder and manifest of these weights: from a named folder, a pull, or an absolute `model`."""
        if identity not in self._named:
            # A branch may have moved since it was deployed: any pull of the model that has these weights will do.
            folder = pulled_as(identity, model) if model.on_hub else Path(model.path)
            if folder is not None and folder.is_absolute() and folder.is_dir():
                self._add(folder)
        return self._named.get(identity)

    def _add(self, folder: Path) -> None:
        manifest = scan_folder(folder, cache_folder())
        self._named[manifest.id] = (folder.resolve(), manifest)


def look_out(leaving: Leaving, connection: Connection, progress: Progress) -> Outlook:
    """Plan every deployment that has replicas on the host. Changes nothing; raises where the host cannot leave."""
    view = look_whole(connection, progress)
    site, gateway = load_site(view.current, connection.inventory), gateway_of(view)
    check_removable(view.current, leaving.host, lost=leaving.state == "lost")
    if leaving.to is not None:
        check_replacement(view.current, leaving.host, leaving.to)
    action = f"host {'replace' if leaving.to else 'remove'}"
    text = f"{leaving.host} by {leaving.to}" if leaving.to else leaving.host
    mark = plan_mark(site, view.current, gateway, leaving.host, leaving.state, action, text)
    told = replace(view, current=marked(view.current, leaving.host, leaving.state))
    sources = Sources(leaving.folders)
    found = [
        resettled(name, len(projects), told, site, connection, progress, leaving, sources)
        for name, projects in recorded_on(view.current, leaving.host).items()
    ]
    return Outlook(view, site, mark, tuple(found))


def resettled(
    name: str,
    there: int,
    view: View,
    site: Site,
    connection: Connection,
    progress: Progress,
    leaving: Leaving,
    sources: Sources,
) -> Resettled:
    """Plan a deployment without the host, with fewer replicas where there is no room for all.

    InvalidError where not one replica has room and the host still serves them.
    """
    entry = view.current.book[name]
    booked = parse_deployment(entry.model_yaml, f"the book's {name}")
    wanted_count = booked.slots

    def planner(count: int, *, gateways_only: bool = False) -> Plan:
        wanted = _wanted(name, count, view, site, connection, leaving, sources)
        wanted = replace(wanted, gateways_only=gateways_only)
        gateway = gateway_of(view)
        wanted = with_images(wanted, view.current, lambda refs: resolve(refs, site, gateway.name, connection, progress))
        return plan(site, wanted, view.current)

    if booked.backend == "ray":  # which places them itself
        try:
            return Resettled(name, wanted_count, wanted_count, planner(wanted_count))
        except (InvalidError, UnreachableError) as error:
            # Its gateways all the same: nobody else would start one.
            return Resettled(name, wanted_count, 0, planner(wanted_count, gateways_only=True), error.message)
    least = 1 if leaving.state == "lost" else max(1, wanted_count - there)
    made, count, why = largest(planner, wanted_count, least)
    if made is None and leaving.state != "lost":
        ways = f"add a host, name the folder of its weights (--model-dir DIR), or take it down: onprem-llm down {name}"
        raise InvalidError(
            f"{name} has no room elsewhere: {why.message if why else ''}",
            details=why.details if why else None,
            hint=(f"{why.hint}; or " if why and why.hint else "") + ways,
        )
    return Resettled(name, wanted_count, count, made, why.message if why else None)


def largest(planner: Planner, most: int, least: int) -> tuple[Plan | None, int, NoRoomError | None]:
    """Return the plan with the most replicas that the hosts can carry, their number, and why they are not more."""
    why = None
    for count in range(most, least - 1, -1):
        try:
            return planner(count), count, why
        except NoRoomError as error:
            why = error
    return None, 0, why


def _wanted(
    name: str, count: int, view: View, site: Site, connection: Connection, leaving: Leaving, sources: Sources
) -> Wanted:
    entry = view.current.book[name]
    booked = parse_deployment(entry.model_yaml, f"the book's {name}")
    fewer = booked.at_most(count) if booked.backend == "compose" else {}
    wanted = wanted_again(entry, fewer, site, connection.inventory, view.current, view.salt)
    items = [_sourced(item, leaving, sources) if item.deployment.name == name else item for item in wanted.deployments]
    return replace(wanted, deployments=tuple(items), verb="move")


def _sourced(item: WantedDeployment, leaving: Leaving, sources: Sources) -> WantedDeployment:
    item = replace(item, only=(leaving.to,) if leaving.to else ())
    source = sources.of(item.weights.id, item.deployment.model) if item.weights else None
    return replace(item, source=str(source[0]), weights=source[1]) if source else item


def outlook_text(leaving: Leaving, outlook: Outlook) -> str:
    """Lay out what becomes of the host and of each deployment, and what a person should know before saying yes."""
    parts = [f"{leaving.host} leaves ({leaving.state})."]
    if not outlook.deployments:
        parts.append("It has no replicas.")
    for one in outlook.deployments:
        if one.plan is not None:
            parts.append(plan_text(one.plan))
    parts += [f"Warning: {line}" for line in leaving_text(outlook.deployments)]
    if len([one for one in outlook.deployments if one.plan]) > 1:
        parts.append("They are moved one after another, each planned anew on what the ones before have left.")
    return "\n\n".join(parts)


def carry_out(
    leaving: Leaving, outlook: Outlook, connection: Connection, progress: Progress, *, break_lock: bool
) -> list[Resettled]:
    """Mark the host, then move deployment after deployment. What is done stays when a later one fails."""
    mark = outlook.mark
    with locked(mark.gateway, f"host {leaving.host}", connection, progress, break_lock=break_lock):
        if not mark.is_noop:
            carry(mark, connection, progress)
        names = [one.deployment for one in outlook.deployments]
        try:
            done = resettle(names, leaving, connection, progress)
            _clean(leaving, outlook, connection, progress)
            return done
        except OnpremError as error:
            raise _in_the_middle(error, leaving) from error
        except KeyboardInterrupt:
            note(f"Stopped in the middle: {leaving.host} is marked as {leaving.state}; {_ways_on(leaving)}")
            raise


def _clean(leaving: Leaving, outlook: Outlook, connection: Connection, progress: Progress) -> None:
    """Take away what a host has from a time as gateway host, and what it runs of deployments that are elsewhere."""
    host = outlook.view.current.host(leaving.host)
    if host is None:
        return
    view = look_whole(connection, progress, again=True)
    rest = leftovers(view.current, leaving.host)
    there = view.current.host(leaving.host)
    projects = [name for name in there.projects if there.projects[name].label("deployment")] if there else []
    stale = [*(name for name in rest if name != "book"), *projects]
    if stale:
        take_away(leaving.host, stale, outlook.site, connection, progress)
    if "book" in rest:
        set_mark(leaving.host, "", connection, progress, forget=True)


def resettle(names: Sequence[str], leaving: Leaving, connection: Connection, progress: Progress) -> list[Resettled]:
    """Plan and carry out one deployment after another, for a caller that holds the lock."""
    sources = Sources(leaving.folders)
    return [_settled(name, leaving, sources, connection, progress) for name in names]


def _settled(name: str, leaving: Leaving, sources: Sources, connection: Connection, progress: Progress) -> Resettled:
    """Plan one deployment and carry that out. The lock is ours: where hosts moved meanwhile, it is planned anew."""
    for last in (False, False, True):
        view = look_whole(connection, progress, again=True)
        site = load_site(view.current, connection.inventory)
        there = len(recorded_on(view.current, leaving.host).get(name, []))
        one = resettled(name, there, view, site, connection, progress, leaving, sources)
        try:
            if one.plan is not None and not one.plan.is_noop:
                carry(one.plan, connection, progress)
        except RefusedError:
            if last:
                raise
        else:
            return one
    raise AssertionError("the last try returns or raises")


def _in_the_middle(error: OnpremError, leaving: Leaving) -> OnpremError:
    return OnpremError(
        f"{leaving.host} is marked as {leaving.state}, and not all of its replicas are elsewhere: {error.message}",
        details=error.details,
        hint=f"{error.hint or 'mend what is said above'}; then {_ways_on(leaving)}",
        exit_code=error.exit_code,
    )


def _ways_on(leaving: Leaving) -> str:
    return f"run the same command again, or keep the host: onprem-llm host undrain {leaving.host}"
