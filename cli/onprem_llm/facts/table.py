"""Facts as a person reads them."""

from collections import Counter

from onprem_llm.output import human_bytes
from onprem_llm.spec.facts import Facts, HostFacts

COLUMNS = ("host", "os", "cpu", "memory", "gpus", "kernels", "largest disk")


def rows(facts: Facts) -> list[tuple[object, ...]]:
    """Return a row a host."""
    return [(name, *_cells(host)) for name, host in facts.hosts.items()]


def _cells(host: HostFacts) -> tuple[object, ...]:
    others = len(host.kernels.all) - 1
    kernels = host.kernels.running + (f" (+{others})" if others else "")
    largest = max(host.disks, key=lambda disk: disk.size_bytes, default=None)
    disk = None
    if largest:
        disk = f"{largest.mount}: {human_bytes(largest.free_bytes)} free of {human_bytes(largest.size_bytes)}"
    return (
        f"{host.os.id} {host.os.version_id}".strip(), f"{host.cpu.cores} {host.architecture}",
        human_bytes(host.memory_bytes), _gpus(host), kernels, disk,
    )  # fmt: skip


def _gpus(host: HostFacts) -> str | None:
    counted = Counter(
        gpu.name + (f" {human_bytes(gpu.memory_bytes)}" if gpu.memory_bytes is not None else "") for gpu in host.gpus
    )
    driver = f" (driver {host.driver})" if host.driver else ""
    return ", ".join(f"{count}x {name}" for name, count in counted.items()) + driver or None
