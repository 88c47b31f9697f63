"""A deployment as a backend of HAProxy's: its replicas, how they are chosen, and which of them are let in."""

import json
import re
from dataclasses import dataclass

from onprem_llm.spec.deployment import Task
from onprem_llm.spec.serving import Routing

# How many virtual nodes a server has on the hash ring, so that shares come out even.
WEIGHT = 100

# What HAProxy's JSON reader finds no value in (ESCAPES_LUA).
ESCAPED = "{ req.body -m sub '\\u' '\\/' }"

# The body with its escapes marked: nothing unless a rule needed it, and let go with the request.
MARKED = "var(req.marked)"

# A long body takes a millisecond a look: a chat is not looked through for a prompt.
CHAT = "{ path_end /chat/completions }"
HEAD = ",bytes(0,2048)"

# Of the mean load, in percent: what a replica may carry before its prompts go to the next one. Of two replicas, one
# keeps at least 95% of its prompts whatever the load: 175 sent 8% away with 4 requests at a time.
BALANCE_FACTOR = 190


@dataclass(frozen=True, slots=True)
class Server:
    """A replica's address; `project` ("tiny-0") is the server's name, `tls_name` the name in its certificate."""

    project: str
    address: str
    port: int
    tls_name: str | None = None


@dataclass(frozen=True, slots=True)
class Backend:
    """A deployment; a replica is let in where its engine names itself after a revision in `admits`.

    `prefix`: it is behind Ray Serve, which knows it by this path; its servers are nodes, and no revision is asked for.
    """

    deployment: str
    served_name: str
    task: Task
    routing: Routing
    admits: tuple[int, ...]
    servers: tuple[Server, ...]
    prefix: str | None = None


def key_variable(deployment: str) -> str:
    """Return the name of the environment variable that holds the engine's key."""
    return f"ONPREM_LLM_KEY_{deployment.upper().replace('-', '_')}"


def backend(one: Backend, timeout: int) -> str:
    """Return the deployment's file; `timeout` in seconds without an answer."""
    key = f'"Bearer ${{{key_variable(one.deployment)}}}"'
    lines = [
        f"backend {one.deployment}",
        f"    timeout server {timeout}s",
        "    # Asked again is what no replica has seen. To keep a request until it is answered, HAProxy copies a",
        "    # whole buffer (the longest body) for each one, which costs three times all the rest.",
        "    option redispatch 1",
        "    retries 3",
        "    retry-on conn-failure",
        "    # Each request comes on a connection of its own (backend _replicas): without this each would pay for TLS.",
        "    # One that the engine closes just as it is used would be a request without an answer, never asked again:",
        "    # so engines are told to keep them (VLLM_HTTP_TIMEOUT_KEEP_ALIVE), and who closes them is HAProxy.",
        "    http-reuse always",
        *_routing(one),
        "    # In rotation stays what is healthy and names itself after a revision that is let in.",
        "    option httpchk",
        "    http-check connect default",
        "    http-check send meth GET uri /health",
        "    http-check expect status 200",
        "    http-check connect default",
        f"    http-check send meth GET uri /v1/models hdr Authorization {key}",
        f"    http-check expect rstring {quoted(_admitted(one))}",
        f"    http-request set-header Authorization {key}",
        # A fast check after the first failure: three of them within 15 s, also where each one hangs.
        "    default-server check inter 3s fastinter 500ms fall 3 rise 1 on-marked-down shutdown-sessions "
        f"pool-purge-delay 1s weight {WEIGHT}",
        *(_server(server) for server in sorted(one.servers, key=lambda each: _id(each.project))),
    ]
    return "\n".join(lines) + "\n"


def quoted(text: str) -> str:
    """Quote text for HAProxy's configuration, in which nothing is special between single quotes."""
    return "'" + text.replace("'", "'\\''") + "'"


def _routing(one: Backend) -> list[str]:
    if one.routing == "least_load":
        return ["    balance leastconn"]
    ring = ["    hash-type consistent djb2 avalanche"]
    if one.routing == "session":
        return [
            "    http-request set-var(txn.sticky) req.hdr(x-session-id)",
            f"    http-request set-var(txn.sticky) {_said('$.user')} if {_missing('sticky')}",
            f"    http-request set-var(req.marked) req.body,lua.marked if {_missing('sticky')} {ESCAPED}",
            f"    http-request set-var(txn.sticky) {_said('$.user', MARKED)} if {_missing('sticky')}",
            f"    http-request set-var(txn.sticky) var(txn.who) if {_missing('sticky')}",
            "    balance hash var(txn.sticky)",
            *ring,
        ]
    return [*_prefix(), "    balance hash var(txn.sticky)", *ring, f"    hash-balance-factor {BALANCE_FACTOR}"]


def _prefix() -> list[str]:
    """Return the rules that find what two requests must share to share a replica's prefix cache."""
    system = f"{CHAT} {{ var(txn.role) -m str system developer }}"
    marked = "http-request set-var(req.marked) req.body,lua.marked"
    return [
        f"    http-request set-var(txn.role) {_said('$.messages[0].role')} if {CHAT}",
        *_prompt("req.body", system),
        # Hashed with its marks: the same text makes the same hash, and that is all that is asked of it.
        f"    {marked} if {_missing('first')} {ESCAPED} or {system} {_missing('second')} {ESCAPED}",
        *_prompt(MARKED, system),
        "    http-request set-var(txn.sticky) var(txn.first),concat(|,txn.second),xxh3,hex",
    ]


def _prompt(text: str, system: str) -> list[str]:
    """Return the rules that set the first two messages, or the head of a prompt, unless they are set."""
    found = [
        (f"{_missing('first')} {CHAT}", "first", _said("$.messages[0].content", text)),
        (f"{_missing('second')} {system}", "second", _said("$.messages[1].content", text)),
        (f"{_missing('first')} !{CHAT}", "first", _said("$.prompt", text) + HEAD),
        (f"{_missing('first')} !{CHAT}", "first", _said("$.input", text) + HEAD),
    ]
    return [f"    http-request set-var(txn.{name}) {said} if {condition}" for condition, name, said in found]


def _missing(name: str) -> str:
    return f"!{{ var(txn.{name}) -m found }}"


def _said(path: str, text: str = "req.body") -> str:
    return f"{text},json_query('{path}')"


def _admitted(one: Backend) -> str:
    revisions = "|".join(str(revision) for revision in sorted(one.admits))
    return f'"({spelled(one.served_name)}):r({revisions})"'


def spelled(name: str) -> str:
    """Return an expression for a name in JSON, which may spell what is beyond ASCII in two ways."""
    both = {json.dumps(name, ensure_ascii=ascii_only)[1:-1] for ascii_only in (True, False)}
    return "|".join(re.escape(one) for one in sorted(both))


def _id(project: str) -> int:
    """Return a number that stays the replica's own: its place on the hash ring hangs on it."""
    return int(project.rpartition("-")[2]) + 1


def _server(server: Server) -> str:
    address = f"[{server.address}]" if ":" in server.address else server.address
    line = f"    server {server.project} {address}:{server.port} id {_id(server.project)}"
    if server.tls_name is None:
        return line
    name = server.tls_name
    return (
        f"{line} ssl verify required ca-file /run/secrets-gateway/ca.crt verifyhost {name} sni str({name}) "
        f"check-sni {name} alpn http/1.1"
    )
