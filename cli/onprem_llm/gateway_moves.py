"""The gateway goes to another host: both serve for a while, then the book changes hands, then the first one retires."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from onprem_llm.apply import carry, record_event
from onprem_llm.backups import make, put_back, set_mark
from onprem_llm.connection import Connection
from onprem_llm.errors import InvalidError, OnpremError, UnreachableError
from onprem_llm.look import GATEWAY_GROUP, View, gateway_of, look_whole
from onprem_llm.output import Progress, note
from onprem_llm.person import person
from onprem_llm.planned import plan_again, with_images
from onprem_llm.planning.gateway import PROJECT, gateway_url
from onprem_llm.planning.host_checks import require_ready
from onprem_llm.planning.hosts_change import plan_page_image
from onprem_llm.planning.ray_book import on_ray
from onprem_llm.planning.removal import removal
from onprem_llm.planning.shared_address import PROJECT as SHARED_ADDRESS
from onprem_llm.planning.types import UI_PROJECT
from onprem_llm.private_files import private_folder
from onprem_llm.registry import resolve
from onprem_llm.run_lock import locked
from onprem_llm.runner import raise_for_failures, run
from onprem_llm.seam import run_folder, write_orders
from onprem_llm.spec.site import Site
from onprem_llm.wanted import load_site, wanted_as_is

WITHOUT_PAGE = ("book", "secrets")


@dataclass(frozen=True)
class GatewayMove:
    """From where to where. `swapped`: an earlier run came as far as the book; `stays`: the first one goes on beside."""

    old: str
    new: str
    site: Site
    swapped: bool
    was_second: bool
    stays: bool
    lines: tuple[str, ...]


def prepare(new: str, connection: Connection, progress: Progress) -> GatewayMove | None:
    """Say what moving the gateway to a host will do; None where it is there, and raise where it cannot be."""
    view = look_whole(connection, progress)
    gateway, site = gateway_of(view), load_site(view.current, connection.inventory)
    require_ready(view.current, new)
    swapped = gateway.name == new
    rest = [host for host in view.current.gateways[1:] if GATEWAY_GROUP not in host.groups]
    if swapped and not rest:
        return None
    old = rest[0] if swapped else gateway
    target = view.current.host(new)
    stays = GATEWAY_GROUP in old.groups and target is not None and GATEWAY_GROUP in target.groups
    return GatewayMove(
        old=old.name,
        new=new,
        site=site,
        swapped=swapped,
        was_second=bool(target and target.book and target.book.second),
        stays=stays,
        lines=tuple(_lines(view, site, old.name, new, stays=stays)),
    )


def _lines(view: View, site: Site, old: str, new: str, *, stays: bool) -> list[str]:
    target, source = view.current.host(new), view.current.host(old)
    lines = [
        f"The gateway moves from {old} to {new}: the book, client keys, the certificate authority, the page's chats."
    ]
    if target is not None and source is not None and gateway_url(site, target) != gateway_url(site, source):
        lines.append(f"Clients' address changes: {gateway_url(site, source)} -> {gateway_url(site, target)}")
    else:
        lines.append("Clients' address stays: the site has one of its own.")
    if source is not None and UI_PROJECT in source.projects:
        lines.append("Open WebUI stops while its data moves; its address changes to the new host's.")
    lines.append(
        f"{old} stays a gateway host beside it." if stays else f"{old} serves until {new} does; then its gateway goes."
    )
    return lines


def carry_out(move: GatewayMove, connection: Connection, progress: Progress, *, break_lock: bool) -> None:
    """Move it. Until the page stops a failure leaves everything as it was; after that, a second run goes on."""
    what = f"gateway move {move.new}"
    with locked(move.old, what, connection, progress, break_lock=break_lock):
        if not move.swapped:
            _stand_up(move, connection, progress)
        with locked(move.new, what, connection, progress, break_lock=break_lock):
            try:
                if not move.swapped:
                    _hand_over(move, connection, progress)
                settle(connection, progress)
                if not move.stays:
                    _retire(move, connection, progress)
            except OnpremError as error:
                error.hint = f"{error.hint or 'mend what is said above'}; then go on: {_again(move)}"
                raise
            except KeyboardInterrupt:
                note(f"Stopped between {move.old} and {move.new}. Go on: {_again(move)}")
                raise
            event = {"action": "gateway move", "by": person(), "message": f"{move.old} to {move.new}"}
            record_event(event, move.new, connection)


def _again(move: GatewayMove) -> str:
    return f"onprem-llm gateway move {move.new}"


def _stand_up(move: GatewayMove, connection: Connection, progress: Progress) -> None:
    """Let the new host route beside the old one; where that fails, it is as it was before."""
    try:
        _copy(move, WITHOUT_PAGE, connection, progress)
        settle(connection, progress)
        _bring_page(move, connection, progress)
    except (OnpremError, KeyboardInterrupt):
        if not move.was_second:
            note(f"Putting back what was there before: {move.old} stays the gateway host.")
            take_away(move.new, (SHARED_ADDRESS, PROJECT), move.site, connection, progress)
            set_mark(move.new, "", connection, progress, forget=True)
        raise


def _bring_page(move: GatewayMove, connection: Connection, progress: Progress) -> None:
    """Bring the page's image while the page still serves: it may be gigabytes."""
    view = look_whole(connection, progress, again=True)
    current, gateway, site = view.current, gateway_of(view), move.site
    wanted = wanted_as_is(site, connection.inventory, current)
    wanted = with_images(wanted, current, lambda refs: resolve(refs, site, gateway.name, connection, progress))
    plan = plan_page_image(site, wanted, current, gateway, move.new)
    if not plan.is_noop:
        carry(plan, connection, progress)


