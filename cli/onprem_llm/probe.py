"""From the probe's JSON to typed hosts. Tolerant: a host that cannot say something has said so, not failed."""

from collections.abc import Mapping, Sequence

from onprem_llm.errors import InvalidError
from onprem_llm.hosts import (
    Book,
    BookEntry,
    Container,
    Current,
    Disk,
    Engine,
    Gpu,
    GpuProcess,
    HostState,
    Image,
    Listener,
    Lock,
    Project,
    StoredWeights,
)
from onprem_llm.json_values import is_list, is_mapping

SCHEMA = 1


def parse_current(probes: Mapping[str, object], unreachable: Sequence[str] = ()) -> Current:
    """Make Current from host -> probe (what probe.yml returned, or the same from a file of recorded facts)."""
    return Current(tuple(parse_host(name, probe) for name, probe in probes.items()), tuple(unreachable))


def parse_host(name: str, raw: object) -> HostState:
    """Make one host; InvalidError if this is no probe of ours."""
    probe = _mapping(raw)
    if probe.get("schema") != SCHEMA:
        raise InvalidError(
            f"{name}: found facts of schema {probe.get('schema')!r}, expected {SCHEMA}",
            hint="record the facts again with this version of onprem-llm",
        )
    facts, gpus = _mapping(probe.get("host")), _mapping(probe.get("gpus"))
    return HostState(
        name=name,
        hostname=_text(facts, "hostname") or name,
        os_name=_text(facts, "os_name") or "unknown",
        arch=_text(facts, "arch") or "unknown",
        cpus=_int(facts, "cpus"),
        memory_total=_int(facts, "memory_total"),
        memory_available=_int(facts, "memory_available"),
        boot_id=_text(facts, "boot_id"),
        disks={key: _disk(value) for key, value in _mapping(probe.get("disks")).items() if is_mapping(value)},
        addresses=_texts(probe.get("addresses")),
        default_address=_text(probe, "default_address"),
        listeners=tuple(_listener(item) for item in _mappings(probe.get("listeners"))),
        gpu_tool=bool(gpus.get("tool")),
        driver=_text(gpus, "driver"),
        cuda=_text(gpus, "cuda"),
        gpu_error=_text(gpus, "error"),
        gpus=tuple(_gpu(item) for item in _mappings(gpus.get("devices"))),
        engine=_engine(_mapping(probe.get("engine"))),
        images=tuple(_image(item) for item in _mappings(probe.get("images"))),
        projects={key: _project(key, _mapping(value)) for key, value in _mapping(probe.get("projects")).items()},
        keys=_text_map(probe.get("keys")),
        env_secrets={key: _text_map(value) for key, value in _mapping(probe.get("env_secrets")).items()},
        weights={key: _weights(key, _mapping(value)) for key, value in _mapping(probe.get("weights")).items()},
        book=_book(probe.get("book")),
        lock=_lock(probe.get("lock")),
        site=_mapping(probe.get("site")),
        groups=_texts(probe.get("groups")),
        ansible_host=_text(probe, "ansible_host"),
        problems=_texts(probe.get("problems")),
    )


def _disk(raw: Mapping[str, object]) -> Disk:
    return Disk(_text(raw, "path") or "", _int(raw, "free") or 0, _int(raw, "total") or 0, _int(raw, "device"))


def _listener(raw: Mapping[str, object]) -> Listener:
    return Listener(
        _text(raw, "address") or "",
        _int(raw, "port") or 0,
        _int(raw, "pid"),
        _text(raw, "process"),
        _text(raw, "container"),
    )


def _gpu(raw: Mapping[str, object]) -> Gpu:
    return Gpu(
        index=_int(raw, "index") or 0,
        uuid=_text(raw, "uuid") or "",
        name=_text(raw, "name") or "unknown",
        memory_total=_int(raw, "memory_total"),
        memory_used=_int(raw, "memory_used"),
        compute_cap=_text(raw, "compute_cap"),
        processes=tuple(
            GpuProcess(_int(item, "pid") or 0, _text(item, "name") or "unknown", _int(item, "memory"))
            for item in _mappings(raw.get("processes"))
        ),
    )


