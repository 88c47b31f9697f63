"""What an upgrade of drivers looks at before it changes anything, and how its playbooks are run."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from onprem_llm.checks.after_upgrade import Returned
from onprem_llm.connection import Connection
from onprem_llm.errors import InvalidError, RefusedError
from onprem_llm.look import look_whole, unexpected
from onprem_llm.machine_state import Lock
from onprem_llm.output import Progress, note
from onprem_llm.package_trees import REPOSITORY_FILE, SOURCES_FILE
from onprem_llm.planning.driver_upgrade import Seen, UpgradePlan, plan_upgrade
from onprem_llm.run_events import RunResult
from onprem_llm.runner import raise_for_failures, run
from onprem_llm.seam import run_folder, write_orders
from onprem_llm.spec.site import Site
from onprem_llm.wanted import load_site

POLL_SECONDS = 10.0
# For what an earlier run began on a host: dpkg's lock, packages, modules that are built.
WAIT_SECONDS = 1800.0
Orders = Mapping[str, Mapping[str, object]]


@dataclass(frozen=True)
class Prepared:
    """What was found out before anything is changed; `before` is what each host said of its GPUs."""

    plan: UpgradePlan
    site: Site
    before: Mapping[str, Returned]


def prepare(
    version: str, connection: Connection, progress: Progress, *, wait: float = WAIT_SECONDS, break_lock: bool = False
) -> Prepared:
    """Look at every host and plan the turns; nothing is changed. `wait`: seconds for what an earlier run began there.

    `break_lock`: a person says that the run that holds the lock is dead.

    InvalidError for hosts that cannot have the version, whatever keeps them from it; RefusedError where somebody is at
    work on a driver.
    """
    view = look_whole(connection, progress)
    site = load_site(view.current, connection.inventory)
    if site.nvidia_driver.run_file is not None:
        raise InvalidError(
            "onprem_llm_site.nvidia_driver.run_file is set, and drivers are upgraded by packages",
            hint="leave the setting out where hosts have a driver of packages",
        )
    systems = {**dict.fromkeys(view.current.unreachable, ""), **{one.name: one.os_name for one in view.current.hosts}}
    orders = {host: order_of(site, version, system) for host, system in systems.items()}
    result = _look(orders, None, connection, progress)
    if at_work(result):
        gateway = view.current.gateway
        lock = gateway.lock if gateway and not break_lock else None
        _wait(result, orders, lock, connection, progress, wait)
        view = look_whole(connection, progress, again=True)
        result = _look(orders, None, connection, progress)
        _refuse_at_work(at_work(result), None)
    gating = unexpected(replace(view, failures=result.failures), connection)
    raise_for_failures(replace(result, failures=gating), doing="looking at drivers (nothing was changed)")
    seen = [Seen.of(host, returned) for host, returned in result.returned.items()]
    return Prepared(plan_upgrade(version, seen, view.current), site, result.returned)


def at_work(result: RunResult) -> dict[str, str]:
    """Return the hosts on whose driver somebody is at work, and who."""
    found = {host: Seen.of(host, returned).at_work for host, returned in result.returned.items()}
    return {host: who for host, who in found.items() if who}


def _wait(
    result: RunResult, orders: Orders, lock: Lock | None, connection: Connection, progress: Progress, seconds: float
) -> None:
    """Wait until nobody is at work on a driver: what Ctrl-C broke off goes on on its host, and is left to end there.

    RefusedError where that takes longer, or the run that began it goes on, too.
    """
    end = time.monotonic() + seconds
    busy = at_work(result)
    told: set[str] = set()
    while busy:
        if lock is not None or time.monotonic() >= end:
            _refuse_at_work(busy, lock)
        for host, who in busy.items():
            if host not in told:
                note(f"{host}: what an earlier run began there goes on, and is waited for: {who}")
            progress.host(host, "running", f"waiting for {who}")
        told |= set(busy)
        time.sleep(POLL_SECONDS)
        busy = at_work(_look({host: orders[host] for host in busy}, list(busy), connection, None))


def _refuse_at_work(busy: Mapping[str, str], lock: Lock | None) -> None:
    if not busy:
        return
    raise RefusedError(
        f"somebody is at work on the driver of {', '.join(busy)}; nothing was changed",
        details="\n".join(f"{host}: {who}" for host, who in busy.items()),
        hint=f"wait for the run that holds the lock: {lock.owner}; if it is dead, add --break-lock"
        if lock
        else "it is what an earlier run began there; it has ended once the same command with --check shows the turns",
    )


def _look(orders: Orders, hosts: Sequence[str] | None, connection: Connection, progress: Progress | None) -> RunResult:
    return run_orders("upgrade_look.yml", "Looking at drivers", orders, hosts, connection, progress)


def order_of(
    site: Site, version: str, system: str, *, downgrade: bool = False, reboot: bool = False
) -> dict[str, object]:
    """Return a host's order. `system`: what it calls its OS, which says how a bundle's packages came there."""
    by_apt = system.startswith(("Debian", "Ubuntu"))
    brought = (SOURCES_FILE if by_apt else REPOSITORY_FILE) if site.packages_dir is not None else None
    return {
        "version": version,
        "downgrade": downgrade,
        "reboot": reboot,
        "nvidia_driver": site.nvidia_driver.model_dump(mode="json"),
        "package_mirrors": site.package_mirrors.model_dump(exclude_none=True),
        "package_source": brought,
        "proxy": site.proxy.model_dump(mode="json", exclude_none=True) if site.proxy else None,
    }


def run_orders(
    playbook: str,
    title: str,
    orders: Orders,
    hosts: Sequence[str] | None,
    connection: Connection,
    progress: Progress | None,
) -> RunResult:
    """Run a playbook with an order for each host."""
    with run_folder() as folder:
        variables = {"onprem_llm_order_file": str(write_orders(folder, 0, orders)), "onprem_llm_seam": str(folder)}
        return run(playbook, connection, hosts=hosts, variables=variables, progress=progress, title=title)
