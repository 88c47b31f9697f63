"""A plan as a person reads it, and as --json has it."""

from dataclasses import asdict

from onprem_llm.output import human_bytes, mapping_text, table_text
from onprem_llm.planning.types import Change, Plan

VERBS = {
    "create": "create",
    "update": "change",
    "restart": "restart",
    "wait": "wait",
    "remove": "remove",
    "keep": "keep",
}

UNEXPLAINED = {"create": "not there yet"}


def plan_text(plan: Plan) -> str:
    """Lay out what changes on which host and why, what is sent, and where things will answer."""
    abouts = {"host": f"host {plan.deployment}", "cluster": f"the {plan.deployment}"}
    subject = abouts.get(plan.verb, f"{plan.deployment}, revision {plan.revision}")
    parts = [f"Plan for {subject} ({plan.verb}), based on {plan.based_on}", ""]
    parts.append(table_text(("host", "what", "action", "why"), [_row(change) for change in plan.changes]))
    if plan.send_bytes:
        sends = ", ".join(f"{host} {human_bytes(count)}" for host, count in plan.send_bytes.items() if count)
        parts += ["", f"To send: {sends}"] if sends else []
    if plan.passed_over:
        parts += ["", *(f"Passed over: {host}: {why}" for host, why in plan.passed_over.items())]
    parts += ["", *(f"Warning: {warning}" for warning in plan.warnings)] if plan.warnings else []
    if plan.is_noop:
        parts += ["", "Nothing to do: the hosts are as the files say."]
    return "\n".join(parts)


def _row(change: Change) -> tuple[str, str, str, str]:
    return (
        change.host,
        change.subject,
        VERBS[change.action],
        "; ".join(change.reasons) or UNEXPLAINED.get(change.action, "as wanted"),
    )


def endpoints_text(plan: Plan) -> str:
    """Say where it answers, with which key."""
    lines: dict[str, object] = {}
    for endpoint in plan.endpoints:
        if endpoint.kind == "ui":
            lines["Open WebUI"] = endpoint.url
            if endpoint.key_file:
                lines["  password"] = f"{plan.gateway}:{endpoint.key_file} (readable by root)"
        else:
            lines["Endpoint"] = f"{endpoint.url} (model {endpoint.served_name})"
            lines["  key"] = "onprem-llm key create NAME"
    return mapping_text(lines)


def plan_json(plan: Plan) -> dict[str, object]:
    """Return what scripts want of a plan; `plan --out` writes all of it."""
    return {
        "deployment": plan.deployment,
        "verb": plan.verb,
        "revision": plan.revision,
        "based_on": plan.based_on,
        "gateway": plan.gateway,
        "noop": plan.is_noop,
        "changes": [asdict(change) for change in plan.changes],
        "steps": [{"kind": step.kind, "title": step.title, "hosts": list(step.hosts)} for step in plan.steps],
        "send_bytes": dict(plan.send_bytes),
        "warnings": list(plan.warnings),
        "passed_over": dict(plan.passed_over),
        "endpoints": [asdict(endpoint) for endpoint in plan.endpoints],
    }