def _hand_over(move: GatewayMove, connection: Connection, progress: Progress) -> None:
    """The page stops, everything is copied once more, and the other host has the book that counts."""
    take_away(move.old, (UI_PROJECT,), move.site, connection, progress)
    _copy(move, (*WITHOUT_PAGE, "ui"), connection, progress)
    set_mark(move.old, "second", connection, progress)
    set_mark(move.new, "gateway", connection, progress)


def _retire(move: GatewayMove, connection: Connection, progress: Progress) -> None:
    """The old host stops routing, forgets the book, and the engines let it in no more."""
    take_away(move.old, (SHARED_ADDRESS, PROJECT), move.site, connection, progress)
    set_mark(move.old, "", connection, progress, forget=True)
    settle(connection, progress)


def _copy(move: GatewayMove, parts: Sequence[str], connection: Connection, progress: Progress) -> None:
    with private_folder() as folder:
        path = Path(folder) / f"{int(time.time())}.tar.gz"
        backup = make(move.old, move.site, path, connection, progress, parts)
        put_back(backup, move.new, "second", connection, progress)


def settle(connection: Connection, progress: Progress) -> None:
    """Bring every deployment to what the book says, on the gateways that there are now."""
    view = look_whole(connection, progress, again=True)
    names = list(view.current.book)
    for name in names:
        try:
            plan = plan_again(name, "move", connection, progress).plan
        except (InvalidError, UnreachableError) as error:
            if name not in on_ray(view.current):
                raise
            note(f"{name}: on Ray nothing was done about it: {error.message}")
            # The gateways all the same: where they move, this is what starts the new one.
            plan = plan_again(name, "move", connection, progress, gateways_only=True).plan
        if not plan.is_noop:
            carry(plan, connection, progress)


def take_away(host: str, projects: Sequence[str], site: Site, connection: Connection, progress: Progress) -> None:
    """Remove projects from a host; their data stays."""
    with run_folder() as folder:
        path = write_orders(folder, 0, {host: removal(site, projects)})
        result = run("remove.yml", connection, hosts=[host], variables={"onprem_llm_order_file": str(path)},
                     progress=progress, title=f"Remove {', '.join(projects)} from {host}")  # fmt: skip
    raise_for_failures(result, doing="removing containers")
