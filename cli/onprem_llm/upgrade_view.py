"""How an upgrade of drivers is laid out: the hosts in the order of their turns, and what each costs."""

from collections.abc import Mapping, Sequence

from onprem_llm.output import table_text
from onprem_llm.planning.driver_upgrade import HostUpgrade, UpgradePlan

COLUMNS = ("host", "driver", "becomes", "serves", "its turn")


def upgrade_text(plan: UpgradePlan) -> str:
    """Lay out a plan for a person."""
    parts = []
    if plan.hosts:
        parts.append(table_text(COLUMNS, [_row(one, first=one is plan.hosts[0]) for one in plan.hosts]))
        parts.append(
            f"{plan.hosts[0].host} is the canary: {plan.why_first}. One host at a time; the first bad one ends it."
        )
    warnings = list(warnings_of(plan))
    parts += ["\n".join(f"Warning: {line}" for line in warnings)] if warnings else []
    lines = [f"Driver {plan.version} runs on: {', '.join(plan.there)}."] if plan.there else []
    lines += [f"Left out: {host}: {why}." for host, why in plan.left_out]
    return "\n\n".join([*parts, *(["\n".join(lines)] if lines else [])])


def _row(turn: HostUpgrade, *, first: bool) -> list[object]:
    seen = turn.seen
    now = seen.now if seen.loaded else f"{seen.installed}, not loaded"
    words = ["canary" if first else "", "gateway, last" if turn.gateway and not first else ""]
    words += ["drained, stays so" if turn.drained else "drained meanwhile" if turn.serves else ""]
    words += ["reboot" if seen.reboot else ""]
    said = ", ".join(word for word in words if word)
    kind = f" ({seen.kind} modules)" if seen.kind else ""
    return [turn.host, now, f"{seen.then}{kind}", ", ".join(turn.serves) or None, said or None]


def warnings_of(plan: UpgradePlan) -> list[str]:
    """Say what a person should know before saying yes."""
    lines = [
        f"{turn.host} goes back, from {turn.seen.now} to {turn.seen.then}"
        for turn in plan.hosts
        if turn.seen.is_downgrade
    ]
    lines += [f"{turn.host}: {'; '.join(turn.seen.reboot)}: it is rebooted" for turn in plan.hosts if turn.seen.reboot]
    for turn in plan.hosts:
        lines += [
            f"{name} has replicas on {turn.host} alone: it does not answer during that turn" for name in turn.alone
        ]
        if turn.gateway and turn.seen.reboot:
            lines.append(f"{turn.host} is a gateway host: what it answers is away while it reboots")
    return lines


def upgrade_json(plan: UpgradePlan, states: Mapping[str, str]) -> dict[str, object]:
    """Return a plan and what became of it as --json prints them; hosts that no state is said of are `waiting`."""
    return {
        "version": plan.version,
        "canary": {"host": plan.hosts[0].host, "why": plan.why_first} if plan.hosts else None,
        "hosts": [_host(turn, states.get(turn.host, "waiting")) for turn in plan.hosts],
        "there": list(plan.there),
        "left_out": dict(plan.left_out),
        "warnings": warnings_of(plan),
    }


def _host(turn: HostUpgrade, state: str) -> dict[str, object]:
    seen = turn.seen
    return {
        "host": turn.host,
        "state": state,
        "loaded": seen.loaded,
        "installed": seen.installed,
        "then": seen.then,
        "modules": seen.kind,
        "serves": list(turn.serves),
        "alone": list(turn.alone),
        "drained": turn.drained,
        "gateway": turn.gateway,
        "reboot": list(seen.reboot),
    }


def state_text(host: str, *, drained: bool, touched: bool, done: Sequence[str], later: Sequence[str]) -> str:
    """Say how the fleet is after a turn that did not end well."""
    parts = [f"Upgraded: {', '.join(done)}."] if done else []
    parts += [f"{host} is drained, and gets no requests."] if drained else []
    parts += [] if touched else ["Its driver was not touched." if drained else f"{host} was not touched."]
    parts += [f"Not touched: {', '.join(later)}."] if later else []
    return " ".join(parts)
