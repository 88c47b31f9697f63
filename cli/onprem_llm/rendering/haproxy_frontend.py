"""What happens to a client's request, rule by rule, until a deployment's backend has it."""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address

from onprem_llm.rendering.haproxy_backends import ESCAPED, quoted
from onprem_llm.rendering.haproxy_errors import REFUSALS
from onprem_llm.rendering.haproxy_maps import PAGE_KEY
from onprem_llm.rendering.haproxy_process import CLIENTS_MAX, DEPLOYMENT_HEADER, HEADERS_MAX, SERVER_HEADER, WHO_HEADER

KEYS = "/var/lib/keys"
CONF = "/etc/gateway"

# The places of a key's counters in the table _count/usage.
REQUESTS, PROMPT, COMPLETION, REFUSED, PROMPT_HIGH, COMPLETION_HIGH = range(6)

# Of a served name in a request, in bytes, escapes and all.
NAME_MAX = 4096

LISTING = "http-request return status 200 content-type application/json"

UNITS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}

# Headers that only we may set, or that steer an engine from inside.
INTERNAL = ("forwarded", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-real-ip", "x-request-id",
            "x-data-parallel-rank", "cookie")  # fmt: skip

LOG = (
    "%ci %[var(txn.key)] %HM %[var(txn.asked)] %[var(txn.deployment)]/%[var(txn.server)] %ST in=%U out=%B "
    "answer=%Tr all=%Ta end=%ts id=%ID"
)


def frontend(
    address: str, port: int, deployments: Sequence[str], *, tls: bool, max_body: int, shared: str | None = None
) -> str:
    """Return the public frontend; `max_body` in bytes, `shared` an address that this host need not have now."""
    secure = " ssl crt /run/secrets-gateway/gateway.pem alpn h2,http/1.1" if tls else ""
    parts = [
        ["", "frontend _public", f"    bind {_socket(address, port)}{secure}"],
        [f"    bind {_socket(shared, port)} transparent{secure}"] if shared and not _covers(address, shared) else [],
        [f"    maxconn {CLIENTS_MAX}"],
        [f"    log-format {quoted(LOG)}"],
        ["    unique-id-format %[uuid()]", "    http-after-response set-header X-Request-Id %[unique-id]"],
        _health(),
        _who(),
        _allowed_models(deployments),
        _where(),
        _body(max_body),
        _rate(),
        _which(),
        _pass_on(),
        _tokens(),
        ["    default_backend _replicas"],
    ]
    return "\n".join(line for part in parts for line in part) + "\n"


