"""The clock of a drained host rests: no timer starts a replica on a host that is out of rotation, or stops one.

It rests for a while before anything else is done to the host, and for good once the book says that it is drained: so a
drain that is cut off lets go by itself, and one that came to its end does not.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from onprem_llm.hosts import Current
from onprem_llm.planning.rotation import away
from onprem_llm.planning.scheduled import known_order
from onprem_llm.planning.types import Order, Step

REST_SECONDS = 4 * 3600  # no drain takes longer
REST: Final[Order] = {"rest": "drained"}
BRIEFLY: Final[Order] = {"rest": "briefly", "seconds": REST_SECONDS}
# What is started to go on waits for this long where not all of it could be started.
GO_ON: Final[Order] = {"rest": "none", "seconds": REST_SECONDS}


def rests(current: Current, name: str) -> str | None:
    """Return how a host's schedules rest: `drained`, `briefly`; None where they do not, or it has none."""
    host = current.host(name)
    return next((one.resting for one in host.schedules.values()), None) if host else None


def follows_clock(current: Current, name: str) -> bool:
    """Tell whether timers may start and stop replicas on a host, now or when a drain that was cut off lets go."""
    host = current.host(name)
    return host is not None and bool(host.schedules) and rests(current, name) != "drained"


def resting_while_drained(current: Current, name: str) -> tuple[Step | None, Step | None]:
    """Return the steps around a drain: the first before anything, the last once the book says so."""
    if not follows_clock(current, name):
        return None, None
    back = Step("schedule_rest", f"Have the schedules of {name} go on", {name: GO_ON})
    return Step("schedule_rest", f"Have the schedules of {name} rest", {name: BRIEFLY}, (back,)), _until_undrained(name)


def counted_still(current: Current, name: str, there: Mapping[str, Sequence[str]]) -> list[str]:
    """Say which deployments' tables have replicas of a host run before others, though they get no requests.

    `there`: deployment -> its replicas on the host.
    """
    orders = {deployment: known_order(deployment, current) for deployment in there}
    return [
        f"when fewer run by the schedule of {deployment}, {', '.join(projects)} on {name} is one of them and gets no "
        f"requests: deploy {deployment} again once {name} is drained, and others run in its place"
        for deployment, projects in there.items()
        if orders[deployment] and not set(projects).issubset(orders[deployment][-len(projects) :])
    ]


def going_on(current: Current, name: str) -> Step | None:
    """Return the step that has a host's schedules followed again; None where they are."""
    if rests(current, name) is None:
        return None
    return Step("schedule_rest", f"Have the schedules of {name} go on", {name: GO_ON}, (_until_undrained(name),))


def put_right(current: Current, names: Iterable[str]) -> Step | None:
    """Return the step by which schedules rest on drained hosts, of those that have a part in one, and on no others."""
    orders: dict[str, Order] = {}
    for name in names:
        drained, found = away(name, current), rests(current, name)
        if drained and found != "drained":
            orders[name] = REST
        elif found and not drained:
            orders[name] = GO_ON
    return Step("schedule_rest", "Have schedules rest on drained hosts alone", orders) if orders else None


def rest_lines(current: Current) -> list[str]:
    """Say where schedules rest, and where they should and do not, or do and should not."""
    found = []
    for host in current.hosts:
        how, mark = rests(current, host.name), current.marks.get(host.name)
        if not host.schedules or (how is None and mark is None):
            continue
        if mark is None:
            found.append(
                f"{host.name}: its schedules rest, and the book does not say that it is drained: a drain is under way, "
                f"or was cut off: once none is, onprem-llm host undrain {host.name}"
            )
        elif mark.state == "drained" and how != "drained":
            found.append(f"{host.name} is drained, and its schedules go on: onprem-llm host drain {host.name}")
        elif how:
            found.append(f"{host.name}: no replica there is started or stopped by the clock while it is {mark.state}")
    return found


def _until_undrained(name: str) -> Step:
    return Step("schedule_rest", f"Have the schedules of {name} rest until it is undrained", {name: REST})
