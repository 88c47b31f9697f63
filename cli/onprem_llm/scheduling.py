"""Schedules as status tells them: who runs now by the clock, what comes next, and where hosts do not follow."""

from onprem_llm.hosts import Current
from onprem_llm.planning.clock_rest import rest_lines


def schedule_lines(current: Current) -> list[str]:
    """Return a line for each schedule, and what is to be mended: timers that wait for nothing, clocks that differ."""
    names = sorted({name for host in current.hosts for name in host.schedules})
    return [*(line for name in names for line in _lines(name, current)), *rest_lines(current)]


def _lines(name: str, current: Current) -> list[str]:
    there = {host.name: host.schedules[name] for host in current.hosts if name in host.schedules}
    if current.gateway is not None and name not in current.book:
        return [
            f"{host}: the schedule of {name} goes on there, and the book has no such deployment: the host was away "
            f"when it was taken down: onprem-llm down {name}"
            for host in there
        ]
    said = {one.decided.said for one in there.values() if one.decided}
    found = [f"{name} is scheduled: {text}" for text in sorted(said)]
    if len(said) > 1:
        hosts = "; ".join(f"{host}: {one.decided.said}" for host, one in there.items() if one.decided)
        found = [
            f"{name}: its hosts are not at one about its schedule ({hosts}): their clocks or time zones differ, or one "
            "waits: `timezone` in model.yaml, journalctl -u "
            f"onprem-llm-schedule-{name} there"
        ]
    if len({tuple(one.order) for one in there.values()}) > 1:
        found.append(
            f"{name}: its hosts have different tables of its schedule ({', '.join(there)}), so more or fewer replicas "
            "than are due may run: run deploy again, for all hosts"
        )
    found += [
        f"{host}: the schedule of {name} is held there, by a change that is under way or was cut off: once none is, "
        "run deploy again"
        for host, one in there.items()
        if one.held
    ]
    found += [
        f"{gateway.name}: its gateway does not drain replicas of {name} that stop by the clock: deploy {name} again"
        for gateway in current.gateways
        if gateway.name not in there
    ]
    found += [
        f"{host}: the schedule of {name} is not followed there, its timer does not run: run deploy again"
        for host, one in there.items()
        if not one.armed
    ]
    return found
