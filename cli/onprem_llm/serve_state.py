"""What Ray Serve says, on the host of the head or of a cluster that exists: its applications, their replicas, what it
was told.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from onprem_llm.json_values import is_list, is_mapping
from onprem_llm.probe_values import mapping, mappings, number, text, text_map, texts

# The part of an application whose replicas are engines; the other one passes requests on to it.
ENGINE_PART = "LLMServer:"
# What Serve calls an application of which all parts are as they were asked for.
RUNNING = "RUNNING"


@dataclass(frozen=True, slots=True)
class ServeReplica:
    """A replica of a part. `address` of its node, None while Ray finds none with room.

    `log`: its file below Ray's logs there; `worker`: what the names of its process's files there begin with, after
    "worker-". `started`: seconds since 1970.
    """

    part: str
    state: str
    address: str | None
    id: str
    log: str | None = None
    worker: str | None = None
    started: float | None = None


@dataclass(frozen=True, slots=True)
class ServePart:
    """A part of an application. `target`: how many replicas Ray wants now; `dead`: those that ended lately."""

    status: str
    message: str
    target: int | None
    replicas: tuple[ServeReplica, ...]
    dead: tuple[ServeReplica, ...] = ()


@dataclass(frozen=True, slots=True)
class ServeApplication:
    """An application. `told`: told_digest of what Serve was told last; `message`: the last line of Ray's own words.

    While Serve builds it anew it has no parts, although replicas from before serve.
    """

    status: str
    message: str
    told: str
    parts: Mapping[str, ServePart] = field(default_factory=dict)
    deployed_at: float | None = None
    route: str | None = None

    @property
    def replicas(self) -> tuple[ServeReplica, ...]:
        """All replicas, those of the ingress too."""
        return tuple(one for part in self.parts.values() for one in part.replicas)

    @property
    def engines(self) -> tuple[ServeReplica, ...]:
        """The replicas that run an engine."""
        return tuple(one for one in self.replicas if one.part.startswith(ENGINE_PART))

    @property
    def ready(self) -> int:
        """How many engines serve."""
        return sum(one.state == "RUNNING" for one in self.engines)

    @property
    def wanted(self) -> int | None:
        """How many engines Ray wants now, between the bounds it was told; None while it does not say."""
        return next((part.target for name, part in self.parts.items() if name.startswith(ENGINE_PART)), None)


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """What is known of a cluster that somebody else runs, beside what Serve says.

    `nodes`: address of each that is alive -> CPU, GPU, memory; `told`: what was told from this host, application ->
    digests; `listens`: where Serve's proxies do; `token_file`: where the token is on this host, None where
    it is not; `token_here`: it is there as it was given. `told_elsewhere`: what clusters at other addresses were told
    from this host, application -> address.
    """

    address: str
    version: str | None = None
    nodes: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    head: str | None = None
    told: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    listens: str | None = None
    tls: bool = False
    token_here: bool = True
    token_file: str | None = None
    told_elsewhere: Mapping[str, str] = field(default_factory=dict)
    proxy_location: str | None = None


@dataclass(frozen=True, slots=True)
class ServeState:
    """Everything that Serve said. `proxies`: address of a node -> status; `port` of the proxies, None before any was.

    `error`: why Ray said nothing; then all else is empty, and unknown. `elsewhere`: where the cluster is not ours.
    """

    applications: Mapping[str, ServeApplication] = field(default_factory=dict)
    proxies: Mapping[str, str] = field(default_factory=dict)
    port: int | None = None
    error: str | None = None
    elsewhere: Elsewhere | None = None

    @property
    def runs(self) -> bool:
        """Tell whether Serve runs, whatever it serves."""
        return self.port is not None

    @property
    def told_from_here(self) -> frozenset[str]:
        """Name what a cluster elsewhere was told from the gateway host, and has as it was told.

        Others may have applications of the same names.
        """
        told = self.elsewhere.told if self.elsewhere else {}
        return frozenset(name for name, app in self.applications.items() if app.told in told.get(name, ()))


def told_digest(application: Mapping[str, object]) -> str:
    """Return the sha256 of an application of Serve's document, as the probe makes it of what Serve says it was told."""
    text = json.dumps(_plain(application), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(value: object) -> object:
    """Return a value with whole floats as integers: Serve keeps some of its numbers as floats."""
    if is_mapping(value):
        return {key: _plain(inner) for key, inner in value.items()}
    if is_list(value):
        return [_plain(inner) for inner in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def parse_serve(raw: object) -> ServeState | None:
    """Make it from the probe's JSON; None on a host without the cluster's head."""
    if not is_mapping(raw):
        return None
    applications = {
        name: _application(app) for name, app in mapping(raw.get("applications")).items() if is_mapping(app)
    }
    proxies, port = text_map(raw.get("proxies")), number(raw, "port")
    return ServeState(applications, proxies, port, text(raw, "error"), _elsewhere(raw))


def _elsewhere(raw: Mapping[str, object]) -> Elsewhere | None:
    address = text(raw, "address")
    if address is None:
        return None
    nodes = {name: node for name, node in mapping(raw.get("nodes")).items() if is_mapping(node)}
    return Elsewhere(
        address,
        text(raw, "version"),
        {name: _resources(node) for name, node in sorted(nodes.items())},
        next((name for name, node in nodes.items() if node.get("head")), None),
        {name: texts(digests) for name, digests in mapping(raw.get("told")).items()},
        text(raw, "host"),
        raw.get("tls") is True,
        raw.get("token_here") is not False,
        text(raw, "token_file"),
        text_map(raw.get("told_elsewhere")),
        text(raw, "proxy_location"),
    )


def _resources(node: Mapping[str, object]) -> dict[str, float]:
    found = mapping(node.get("resources"))
    return {name: float(value) for name, value in found.items() if isinstance(value, int | float)}


def _application(raw: Mapping[str, object]) -> ServeApplication:
    parts = {name: _part(name, part) for name, part in mapping(raw.get("parts")).items() if is_mapping(part)}
    message, told = text(raw, "message") or "", text(raw, "told") or ""
    status, at = text(raw, "status") or "unknown", _seconds(raw, "deployed_at")
    return ServeApplication(status, message, told, parts, at, text(raw, "route"))


def _part(name: str, raw: Mapping[str, object]) -> ServePart:
    return ServePart(
        text(raw, "status") or "unknown",
        text(raw, "message") or "",
        number(raw, "target"),
        tuple(_replica(name, one) for one in mappings(raw.get("replicas"))),
        tuple(_replica(name, one) for one in mappings(raw.get("dead"))),
    )


def _replica(part: str, raw: Mapping[str, object]) -> ServeReplica:
    return ServeReplica(
        part,
        text(raw, "state") or "unknown",
        text(raw, "address"),
        text(raw, "id") or "",
        text(raw, "log"),
        text(raw, "worker"),
        _seconds(raw, "started"),
    )


def _seconds(raw: Mapping[str, object], key: str) -> float | None:
    value = raw.get(key)
    return float(value) if isinstance(value, int | float) else None
