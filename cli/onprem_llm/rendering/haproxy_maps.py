"""What the gateway knows of the deployments: their names, their paths, the list for /v1/models."""

import json
from collections.abc import Sequence
from urllib.parse import quote

from onprem_llm.rendering.haproxy_backends import Backend
from onprem_llm.spec.deployment import Task

# What a client may ask an engine for. Everything else that vLLM serves (/tokenize, /metrics, /pause, ...)
# is for the operator, and vLLM checks its key under /v1 only.
PATHS: dict[Task, tuple[str, ...]] = {
    "chat": ("/v1/chat/completions", "/v1/completions", "/v1/responses"),
    "completion": ("/v1/completions",),
    "embed": ("/v1/embeddings",),
    "rerank": ("/v1/rerank", "/v2/rerank", "/rerank", "/v1/score", "/score"),
}

# What Ray Serve LLM does not answer.
NOT_ON_RAY = {"/v1/responses"}

# Keys of our own clients: Open WebUI's, and that of `onprem-llm chat`. The page offers all that it is shown for a chat,
# so it is shown nothing else.
PAGE_KEY, CLI_KEY = "open-webui", "onprem-llm"

# A path that says nothing of the deployment: the body's `model` does.
BY_BODY = "*"


def models_json(backends: Sequence[Backend]) -> str:
    """Return the answer to GET /v1/models; `created` is fixed, for a reload must not change it."""
    return _json({"object": "list", "data": [model(one) for one in backends]})


def chat_models_json(backends: Sequence[Backend]) -> str:
    """Return the answer that the page gets: what one can chat with."""
    return models_json([one for one in backends if one.task == "chat"])


def model(one: Backend) -> dict[str, object]:
    """Return a model as OpenAI's API lists it."""
    return {"id": one.served_name, "object": "model", "created": 0, "owned_by": "onprem-llm"}


def models_map(backends: Sequence[Backend]) -> str:
    """Map names in requests to deployments. A key ends at a blank, so names are spelled as url_enc does."""
    return "".join(sorted(f"{quote(one.served_name, safe='')} {one.deployment}\n" for one in backends))


def names_map(backends: Sequence[Backend]) -> str:
    """Map deployments to the names that clients give in requests, spelled in the same way."""
    return "".join(f"{one.deployment} {quote(one.served_name, safe='')}\n" for one in backends)


def paths_map(backends: Sequence[Backend]) -> str:
    """Map each path that passes to its deployment: `/v1/completions *`, `/tiny/v1/completions tiny`."""
    plain = {path: BY_BODY for one in backends for path in _paths(one)}
    own = {f"/{one.deployment}{path}": one.deployment for one in backends for path in _paths(one)}
    # A deployment called v1 that ranks would own /v1/rerank: the path that everybody has wins.
    return "".join(f"{path} {name}\n" for path, name in sorted({**own, **plain}.items()))


def _paths(one: Backend) -> tuple[str, ...]:
    return tuple(path for path in PATHS[one.task] if one.prefix is None or path not in NOT_ON_RAY)


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n"
