"""Hosts as planning knows them, made of facts: prepared, and with nothing on them."""

import ipaddress
from collections.abc import Iterator
from pathlib import PurePosixPath

from onprem_llm.book_state import Book
from onprem_llm.gateway_state import Certificate
from onprem_llm.hosts import Gpu, HostState
from onprem_llm.machine_state import Disk, Engine
from onprem_llm.spec.facts import Facts, HostFacts
from onprem_llm.spec.site import Site

MIB = 1024**2
_FAR = 2**40  # seconds: a certificate that does not end
_DOCKER = "/var/lib/docker"


def hosts_of(facts: Facts, site: Site) -> Iterator[HostState]:
    """Yield the hosts as they are once bootstrap has prepared them; the first is the gateway.

    What facts do not say is as it should be: addresses, engine. Nothing runs there, and nothing is stored.
    """
    for number, (name, host) in enumerate(facts.hosts.items()):
        address = _address(site, number)
        paths = {"data_root": site.data_root, "weights": site.weights_path, "docker": _DOCKER}
        yield HostState(
            name=name, hostname=name, os_name=f"{host.os.id} {host.os.version_id}", arch=host.architecture,
            cpus=host.cpu.cores, memory_total=host.memory_bytes, memory_available=host.memory_bytes, boot_id=None,
            disks={key: disk for key, path in paths.items() if (disk := _disk(host, path)) is not None},
            addresses=(address,), default_address=address, listeners=(), gpu_tool=bool(host.gpus), driver=host.driver,
            cuda=None, gpu_error=None, gpus=tuple(_gpus(name, host)),
            engine=Engine(True, None, None, True, ("runc",), _DOCKER, None, ("all",) if host.gpus else ()),
            images=(), projects={}, keys={}, env_secrets={}, weights={},
            book=None if number else Book(gateway=True, deployments={}), lock=None, site={}, groups=(),
            ansible_host=None, certificates={"ca": Certificate(_FAR, ()), "gateway": Certificate(_FAR, ())},
            interfaces={address: site.gateway.interface or "eth0"}, network=None if number else facts.network,
        )  # fmt: skip


def _gpus(name: str, host: HostFacts) -> Iterator[Gpu]:
    for index, gpu in enumerate(host.gpus):
        memory = None if gpu.memory_bytes is None else gpu.memory_bytes // MIB
        yield Gpu(index, f"GPU-{name}-{index}", gpu.name, memory, 0, None, ())


def _disk(host: HostFacts, path: str) -> Disk | None:
    """Return the file system that a path is on: of those mounted above it the nearest."""
    above = {str(PurePosixPath(path)), *(str(parent) for parent in PurePosixPath(path).parents)}
    mounted = [(len(disk.mount), number) for number, disk in enumerate(host.disks) if disk.mount in above]
    if not mounted:
        return None
    _, number = max(mounted)
    return Disk(path, host.disks[number].free_bytes, host.disks[number].size_bytes, number)


def _address(site: Site, number: int) -> str:
    """Return an address of a network that nobody has, of the same family as the gateways' shared one."""
    shared = site.gateway.address
    if shared is not None and ipaddress.ip_address(shared).version == 6:
        return f"fd00::{number + 1:x}"
    return str(ipaddress.IPv4Address("198.18.0.1") + number)