def _engine(raw: Mapping[str, object]) -> Engine:
    return Engine(
        running=bool(raw.get("running")),
        version=_text(raw, "version"),
        compose=_text(raw, "compose"),
        cdi=bool(raw.get("cdi")),
        runtimes=_texts(raw.get("runtimes")),
        root=_text(raw, "root"),
        error=_text(raw, "error"),
        cdi_devices=_texts(raw.get("cdi_devices")),
    )


def _image(raw: Mapping[str, object]) -> Image:
    return Image(_text(raw, "id") or "", _texts(raw.get("tags")), _texts(raw.get("digests")))


def _project(name: str, raw: Mapping[str, object]) -> Project:
    containers = tuple(_container(item) for item in _mappings(raw.get("containers")))
    return Project(
        name, _text(raw, "path") or "", _text_map(raw.get("files")), _text(raw, "secrets_digest"), containers
    )


def _container(raw: Mapping[str, object]) -> Container:
    return Container(
        service=_text(raw, "service") or "",
        id=_text(raw, "id") or "",
        name=_text(raw, "name") or "",
        image=_text(raw, "image") or "",
        state=_text(raw, "state") or "unknown",
        health=_text(raw, "health"),
        exit_code=_int(raw, "exit_code"),
        started_at=_text(raw, "started_at"),
        restarts=_int(raw, "restarts") or 0,
        labels=_text_map(raw.get("labels")),
    )


def _weights(name: str, raw: Mapping[str, object]) -> StoredWeights:
    return StoredWeights(
        id=name,
        path=_text(raw, "path") or "",
        files=_int(raw, "files") or 0,
        bytes=_int(raw, "bytes") or 0,
        drift=_texts(raw.get("drift")),
        complete=bool(raw.get("complete")),
    )


def _book(raw: object) -> Book | None:
    if not is_mapping(raw):
        return None
    entries = {name: _entry(_mapping(value)) for name, value in _mapping(raw.get("deployments")).items()}
    removed = _mapping(raw.get("removed"))
    last = {name: revision for name in removed if (revision := _int(removed, name)) is not None}
    return Book(bool(raw.get("gateway")), entries, last, _texts(raw.get("errors")))


def _entry(raw: Mapping[str, object]) -> BookEntry:
    return BookEntry(
        revision=_int(raw, "revision") or 0,
        model_yaml=_text(raw, "model_yaml") or "",
        images=_text_map(raw.get("images")),
        recorded_at=_text(raw, "recorded_at"),
    )


def _lock(raw: object) -> Lock | None:
    if not is_mapping(raw):
        return None
    age = raw.get("age")
    seconds = float(age) if isinstance(age, int | float) else None
    return Lock(_text(raw, "owner") or "unknown", seconds, _text(raw, "unit") or "")


def _mapping(value: object) -> Mapping[str, object]:
    return value if is_mapping(value) else {}


def _mappings(value: object) -> list[Mapping[str, object]]:
    return [item for item in value if is_mapping(item)] if is_list(value) else []


def _text(raw: Mapping[str, object], key: str) -> str | None:
    value = raw.get(key)
    return value if isinstance(value, str) and value not in {"[N/A]", "N/A", "[Not Supported]"} else None


def _texts(value: object) -> tuple[str, ...]:
    return tuple(item for item in value if isinstance(item, str)) if is_list(value) else ()


def _text_map(value: object) -> dict[str, str]:
    return {key: item for key, item in _mapping(value).items() if isinstance(item, str)}


def _int(raw: Mapping[str, object], key: str) -> int | None:
    value = raw.get(key)
    if isinstance(value, bool) or value is None:
        return None
    try:
        return int(value) if isinstance(value, int | float | str) else None
    except ValueError:
        return None
