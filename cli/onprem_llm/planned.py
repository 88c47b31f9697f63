"""From a command's arguments to a plan: look at the hosts, read the files, plan. Changes nothing."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from onprem_llm.book_state import BookEntry
from onprem_llm.connection import Connection
from onprem_llm.errors import InvalidError
from onprem_llm.hosts import Current
from onprem_llm.locked import Locked
from onprem_llm.look import gateway_of, look_whole
from onprem_llm.output import Progress
from onprem_llm.planning.plan import plan
from onprem_llm.planning.ray_checks import check_text, refuse_restart
from onprem_llm.planning.types import ImageSource, Plan, Verb, Wanted
from onprem_llm.registry import resolve
from onprem_llm.spec.deployment import load_deployment, parse_deployment
from onprem_llm.spec.site import Site
from onprem_llm.wanted import load_site, require_known, wanted_again, wanted_with, wanted_without

Resolver = Callable[[list[str]], dict[str, ImageSource]]


@dataclass(frozen=True)
class Planned:
    """A plan, and what it was made from."""

    plan: Plan
    site: Site
    current: Current


def plan_deploy(model_yaml: Path, connection: Connection, progress: Progress, locked: Locked | None = None) -> Planned:
    """Plan the deployment that `model_yaml` describes. The file is checked before any host is touched.

    With a lock, nothing that is not in it: InvalidError names what differs.
    """
    deployment = load_deployment(model_yaml)
    check_text(deployment)
    if locked:
        locked.check_text(deployment, model_yaml)
    view = look_whole(connection, progress)
    site = load_site(view.current, connection.inventory)
    gateway = gateway_of(view)
    wanted = wanted_with(deployment, model_yaml, site, connection.inventory, view.current, view.salt, locked)
    if locked:
        wanted = locked.pinned(wanted, site, view.current)
    wanted = with_images(wanted, view.current, lambda refs: resolve(refs, site, gateway.name, connection, progress))
    made = plan(site, wanted, view.current)
    if locked:
        locked.check_plan(made, wanted)
    return Planned(made, site, view.current)


def plan_down(name: str, connection: Connection, progress: Progress, *, purge: bool) -> Planned:
    """Plan to take the deployment `name` away; `purge` takes its weights, images and keys too."""
    view = look_whole(connection, progress)
    gateway_of(view)
    site = load_site(view.current, connection.inventory)
    wanted = wanted_without(name, site, connection.inventory, view.current, view.salt, purge=purge)
    return Planned(plan(site, wanted, view.current), site, view.current)


def plan_again(
    name: str,
    verb: Verb,
    connection: Connection,
    progress: Progress,
    *,
    change: Mapping[str, object] | None = None,
    revision: Callable[[BookEntry], BookEntry] | None = None,
    gateways_only: bool = False,
) -> Planned:
    """Plan a deployment that the book has: scaled, restarted as it is, or rolled back.

    `revision` returns the one to go back to, given the one that is current. `gateways_only`: as Wanted has it.
    """
    view = look_whole(connection, progress)
    site = load_site(view.current, connection.inventory)
    gateway = gateway_of(view)
    require_known(name, view.current)
    entry = view.current.book[name]
    entry = revision(entry) if revision else entry
    _refuse_by_the_clock(verb, name, entry)
    if verb == "restart":
        refuse_restart(parse_deployment(entry.model_yaml, f"the book's {name}"))
    wanted = wanted_again(entry, change or {}, site, connection.inventory, view.current, view.salt)
    wanted = replace(wanted, verb=verb, restart=verb == "restart", gateways_only=gateways_only)
    wanted = with_images(wanted, view.current, lambda refs: resolve(refs, site, gateway.name, connection, progress))
    return Planned(plan(site, wanted, view.current), site, view.current)


def _refuse_by_the_clock(verb: Verb, name: str, entry: BookEntry) -> None:
    """Raise InvalidError where replicas are counted by the clock: what a person sets would last until an entry only."""
    if verb == "scale" and parse_deployment(entry.model_yaml, f"the book's {name}").schedule:
        raise InvalidError(
            f"{name} has a schedule, which says how many replicas run",
            hint="change an entry of schedule in its model.yaml, or leave schedule out, and deploy it",
        )


def with_images(wanted: Wanted, current: Current, resolver: Resolver) -> Wanted:
    """Ask the registry for what neither an archive, nor the book, nor any host knows."""
    sources = [item.image for item in wanted.deployments if item.image] + [wanted.ui_image, wanted.gateway_image]
    unknown = [source.ref for source in sources if source and _unknown(source, current)]
    if not unknown:
        return wanted
    found = resolver(unknown)
    deployments = tuple(
        replace(item, image=found.get(item.image.ref, item.image)) if item.image else item
        for item in wanted.deployments
    )
    ui = wanted.ui_image and found.get(wanted.ui_image.ref, wanted.ui_image)
    gateway = wanted.gateway_image and found.get(wanted.gateway_image.ref, wanted.gateway_image)
    return replace(wanted, deployments=deployments, ui_image=ui, gateway_image=gateway)


def _unknown(source: ImageSource, current: Current) -> bool:
    if source.id or source.pull:
        return False
    return not any(host.image(source.ref) for host in current.hosts)
