"""NVIDIA's driver for hosts of a release: what bootstrap would install on each, decided by the role's own code."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from onprem_llm.locking.role_code import module_utils
from onprem_llm.spec.facts import HostFacts
from onprem_llm.spec.site import NvidiaDriver

ROLE = "nvidia_driver"
_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}


@dataclass(frozen=True, slots=True)
class GpuHost:
    """Hosts with the same GPUs (PCI device ids) and kernels, and what they are called; `switches`: NVSwitches."""

    names: tuple[str, ...]
    devices: tuple[int, ...]
    running: str
    newest: str
    switches: int = 0


def gpu_hosts(hosts: Sequence[tuple[str, HostFacts]]) -> tuple[GpuHost, ...]:
    """Return the hosts with NVIDIA GPUs, those that are alike together.

    Left out are GPUs without a PCI id, and those that are too old for any driver.
    """
    look, is_old = _part("look"), _part("needs").is_old
    alike: dict[tuple[tuple[int, ...], str, str, int], list[str]] = {}
    for name, host in hosts:
        ids = [gpu.pci_id for gpu in host.gpus if gpu.pci_id]
        known = {int(one.partition(":")[2], 16) for one in ids if one.startswith("10de:")}
        devices = tuple(sorted(device for device in known if not is_old({"device": device})))
        if devices:
            newest = look.newest(list(host.kernels.installed) or [host.kernels.running])
            alike.setdefault((devices, host.kernels.running, newest, host.nvswitches), []).append(name)
    return tuple(GpuHost(tuple(names), *key) for key, names in sorted(alike.items()))


def components(os_id: str) -> tuple[str, ...]:
    """Return the components of an archive that a driver is in."""
    return tuple(_part("sources").COMPONENTS[os_id])


def is_driver(package: str) -> bool:
    """Tell whether a package belongs to a driver."""
    return bool(_part("apt").DRIVERS.match(package))


def wanted(
    release: Mapping[str, str],
    hosts: Sequence[GpuHost],
    driver: NvidiaDriver,
    ask: Callable[[Sequence[str]], str],
) -> tuple[list[list[str]], tuple[str, ...]]:
    """Return the packages for each kind of host, and notes about hosts that get no driver out of this bundle.

    `release`: os, version, codename and architecture; `ask` runs an apt-cache command.
    """
    found: list[list[str]] = []
    notes: list[str] = []
    apt = _part("apt")
    known = [name for prefix in apt.PREFIXES for name in ask(["apt-cache", "pkgnames", prefix]).split()]
    for host in hosts:
        facts = _facts(release, host)
        names = apt.asked_names(facts, known)
        policies = module_utils(ROLE, "onprem_llm_apt").parse_policies(ask(["apt-cache", "policy", *names]), names)
        choice = _chosen(facts, host, driver, apt.offers(policies), notes)
        group = [name for _, names in choice.groups for name in names] if choice else []
        found += [group] if choice and group not in found else []
    return found, tuple(notes)


def stream_groups(
    release: Mapping[str, str], hosts: Sequence[GpuHost], driver: NvidiaDriver, offered: Mapping[str, str]
) -> tuple[list[dict[str, Any]], tuple[str, ...]]:
    """Return the same for the RHEL family: {install: packages, stream: of NVIDIA's module}, and notes.

    `offered` as the role's `redhat` takes it.
    """
    found: list[dict[str, Any]] = []
    notes: list[str] = []
    for host in hosts:
        choice = _chosen(_facts({"codename": "", **release}, host), host, driver, offered, notes)
        if choice is not None:
            group = {"install": [name for _, names in choice.groups for name in names], "stream": choice.stream}
            found += [group] if group not in found else []
    return found, tuple(notes)


def _chosen(
    facts: Mapping[str, Any], host: GpuHost, driver: NvidiaDriver, offered: Mapping[str, str], notes: list[str]
) -> Any:
    """Ask the role; None, with a note, for hosts that get no driver out of this bundle, or one for some kernels."""
    needs, packages = _part("needs"), _part("packages")
    wishes = packages.Wishes(driver.branch, driver.kernel_modules, driver.build)
    names = ", ".join(host.names)
    try:
        choice = packages.chosen(facts, needs.asked(facts["gpus"], facts["switches"]), wishes, offered)
    except needs.DriverError as error:
        notes.append(f"{names}: no driver for its GPUs in this bundle: {error}")
        return None
    return choice


def _facts(release: Mapping[str, str], host: GpuHost) -> dict[str, Any]:
    """Return a host as the role sees it before anything is installed."""
    return {
        "os": release["os"], "version": release["version"], "codename": release["codename"],
        "machine": _MACHINES[release["architecture"]], "switches": host.switches, "headers": [],
        "running": host.running, "newest": host.newest,
        "gpus": [{"address": "", "device": device, "driver": None} for device in host.devices],
    }  # fmt: skip


def _part(name: str) -> Any:
    return module_utils(ROLE, f"nvidia_driver_{name}")
