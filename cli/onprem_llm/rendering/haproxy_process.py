"""HAProxy's process: what is not of a frontend or a backend."""

from onprem_llm.rendering.haproxy_errors import FOLDER, error_rules

METRICS_PORT = 8405
CLIENTS_MAX = 3000

# Room beside the longest body for a request's headers, and for what rules add to them.
HEADERS_MAX = 32768
REWRITE = 16384
HOT_BUFFERS = 32  # a thread

# What the clients' rules tell the deployments' backends, and what those say back.
DEPLOYMENT_HEADER = "x-onprem-llm-deployment"
WHO_HEADER = "x-onprem-llm-who"
SERVER_HEADER = "x-onprem-llm-server"

# HAProxy's JSON reader takes \u00XX for a byte, and finds nothing where a value has another \uXXXX or \/ in it, which
# many clients write (Python's `requests`, PHP). So both are marked first, which takes one cheap pass, and undone in the
# value that was found, where it is a name.
ESCAPES_LUA = r"""-- marked: JSON text without \u and \/, for HAProxy's reader.
-- Where the backslash is itself escaped, what comes out begins with the escape \b, and no longer with the letter:
-- a name can be had back.
local marks = { ["\\u"] = "b\1", ["\\/"] = "b\2" }
core.register_converters("marked", function(text)
  return (text:gsub("\\[u/]", marks))
end)

local function character(high, low)
  local code = tonumber(high, 16)
  if low then
    code = 0x10000 + (code - 0xD800) * 0x400 + (tonumber(low, 16) - 0xDC00)
  end
  if code == 0 or (code >= 0xD800 and code < 0xE000) then
    return nil
  end
  return utf8.char(code)
end

-- unmarked: what a marked string says, as UTF-8. For short strings alone: this is slow.
core.register_converters("unmarked", function(text)
  text = text:gsub("b\1([dD][89abAB]%x%x)b\1([dD][c-fC-F]%x%x)", character)
  text = text:gsub("b\1(%x%x%x%x)", character)
  return (text:gsub("b\2", "/"):gsub("\b\1", "\\u"):gsub("\b\2", "\\/"))
end)
"""


def process(max_body: int, timeout: int) -> str:
    """Return global, defaults, the counters and the local listener; bytes, and seconds without an answer."""
    buffer = max_body + HEADERS_MAX + REWRITE + 16384
    return f"""\
# Rendered by onprem-llm: what you change here is gone with the next deploy.
global
    log stdout format raw daemon
    user haproxy
    group haproxy
    localpeer gateway
    # A request is a connection of the client's, and one of our own to the deployments.
    maxconn {3 * CLIENTS_MAX}
    stats socket /run/gateway/admin.sock user root group root mode 600 level admin expose-fd listeners
    # A stream that began before a reload goes on in the old process.
    hard-stop-after 3600s
    # Which servers are drained must outlive a reload.
    server-state-file /var/lib/state/servers
    # The body's `model` may be its last key: all of it must fit.
    tune.bufsize {buffer}
    # Buffers of this size would go back to the system after each request, which costs more than the request.
    tune.memory.hot-size {HOT_BUFFERS * buffer}
    tune.maxrewrite {REWRITE}
    lua-load-per-thread /etc/gateway/escapes.lua
    # Ours take a few milliseconds; what does not end holds up everybody.
    tune.lua.burst-timeout 300
    ssl-default-bind-options ssl-min-ver TLSv1.2

defaults
    mode http
    log global
    option dontlognull
    # The first token must not wait for the second.
    option http-no-delay
    # At a reload an idle connection waits for its next request, and is closed with that one's answer: closed at once,
    # it breaks under a client that is just sending.
    option idle-close-on-response
    # A client that went away wants no answer: the engine stops generating.
    option abortonclose
    load-server-state-from-file global
    timeout connect 3s
    timeout http-request 60s
    timeout http-keep-alive 60s
    timeout queue 30s
    timeout client {timeout + 20}s
    timeout server {timeout + 10}s
    timeout tunnel 3600s
    timeout check 3s
{error_rules()}
# This process and the one before it: limits outlive a reload.
peers _peers
    bind unix@/run/peers.sock user haproxy mode 600
    server gateway

{_tables()}
# From the clients' rules to the deployments. HAProxy 3.0 drops a client without a word when it ends the sessions of a
# replica that it took out of rotation; here that is an answer that never began, which becomes a 504.
backend _replicas
    http-reuse never
    # A request that is not the first on its connection would be dropped without a word as well where it cannot be
    # answered ("the client will ask again"): for the frontend below, each one is the first.
    option http-server-close
    errorfile 502 {FOLDER}/hung.http
    server self unix@/run/replicas.sock

frontend _replicas
    bind unix@/run/replicas.sock user haproxy mode 600
    no log
    # Only a request that is here as a whole can be routed by what it says.
    http-request wait-for-body time 60s
    http-request set-var(txn.deployment) req.hdr({DEPLOYMENT_HEADER})
    http-request set-var(txn.who) req.hdr({WHO_HEADER})
    http-request del-header {DEPLOYMENT_HEADER}
    http-request del-header {WHO_HEADER}
    http-after-response set-header {SERVER_HEADER} %[srv_name]
    use_backend %[var(txn.deployment)]

# For this host alone: metrics for Prometheus, health for the container and for keepalived.
frontend _local
    bind 127.0.0.1:{METRICS_PORT}
    no log
    http-request return status 200 content-type application/json string '{{"status":"ok"}}' if {{ path /healthz }}
    http-request use-service prometheus-exporter if {{ path /metrics }}
    http-request return status 404
"""


def _tables() -> str:
    """Return the tables: _count/usage by key, _rate_UNIT by key and window."""
    tables = [
        "# By key: requests, prompt tokens, completion tokens, refused, and two words for tokens beyond 32 bits.",
        "# Each process counts for itself, and the host adds up: peers would overwrite, not add. Not in a backend: its",
        "# table is emptied when its process is told to end, before it can be read.",
        "peers _count",
        "    disabled",
        "    table usage type string len 64 size 100k store gpc(6)",
        "",
    ]
    for unit, expire in (("second", "10s"), ("minute", "2m"), ("hour", "2h"), ("day", "25h")):
        table = f"    stick-table type string len 96 size 100k expire {expire} store gpc(1) peers _peers"
        tables += [f"backend _rate_{unit}", table, ""]
    return "\n".join(tables)
