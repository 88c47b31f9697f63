"""Orders of apply.yml: a project that is to be, and the request that a replica must answer."""

from collections.abc import Sequence
from typing import Literal

from onprem_llm.hosts import HostState
from onprem_llm.planning.addresses import Claim, reached_at
from onprem_llm.planning.difference import Outcome, SecretEntry
from onprem_llm.spec.deployment import Deployment
from onprem_llm.spec.site import Site

ProjectState = Literal["healthy", "started", "made"]

# What a readiness request asks, by task: path below the engine's address, and the body beside the model's name.
REQUESTS: dict[str, tuple[str, dict[str, object]]] = {
    "chat": (
        "/v1/chat/completions",
        {"messages": [{"role": "user", "content": "Are you ready?"}], "max_tokens": 1, "temperature": 0},
    ),
    "completion": ("/v1/completions", {"prompt": "Ready", "max_tokens": 1, "temperature": 0}),
    "embed": ("/v1/embeddings", {"input": "Ready"}),
    "rerank": ("/v1/rerank", {"query": "Ready", "documents": ["ready", "not yet"]}),
}


def empty_order(keys: Sequence[str], gateway: HostState) -> dict[str, object]:
    """Return an order of apply.yml that brings keys and starts nothing."""
    return {"keys": list(keys), "keys_host": gateway.name, "projects": []}


def project_order(
    site: Site,
    outcome: Outcome,
    entries: tuple[SecretEntry, ...],
    values: list[str],
    *,
    wait: int,
    readiness: dict[str, object] | None,
    state: ProjectState = "healthy",
) -> dict[str, object]:
    """Return one project of apply.yml's order.

    `state`: what is waited for; `started` is waited for by whoever started its other parts, too, `made` stays stopped.
    """
    rendered = outcome.rendered
    return {
        "name": rendered.project,
        "path": site.project_path(rendered.project),
        "files": rendered.sums(),
        "wait": wait,
        "recreate": outcome.recreate,
        "secrets": {"entries": [entry.order() for entry in entries], "values": values},
        "readiness": readiness if state != "made" else None,
        **({} if state == "healthy" else {"state": state}),
    }


def readiness(deployment: Deployment, claim: Claim, host: HostState, *, tls: bool) -> dict[str, object]:
    """Return the request that must be answered before a replica takes traffic."""
    probe = deployment.readiness
    path, body = REQUESTS[deployment.task]
    if probe.path is not None:
        path, body = probe.path, {}
    body = dict(probe.body) if probe.body is not None else body
    method = probe.method or ("POST" if body else "GET")
    return {
        "url": reached_at(claim, host, tls=tls),
        "method": method,
        "path": path,
        "body": {"model": deployment.served_name, **body} if method == "POST" else None,
        "status": probe.status,
        "timeout": deployment.timeouts.readiness,
        "request_timeout": probe.timeout,
        "key": deployment.name,
    }
