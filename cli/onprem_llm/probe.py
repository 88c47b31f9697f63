"""From the probe's JSON to typed hosts. Tolerant: a host that cannot say something has said so, not failed."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from onprem_llm.book_state import Book, BookEntry, HostMark, RecordedReplica
from onprem_llm.errors import InvalidError
from onprem_llm.gateway_facts import parse_certificates, parse_firewall, parse_gateway, parse_ray_firewall
from onprem_llm.hosts import Container, Current, Gpu, GpuProcess, HostState, Image, Project, StoredWeights
from onprem_llm.json_values import is_mapping
from onprem_llm.machine_state import Disk, Engine, Listener, Lock
from onprem_llm.probe_values import mapping, mappings, number, numbers, text, text_map, texts
from onprem_llm.schedule_state import parse_schedules
from onprem_llm.serve_state import parse_serve

if TYPE_CHECKING:
    from onprem_llm.spec.network_facts import NetworkFacts

SCHEMA = 2


def parse_current(
    probes: Mapping[str, object], unreachable: Sequence[str] = (), left_out: Sequence[str] = ()
) -> Current:
    """Make Current from host -> probe (what probe.yml returned, or the same from a file of recorded facts)."""
    return Current(
        tuple(parse_host(name, probe) for name, probe in probes.items()), tuple(unreachable), tuple(left_out)
    )


def parse_host(name: str, raw: object) -> HostState:
    """Make one host; InvalidError if this is no probe of ours."""
    probe = mapping(raw)
    if probe.get("schema") != SCHEMA:
        raise InvalidError(
            f"{name}: found facts of schema {probe.get('schema')!r}, expected {SCHEMA}",
            hint="record the facts again with this version of onprem-llm",
        )
    facts, gpus = mapping(probe.get("host")), mapping(probe.get("gpus"))
    return HostState(
        name=name,
        hostname=text(facts, "hostname") or name,
        os_name=text(facts, "os_name") or "unknown",
        arch=text(facts, "arch") or "unknown",
        cpus=number(facts, "cpus"),
        memory_total=number(facts, "memory_total"),
        memory_available=number(facts, "memory_available"),
        boot_id=text(facts, "boot_id"),
        disks={key: _disk(value) for key, value in mapping(probe.get("disks")).items() if is_mapping(value)},
        addresses=texts(probe.get("addresses")),
        interfaces=text_map(probe.get("interfaces")),
        default_address=text(probe, "default_address"),
        listeners=tuple(_listener(item) for item in mappings(probe.get("listeners"))),
        gpu_tool=bool(gpus.get("tool")),
        driver=text(gpus, "driver"),
        cuda=text(gpus, "cuda"),
        gpu_error=text(gpus, "error"),
        gpus=tuple(_gpu(item) for item in mappings(gpus.get("devices"))),
        links=text_map(gpus.get("links")),
        rdma={port: up is True for port, up in mapping(probe.get("rdma")).items()},
        gang_interface=text(probe, "gang_interface") or None,
        engine=_engine(mapping(probe.get("engine"))),
        images=tuple(_image(item) for item in mappings(probe.get("images"))),
        projects={key: _project(key, mapping(value)) for key, value in mapping(probe.get("projects")).items()},
        keys=text_map(probe.get("keys")),
        env_secrets={key: text_map(value) for key, value in mapping(probe.get("env_secrets")).items()},
        weights={key: _weights(key, mapping(value)) for key, value in mapping(probe.get("weights")).items()},
        book=_book(probe.get("book")),
        lock=_lock(probe.get("lock")),
        site=mapping(probe.get("site")),
        groups=texts(probe.get("groups")),
        ansible_host=text(probe, "ansible_host"),
        problems=texts(probe.get("problems")),
        gateway_state=parse_gateway(probe.get("gateway")),
        firewall=parse_firewall(probe.get("firewall")),
        ray_firewall=parse_ray_firewall(probe.get("ray_firewall")),
        certificates=parse_certificates(probe.get("certificates"), number(facts, "now")),
        healer=bool(probe.get("healer")),
        strays=number(probe, "registry_strays") or 0,
        client_keys=text_map(probe.get("client_keys")),
        schedules=parse_schedules(probe.get("schedules")),
        serve=parse_serve(probe.get("serve")),
        network=_network(probe.get("network")),
    )


def _disk(raw: Mapping[str, object]) -> Disk:
    return Disk(text(raw, "path") or "", number(raw, "free") or 0, number(raw, "total") or 0, number(raw, "device"))


def _listener(raw: Mapping[str, object]) -> Listener:
    return Listener(
        text(raw, "address") or "",
        number(raw, "port") or 0,
        number(raw, "pid"),
        text(raw, "process"),
        text(raw, "container"),
    )


def _gpu(raw: Mapping[str, object]) -> Gpu:
    return Gpu(
        index=number(raw, "index") or 0,
        uuid=text(raw, "uuid") or "",
        name=text(raw, "name") or "unknown",
        memory_total=number(raw, "memory_total"),
        memory_used=number(raw, "memory_used"),
        compute_cap=text(raw, "compute_cap"),
        processes=tuple(
            GpuProcess(number(item, "pid") or 0, text(item, "name") or "unknown", number(item, "memory"))
            for item in mappings(raw.get("processes"))
        ),
    )


def _engine(raw: Mapping[str, object]) -> Engine:
    return Engine(
        running=bool(raw.get("running")),
        version=text(raw, "version"),
        compose=text(raw, "compose"),
        cdi=bool(raw.get("cdi")),
        runtimes=texts(raw.get("runtimes")),
        root=text(raw, "root"),
        error=text(raw, "error"),
        # As docker takes them: nvidia.com/gpu=GPU-….
        cdi_devices=tuple(name.rpartition("=")[2] for name in texts(raw.get("cdi_devices"))),
        cdi_missing=texts(raw.get("cdi_missing")),
    )


def _image(raw: Mapping[str, object]) -> Image:
    return Image(text(raw, "id") or "", texts(raw.get("tags")), texts(raw.get("digests")))


def _project(name: str, raw: Mapping[str, object]) -> Project:
    containers = tuple(_container(item) for item in mappings(raw.get("containers")))
    stored = frozenset(texts(raw["stored"])) if "stored" in raw else None
    files, secrets = text_map(raw.get("files")), text(raw, "secrets_digest")
    return Project(name, text(raw, "path") or "", files, secrets, containers, stored)


def _container(raw: Mapping[str, object]) -> Container:
    return Container(
        service=text(raw, "service") or "",
        id=text(raw, "id") or "",
        name=text(raw, "name") or "",
        image=text(raw, "image") or "",
        state=text(raw, "state") or "unknown",
        health=text(raw, "health"),
        exit_code=number(raw, "exit_code"),
        started_at=text(raw, "started_at"),
        restarts=number(raw, "restarts") or 0,
        labels=text_map(raw.get("labels")),
    )


def _weights(name: str, raw: Mapping[str, object]) -> StoredWeights:
    return StoredWeights(
        id=name,
        path=text(raw, "path") or "",
        files=number(raw, "files") or 0,
        bytes=number(raw, "bytes") or 0,
        drift=texts(raw.get("drift")),
        complete=bool(raw.get("complete")),
    )


def _network(raw: object) -> "NetworkFacts | None":
    """Return None for what this version cannot read, too: the next check --network writes it anew."""
    if not is_mapping(raw):
        return None
    from onprem_llm.spec.network_facts import NetworkFacts  # most looks do without

    try:
        return NetworkFacts.model_validate(raw)
    except ValueError:
        return None


def _book(raw: object) -> Book | None:
    if not is_mapping(raw):
        return None
    entries = {name: _entry(mapping(value)) for name, value in mapping(raw.get("deployments")).items()}
    removed = mapping(raw.get("removed"))
    last = {name: revision for name in removed if (revision := number(removed, name)) is not None}
    marks = {
        name: HostMark(
            text(value, "state") or "", text(value, "by"), text(value, "at"), _drained(value), text(value, "purpose")
        )
        for name, value in mapping(raw.get("hosts")).items()
        if is_mapping(value)
    }
    return Book(bool(raw.get("gateway")), entries, last, texts(raw.get("errors")), bool(raw.get("second")), marks)


def _drained(mark: Mapping[str, object]) -> bool:
    return mark.get("was_drained") is True or mark.get("state") == "drained"


def _entry(raw: Mapping[str, object]) -> BookEntry:
    return BookEntry(
        revision=number(raw, "revision") or 0,
        model_yaml=text(raw, "model_yaml") or "",
        images=text_map(raw.get("images")),
        recorded_at=text(raw, "recorded_at"),
        pending=numbers(raw.get("pending")),
        last=number(raw, "last") or 0,
        replicas={
            project: RecordedReplica(host, revision, texts(value.get("members")))
            for project, value in mapping(raw.get("placement")).items()
            if is_mapping(value)
            and (host := text(value, "host")) is not None
            and (revision := number(value, "revision")) is not None
        },
    )


def _lock(raw: object) -> Lock | None:
    if not is_mapping(raw):
        return None
    age = raw.get("age")
    seconds = float(age) if isinstance(age, int | float) else None
    return Lock(text(raw, "owner") or "unknown", seconds, text(raw, "unit") or "")
