"""The NVIDIA Container Toolkit for hosts with GPUs: what bootstrap would install, decided by the role's own code."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from onprem_llm.locking.driver_packages import GpuHost
from onprem_llm.locking.role_code import module_utils
from onprem_llm.spec.site import NvidiaContainerToolkit

ROLE = "nvidia_container_toolkit"


def by_apt(
    hosts: Sequence[GpuHost], wished: NvidiaContainerToolkit, ask: Callable[[Sequence[str]], str]
) -> tuple[list[str], tuple[str, ...]]:
    """Return the packages as name=version, and a note where no mirror has them; `ask` runs an apt-cache command."""
    packages = _part()
    return _chosen(hosts, wished, "=", lambda: packages.of_madison(ask(["apt-cache", "madison", *packages.NAMES])))


def by_dnf(
    hosts: Sequence[GpuHost], wished: NvidiaContainerToolkit, look: Callable[[Sequence[str]], Mapping[str, str]]
) -> tuple[list[str], tuple[str, ...]]:
    """Return the packages as name-version; `look` says of names, with a version or not, the newest that there is."""

    def offered() -> dict[str, list[str]]:
        asked = {name: f"{name}-{wished.version}" if wished.version else name for name in _part().NAMES}
        found = look(list(asked.values()))
        return {name: [found[full].rpartition(":")[2]] for name, full in asked.items() if full in found}

    return _chosen(hosts, wished, "-", offered)


def _chosen(
    hosts: Sequence[GpuHost],
    wished: NvidiaContainerToolkit,
    joint: str,
    offered: Callable[[], Mapping[str, Sequence[str]]],
) -> tuple[list[str], tuple[str, ...]]:
    if not hosts or not wished.install:
        return [], ()
    packages = _part()
    try:
        return list(packages.chosen(offered(), wished.version).names(joint)), ()
    except packages.ToolkitError as error:
        return [], (note(hosts, str(error)),)


def note(hosts: Sequence[GpuHost], why: str) -> str:
    """Say which hosts get none out of this bundle, from what the role's code says."""
    names = ", ".join(name for host in hosts for name in host.names)
    return (
        f"{names}: no NVIDIA Container Toolkit in this bundle: {why.partition(', expected ')[0]}; containers there get "
        "no GPUs without it. Name a mirror of NVIDIA's repository: --package-mirror nvidia_container_toolkit=URL"
    )


def _part() -> Any:
    return module_utils(ROLE, "nvidia_toolkit_packages")
