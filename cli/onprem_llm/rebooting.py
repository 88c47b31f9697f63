"""Reboots that a GPU driver wants: only where allowed, one host at a time, drained before, checked after."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from onprem_llm.apply import apply
from onprem_llm.bootstrapping import Prepared, Report, reasons_of
from onprem_llm.connection import Connection
from onprem_llm.look import View, look_whole
from onprem_llm.output import Progress
from onprem_llm.planning.hosts_change import recorded_on
from onprem_llm.rotations import plan_rotation
from onprem_llm.run_events import HostFailure, RunResult
from onprem_llm.runner import run
from onprem_llm.seam import run_folder, write_orders

Policy = Literal["ask", "auto", "never"]
TASK = "Reboot"


@dataclass(frozen=True, slots=True)
class Rebooted:
    """What came of it: hosts that are well again, in order, and why it ended early (None: it did not)."""

    hosts: tuple[str, ...]
    results: tuple[RunResult, ...]
    failure: HostFailure | None = None


def reboot(prepared: Prepared, connection: Connection, progress: Progress) -> Report:
    """Reboot the hosts that want it, one after the other, gateways last; RefusedError where somebody holds the lock."""
    report = prepared.report
    gateways = [report.gateway, *report.seconds] if report.gateway else []
    hosts = in_order(list(report.reboots), gateways)
    done = roll(hosts, prepared.orders, connection, progress)
    for result in done.results:
        report.take(replace(result, failures=()))
    report.failures += [done.failure] if done.failure else []
    report.reboots = {host: why for host, why in report.reboots.items() if host not in done.hosts}
    return report


def in_order(hosts: Sequence[str], gateways: Sequence[str]) -> list[str]:
    """Return the hosts with gateways last: one that does not come back keeps the others from trying."""
    return [*(host for host in hosts if host not in gateways), *(host for host in hosts if host in gateways)]


def roll(
    hosts: Sequence[str], orders: Mapping[str, Mapping[str, object]], connection: Connection, progress: Progress
) -> Rebooted:
    """Reboot hosts one after the other; the first that is not well afterwards ends it, and stays drained."""
    done: list[str] = []
    results: list[RunResult] = []
    for host in hosts:
        drained = _drain(host, connection, progress)
        with run_folder() as folder:
            path = write_orders(folder, 0, {host: orders[host]})
            variables = {"onprem_llm_order_file": str(path), "onprem_llm_seam": str(folder)}
            title = f"Rebooting {host}"
            result = run("reboot.yml", connection, hosts=[host], variables=variables, progress=progress, title=title)
        results.append(result)
        failure = _trouble(host, result, drained=drained, later=hosts[len(done) + 1 :])
        if failure is not None:
            return Rebooted(tuple(done), tuple(results), failure)
        if drained:
            apply(plan_rotation(host, connection, back=True), connection, progress)
        done.append(host)
    return Rebooted(tuple(done), tuple(results))


def _drain(host: str, connection: Connection, progress: Progress) -> bool:
    """Take a host out of rotation where something of ours serves on it; return whether it is to be let in again."""
    view = look_whole(connection, progress)
    if not _serves(view, host) or host in view.current.marks:
        return False
    apply(plan_rotation(host, connection, back=False, view=view), connection, progress)
    return True


def _serves(view: View, host: str) -> bool:
    gateway = view.current.gateway
    return gateway is not None and gateway.book is not None and bool(recorded_on(view.current, host))


def _trouble(host: str, result: RunResult, *, drained: bool, later: Sequence[str]) -> HostFailure | None:
    """Return why a host is not well after its reboot, with what to do; None where it is."""
    failed = next((one for one in result.failures if one.host == host), None)
    again = reasons_of(result).get(host, ())
    if failed is None and not again:
        return None
    message = failed.message if failed else f"found after the reboot that {', and '.join(again)}, expected its driver"
    rest = f"; {', '.join(later)} {'was' if len(later) == 1 else 'were'} not rebooted" if later else ""
    back = f", then: onprem-llm host undrain {host}" if drained else ""
    return HostFailure(
        host, TASK, f"{message}{rest}. Mend it and run bootstrap again{back}", failed.unreachable if failed else False
    )