def _socket(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _covers(address: str, shared: str) -> bool:
    """Tell whether one is every address of the other's family."""
    return address == str(IPv6Address(0) if ":" in shared else IPv4Address(0))


def _health() -> list[str]:
    return [
        "    http-request set-log-level silent if { path /healthz }",
        '    http-request return status 200 content-type application/json string \'{"status":"ok"}\' '
        "if { path /healthz }",
    ]


def _who() -> list[str]:
    return [
        "    http-request set-var(txn.asked) path",
        f"    http-request set-var(txn.key) http_auth_bearer,sha2(256),hex,lower,map({KEYS}/keys.map)",
        *_refuse("no_key", "!{ var(txn.key) -m found }", counted=False),
        "    http-request track-sc0 var(txn.key) table _count/usage",
        f"    http-request set-var(txn.expires) var(txn.key),map_str_int({KEYS}/expires.map)",
        *_refuse("expired", "{ var(txn.expires) -m found } { date,sub(txn.expires) ge 0 }"),
    ]


def _allowed_models(deployments: Sequence[str]) -> list[str]:
    """Return the rules that list to a key with models of its own those alone."""
    listed = "{ var(txn.restricted) -m found }"
    return [
        f"    http-request set-var(txn.restricted) var(txn.key),map({KEYS}/restricted.map) "
        "if METH_GET { path /v1/models }",
        *(
            f"    http-request set-var-fmt(txn.list) "
            f"{quoted('%[var(txn.list)],' + _model(f'str({name}),map({CONF}/names.map),url_dec'))} "
            f"if {listed} {{ var(txn.key),concat(:{name}),map({KEYS}/allowed.map) -m found }}"
            for name in deployments
        ),
        # Each begins with a comma.
        f"    {LISTING} lf-string {quoted(_list('%[var(txn.list),bytes(1)]'))} if {listed}",
    ]


def _where() -> list[str]:
    """Return the rules for paths: /v1/... (the body says which model), /<deployment>/v1/... (the path does)."""
    own = f"path,field(2,/),map({CONF}/names.map),url_dec"
    by_path = "!{ var(txn.owner) -m str * }"
    return [
        *_listings(own),
        f"    http-request set-var(txn.owner) path,map({CONF}/paths.map)",
        *_refuse("path", "!{ var(txn.owner) -m found }"),
        *_refuse("method", "!METH_POST"),
        f"    http-request set-var(txn.deployment) var(txn.owner) if {by_path}",
        f"    http-request set-var(txn.model) {own} if {by_path}",
    ]


def _model(name: str) -> str:
    return '{"id":"%[' + name + ',json(utf8s)]","object":"model","created":0,"owned_by":"onprem-llm"}'


def _list(models: str) -> str:
    return '{"object":"list","data":[' + models + "]}"


def _listings(own: str) -> list[str]:
    one = _model("var(txn.model)")
    alone = _list(one)
    asked = "{ var(txn.model) -m found }"
    return [
        f"    {LISTING} file {CONF}/chat-models.json "
        f"if METH_GET {{ path /v1/models }} {{ var(txn.key) -m str {PAGE_KEY} }}",
        f"    {LISTING} file {CONF}/models.json if METH_GET {{ path /v1/models }}",
        f"    http-request set-var(txn.model) {own} if METH_GET {{ path_reg ^/[^/]+/v1/models$ }}",
        f"    {LISTING} lf-string {quoted(alone)} if {asked}",
        "    http-request set-var(txn.model) path,regsub(^.*?/v1/models/,),url_dec "
        "if METH_GET { path_reg ^(/[^/]+)?/v1/models/. }",
        *_find_deployment(asked),
        *_refuse("model", f"{asked} !{{ var(txn.deployment) -m found }}"),
        f"    {LISTING} lf-string {quoted(one)} if {asked}",
    ]


def _find_deployment(condition: str) -> list[str]:
    return [f"    http-request set-var(txn.deployment) var(txn.model),url_enc,map({CONF}/models.map) if {condition}"]


def _rate() -> list[str]:
    """Return the rules of limits: so many requests in each second, minute, hour or day of the clock.

    They stand behind the body, for one that dawdles must not count in a window that is over, or for none; and before
    all that is read from it, for that costs something also where it ends in a refusal.
    """
    units = [
        f"    http-request set-var(txn.period) int({seconds}) if {{ var(txn.unit) -m str {unit} }}"
        for unit, seconds in UNITS.items()
    ]
    tracks = [
        f"    http-request track-sc1 var(txn.window) table _rate_{unit} if {{ var(txn.unit) -m str {unit} }}"
        for unit in UNITS
    ]
    limited = "{ var(txn.rate) -m found }"
    return [
        f"    http-request set-var(txn.rate) var(txn.key),map({KEYS}/rates.map)",
        f"    http-request set-var(txn.limit) var(txn.rate),field(1,/) if {limited}",
        f"    http-request set-var(txn.unit) var(txn.rate),field(2,/) if {limited}",
        *units,
        f"    http-request set-var(txn.number) date,div(txn.period) if {limited}",
        f"    http-request set-var(txn.window) var(txn.key),concat(|,txn.number) if {limited}",
        f"    http-request set-var(txn.retry_after) date,mod(txn.period),neg,add(txn.period) if {limited}",
        *tracks,
        # Counted and asked in one: two that come at once get two numbers.
        f"    http-request set-var(txn.nth) sc_inc_gpc(0,1) if {limited}",
        *_refuse("rate", f"{limited} {{ var(txn.nth),sub(txn.limit) gt 0 }}"),
    ]


def _body(max_body: int) -> list[str]:
    texts = {"max_body": str(max_body)}
    return [
        *_refuse("headers", f"{{ req.hdrs,length gt {HEADERS_MAX} }}"),
        *_refuse("large", f"{{ req.hdr_val(content-length) gt {max_body} }}", texts),
        "    http-request wait-for-body time 60s",
        *_refuse("large", f"{{ req.body_len gt {max_body} }}", texts),
    ]


def _which() -> list[str]:
    by_body = "{ var(txn.owner) -m str * }"
    unknown = f"{by_body} !{{ var(txn.deployment) -m found }}"
    # A name in a map is a short one; what is longer need not be read to its end.
    named = f"req.body,lua.marked,json_query('$.model'),bytes(0,{NAME_MAX}),lua.unmarked"
    return [
        f"    http-request set-var(txn.model) req.body,json_query('$.model') if {by_body}",
        *_find_deployment(by_body),
        f"    http-request set-var(txn.model) {named} if {unknown} {ESCAPED}",
        *_refuse("no_model", f"{by_body} !{{ var(txn.model) -m found }}"),
        *_find_deployment(unknown),
        *_refuse("model", unknown),
        *_refuse(
            "task",
            f"{by_body} !{{ str(/),concat(,txn.deployment),concat(,txn.asked),map({CONF}/paths.map) -m found }}",
        ),
        *_refuse(
            "forbidden",
            f"{{ var(txn.key),map({KEYS}/restricted.map) -m found }} "
            f"!{{ var(txn.key),concat(:,txn.deployment),map({KEYS}/allowed.map) -m found }}",
        ),
    ]


def _pass_on() -> list[str]:
    return [
        f"    http-request sc-inc-gpc({REQUESTS},0)",
        "    http-request replace-path /[^/]*(/.*) \\1 if !{ var(txn.owner) -m str * }",
        *(f"    http-request del-header {name}" for name in INTERNAL),
        "    http-request set-header X-Forwarded-For %[src]",
        "    http-request set-header X-Request-Id %[unique-id]",
        f"    http-request set-header {DEPLOYMENT_HEADER} %[var(txn.deployment)]",
        f"    http-request set-header {WHO_HEADER} %[var(txn.key)]|%[src]",
        f"    http-response set-var(txn.server) res.hdr({SERVER_HEADER})",
        f"    http-response del-header {SERVER_HEADER}",
        "    http-response del-header server",
    ]


def _tokens() -> list[str]:
    """Return the rules that count tokens, of answers that come whole: a stream must never wait here."""
    lines = [
        "    http-response set-var(txn.whole) bool(true) if { res.hdr(content-type) -m beg application/json }",
        "    http-response wait-for-body time 60s if { var(txn.whole) -m bool }",
    ]
    # /v1/responses has names of its own for them.
    for name, other, place, high in (
        ("prompt", "input", PROMPT, PROMPT_HIGH),
        ("completion", "output", COMPLETION, COMPLETION_HIGH),
    ):
        found = f"{{ var(txn.{name}) -m found }}"
        lines += [
            f"    http-response set-var(txn.{name}) res.body,json_query('$.usage.{name}_tokens','int') "
            "if { var(txn.whole) -m bool }",
            f"    http-response set-var(txn.{name}) res.body,json_query('$.usage.{other}_tokens','int') "
            f"if {{ var(txn.whole) -m bool }} !{found}",
            f"    http-response sc-add-gpc({place},0) var(txn.{name}) if {found}",
            # A counter has 32 bits: having become less than what was added, it has begun anew.
            f"    http-response sc-inc-gpc({high},0) if {found} {{ sc_get_gpc({place},0),sub(txn.{name}) lt 0 }}",
        ]
    return lines


def _refuse(name: str, condition: str, texts: dict[str, str] | None = None, *, counted: bool = True) -> list[str]:
    refusal = REFUSALS[name]
    body = refusal.body
    for text, value in (texts or {}).items():
        body = body.replace("{" + text + "}", value)
    headers = "".join(f" hdr {header} {quoted(value)}" for header, value in refusal.headers)
    answer = (
        f"    http-request return status {refusal.status} content-type application/json{headers} "
        f"lf-string {quoted(body)} if {condition}"
    )
    return [*([f"    http-request sc-inc-gpc({REFUSED},0) if {condition}"] if counted else []), answer]
