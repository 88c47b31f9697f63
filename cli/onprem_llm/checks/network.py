"""What was measured between hosts: as reports and facts keep it, and typed. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

from onprem_llm.json_values import is_list, is_mapping
from onprem_llm.probe_values import mapping, mappings, number, text

Document = Mapping[str, object]


@dataclass(frozen=True)
class Link:
    """One direction of a line. Rates in bit/s, sizes in bytes, `nic` (what the card is good for) in bit/s."""

    source: str
    target: str
    rate: float | None = None
    busy: float = 0  # percent of a core, at the busier side
    again: int | None = None  # segments that were sent again
    error: str | None = None  # why there is no rate
    mtu: int | None = None  # the largest packet that gets there
    device: str | None = None
    device_mtu: int | None = None
    nic: float | None = None
    tried: tuple[int, ...] = ()  # ports of the target
    blocked: tuple[tuple[int, str], ...] = ()


@dataclass(frozen=True)
class Pair:
    """Two hosts: times in seconds; `offset` is b's clock less a's, true within `bound`."""

    a: str
    b: str
    links: tuple[Link, ...] = ()
    error: str | None = None
    rtt_median: float | None = None
    rtt_worst: float | None = None
    offset: float | None = None
    bound: float | None = None


@dataclass(frozen=True)
class Host:
    """A host of the run; `error`: why it took no part."""

    address: str | None = None
    iperf3: bool | None = None
    synchronized: bool | None = None
    service: str | None = None
    error: str | None = None


@dataclass(frozen=True)
class Network:
    """All that was measured; `ports` are the engine's own, the first and the last."""

    hosts: Mapping[str, Host]
    pairs: tuple[Pair, ...] = ()
    ports: tuple[int, int] | None = None

    @cached_property
    def links(self) -> tuple[Link, ...]:
        """Every direction of every line."""
        return tuple(link for pair in self.pairs for link in pair.links)

    @cached_property
    def line(self) -> Mapping[tuple[str, str], Link]:
        """One direction, by source and target."""
        return {(link.source, link.target): link for link in self.links}

    @cached_property
    def of_host(self) -> Mapping[str, tuple[Link, ...]]:
        """Every direction of a host's lines, by host."""
        found: dict[str, list[Link]] = {host: [] for host in self.hosts}
        for link in self.links:
            found[link.source].append(link)
            found[link.target].append(link)
        return {host: tuple(links) for host, links in found.items()}


def network_of(document: Document) -> Network:
    """Read what a report keeps; what is missing there is not known."""
    span = document.get("ports")
    ports = [one for one in span if isinstance(one, int)] if is_list(span) else []
    return Network(
        {str(name): _host(mapping(value)) for name, value in mapping(document.get("hosts")).items()},
        tuple(_pair(one) for one in mappings(document.get("pairs"))),
        (ports[0], ports[1]) if len(ports) == 2 else None,
    )


def _host(raw: Document) -> Host:
    clock = mapping(raw.get("clock"))
    return Host(
        text(raw, "address"), _maybe(raw.get("iperf3")), _maybe(clock.get("synchronized")), text(clock, "service"),
        text(raw, "error"),
    )  # fmt: skip


def _maybe(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


def _real(raw: Document, name: str) -> float | None:
    value = raw.get(name)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _pair(raw: Document) -> Pair:
    return Pair(
        text(raw, "a") or "", text(raw, "b") or "", tuple(_link(one) for one in mappings(raw.get("links"))),
        text(raw, "error"), *(_real(raw, name) for name in ("rtt_median", "rtt_worst", "offset", "bound")),
    )  # fmt: skip


def _link(raw: Document) -> Link:
    device, tried = mapping(raw.get("device")), raw.get("tried")
    speed = number(device, "speed")
    return Link(
        text(raw, "from") or "", text(raw, "to") or "", _real(raw, "rate"), _real(raw, "busy") or 0,
        number(raw, "again"), text(raw, "error"), number(raw, "mtu"), text(device, "name"), number(device, "mtu"),
        speed * 1e6 if speed else None,
        tuple(one for one in tried if isinstance(one, int)) if is_list(tried) else (),
        tuple(_shut(raw.get("blocked"))),
    )  # fmt: skip


def _shut(raw: object) -> Iterator[tuple[int, str]]:
    for one in raw if is_list(raw) else []:
        if is_list(one) and len(one) == 2 and isinstance(one[0], int):
            yield one[0], str(one[1])


def document_of(
    hosts: Sequence[str], addresses: Mapping[str, str], said: Mapping[str, Document], ports: tuple[int, int]
) -> dict[str, object]:
    """Put together what hosts measured: `hosts` in the order of the run, `said` the status of those that ended."""
    told = {pair["names"]: pair for pair in _told(hosts, said)}
    pairs = [_joined(a, b, told, said) for a, b in combinations(hosts, 2)]
    return {
        "hosts": {
            name: {"address": addresses.get(name), **mapping(mapping(said.get(name)).get("host")),
                   "error": _failure(said.get(name))}
            for name in hosts
        },
        "ports": list(ports),
        "pairs": pairs,
    }  # fmt: skip


def _failure(status: object) -> str | None:
    """Say why a host took no part, None where it did."""
    found = mapping(status)
    if found.get("state") == "done":
        return None
    return text(found, "error") or "it was lost while lines were measured"


def _told(hosts: Sequence[str], said: Mapping[str, Document]) -> Iterator[dict[str, object]]:
    """Yield what each host says of each of its pairs, under (who says it, a, b)."""
    for name, status in said.items():
        for raw in mappings(status.get("pairs")):
            a, b = number(raw, "a"), number(raw, "b")
            if a is not None and b is not None and {a, b} <= set(range(len(hosts))):
                a, b = sorted((a, b))
                yield {**raw, "names": (name, hosts[a], hosts[b])}


def _joined(a: str, b: str, told: Mapping[object, Document], said: Mapping[str, Document]) -> dict[str, object]:
    """Make one pair of what its two hosts say; the first one led, and has the figures."""
    led, answered = told.get((a, a, b), {}), told.get((b, a, b), {})
    reasons = [f"{a}: {text(led, 'unmet')}"] if text(led, "unmet") else []
    reasons += [f"{b}: {text(answered, 'unmet')}"] if text(answered, "unmet") else []
    if not reasons and text(led, "error"):
        reasons = [f"it broke off: {text(led, 'error')}"]
    if not reasons and not led:
        lost = a if a not in said else b
        reasons = [text(answered, "error") or f"{lost} was lost meanwhile"]
    names = {number(led, "a"): a, number(led, "b"): b}
    links = [
        {**link, "from": names.get(number(link, "from")), "to": names.get(number(link, "to"))}
        for link in mappings(led.get("links"))
        if is_mapping(link)
    ]
    figures = {name: led[name] for name in ("rtt_median", "rtt_worst", "offset", "bound") if name in led}
    return {"a": a, "b": b, "error": "; ".join(reasons) or None, **figures, "links": links}
