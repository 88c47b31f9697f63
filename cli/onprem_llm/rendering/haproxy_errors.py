"""Every error of the gateway in OpenAI's shape: {"error": {"message", "type", "param", "code"}}."""

import functools
import json
from dataclasses import dataclass

FOLDER = "/etc/gateway/errors"

# A log-format expression stands for itself in the text; JSON's own quoting must not touch it.
MODEL = "%[var(txn.model),json(utf8s)]"
PATH = "%[path,json(utf8s)]"


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error of the gateway's own; texts may hold HAProxy's expressions (MODEL, PATH)."""

    status: int
    message: str
    kind: str = "invalid_request_error"
    param: str | None = None
    code: str | None = None
    headers: tuple[tuple[str, str], ...] = ()

    @property
    def body(self) -> str:
        """Return the answer's body."""
        return _body(self.message, self.kind, self.param, self.code)


# A gateway's files are rendered for each moment of a plan.
@functools.cache
def _body(message: str, kind: str, param: str | None, code: str | None) -> str:
    error = {"message": message, "type": kind, "param": param, "code": code}
    return json.dumps({"error": error}, ensure_ascii=False)


_BEARER = (("WWW-Authenticate", 'Bearer realm="onprem-llm"'),)

# By the name of the rule that refuses (haproxy_frontend).
REFUSALS = {
    "no_key": Refusal(
        401,
        "Incorrect API key provided, or none: send the key that `onprem-llm key create` printed as "
        "`Authorization: Bearer sk-...`.",
        code="invalid_api_key",
        headers=_BEARER,
    ),
    "expired": Refusal(
        401, "This API key has expired: ask for a new one.", code="invalid_api_key", headers=_BEARER
    ),
    "rate": Refusal(
        429,
        "Rate limit reached for this API key (%[var(txn.rate)]): try again in %[var(txn.retry_after)] s.",
        kind="requests",
        code="rate_limit_exceeded",
        headers=(("Retry-After", "%[var(txn.retry_after)]"),),
    ),
    "path": Refusal(404, f"Unknown path: {PATH}.", code="unknown_url"),
    "method": Refusal(405, "This method is not allowed here: use POST.", code="method_not_allowed"),
    "headers": Refusal(431, "The request's headers are too long.", code="headers_too_long"),
    "large": Refusal(413, "The request's body is too large: {max_body} bytes at most.", code="request_too_large"),
    "no_model": Refusal(
        400, "You must provide a model parameter: the body is not JSON, or has no `model`.", param="model"
    ),
    "model": Refusal(
        404,
        f"The model `{MODEL}` does not exist: GET /v1/models lists those that do.",
        param="model",
        code="model_not_found",
    ),
    "task": Refusal(
        404, f"The model `{MODEL}` does not serve {PATH}.", param="model", code="unsupported_path"
    ),
    "forbidden": Refusal(
        403, f"This API key does not have access to the model `{MODEL}`.", param="model", code="model_not_found"
    ),
}  # fmt: skip

# HAProxy does not say which it was, on a connection to the replica that it had used before.
LOST = "The replica hung, or broke off, before it answered: try again."

# HAProxy's own errors, by its status: (message, code).
OWN = {
    400: ("The request is not valid HTTP.", "bad_request"),
    408: ("The request's body did not arrive in time.", "request_timeout"),
    500: ("The gateway failed: its log says why.", "gateway_error"),
    502: ("The replica broke off before it answered: try again.", "replica_failed"),
    503: ("No replica of this model is ready: try again later.", "no_replica_ready"),
    504: ("The replica did not answer in time.", "replica_timeout"),
}


def error_files() -> dict[str, str]:
    """Return file name -> JSON of HAProxy's own errors."""
    # An answer with a status of its own needs HAProxy's older form: the whole of it, headers included.
    hung = Refusal(504, LOST, kind="server_error", code="replica_timeout").body + "\n"
    head = f"HTTP/1.1 504 Gateway Timeout\ncontent-type: application/json\ncontent-length: {len(hung.encode())}\n\n"
    return {**{f"{status}.json": _own(status) + "\n" for status in OWN}, "hung.http": head + hung}


def error_rules() -> str:
    """Return the lines that make HAProxy send them."""
    lines = [
        f"    http-error status {status} content-type application/json file {FOLDER}/{status}.json\n" for status in OWN
    ]
    return "".join(lines)


def _own(status: int) -> str:
    message, code = OWN[status]
    kind = "invalid_request_error" if status < 500 else "server_error"
    return Refusal(status, message, kind=kind, code=code).body
