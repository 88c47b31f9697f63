"""Mirrors of Rocky Linux, docker and NVIDIA, whose packages a stand-in key signs."""

import base64
import functools
import threading
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass, replace
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from tests.driver.kit import module_file
from tests.made_rpms import Key, Rpms, agents

KERNEL, NEWER = "5.14.0-570.12.1.el9_6", "5.14.0-999.1.1.el9_6"
VERSION, OTHER = "580.95.05-1.el9", "575.57.08-1.el9"
TOOLKIT = (
    "nvidia-container-toolkit", "nvidia-container-toolkit-base", "libnvidia-container-tools", "libnvidia-container1",
)  # fmt: skip
PASSED = "us:s3cret/@'\"#;$=%"
ENGINE = ("docker-ce-cli", "containerd.io", "docker-compose-plugin")


@dataclass(frozen=True)
class Mirrors:
    """What answers on loopback; `folder` is what it shows."""

    address: str
    folder: Path
    key: Key

    @property
    def named(self) -> dict[str, str]:
        return {name: f"{self.address}/{name}" for name in ("rocky", "docker", "cuda", "nvidia_container_toolkit")}

    @property
    def keys(self) -> dict[str, str]:
        return dict.fromkeys(self.named, str(self.key.public))


@pytest.fixture(scope="session", autouse=True)
def _no_agent_outlives_us(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Neither those of our keys nor those that dnf starts."""
    yield
    assert agents(tmp_path_factory.getbasetemp()) == []


@pytest.fixture(scope="session")
def mirrors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mirrors]:
    folder = tmp_path_factory.mktemp("mirrors")
    key = Key(tmp_path_factory.mktemp("keyring") / "home").make()
    rocky(folder / "rocky/9.6", key)
    engine(folder / "docker/linux/centos/9/x86_64/stable", key)
    nvidia(folder / "cuda/rhel9/x86_64", key)
    toolkit(folder / "nvidia_container_toolkit/stable/rpm/x86_64", key)

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Say nothing."""

    yield from served(Quiet, Mirrors("http://", folder, key))


@pytest.fixture(scope="session")
def guarded(mirrors: Mirrors) -> Iterator[Mirrors]:
    """The same to whoever signs in alone, with an account in the address as a site writes it."""

    class Guarded(SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.headers.get("Authorization") == "Basic " + base64.b64encode(PASSED.encode()).decode():
                super().do_GET()
            else:
                self.send_error(401)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    user, _, password = PASSED.partition(":")
    account = f"{user}:{urllib.parse.quote(password, safe='')}"
    yield from served(Guarded, Mirrors(f"http://{account}@", mirrors.folder, mirrors.key))


def served(handler: type[SimpleHTTPRequestHandler], made: Mirrors) -> Iterator[Mirrors]:
    """Serve what mirrors have; their address goes on with the port."""
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=str(made.folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield replace(made, address=f"{made.address}127.0.0.1:{server.server_port}")
        server.shutdown()


def rocky(folder: Path, key: Key) -> None:
    """Make BaseOS and AppStream, with headers of two kernels."""
    base, more = Rpms(folder / "BaseOS/x86_64/os"), Rpms(folder / "AppStream/x86_64/os")
    for name in ("nftables", "openssl", "rsync", "python3-dnf-plugin-versionlock", "gcc"):
        base.add(name, "1.0-1.el9")
    more.add("iperf3", "3.9-1.el9")
    for kernel in (KERNEL, NEWER):
        base.add("kernel-headers", kernel)
        more.add("kernel-devel", kernel, "gcc")
        more.add("kernel-devel-matched", kernel, f"kernel-devel = {kernel}")
    base.build(key)
    more.build(key)


def engine(folder: Path, key: Key) -> None:
    """Make docker-ce's repository."""
    made = Rpms(folder)
    made.add("docker-ce", "28.5.1-1.el9", ", ".join(ENGINE), epoch=3)
    for name in ENGINE:
        made.add(name, "28.5.1-1.el9")
    made.build(key)


def nvidia(folder: Path, key: Key) -> None:
    """Make NVIDIA's repository: two branches with open modules, one with proprietary ones, dkms beside them."""
    made = Rpms(folder)
    made.add("dkms", "3.2.2-1.el9", "gcc, kernel-devel-matched")
    for version, streams in ((VERSION, ("580-open", "580-dkms")), (OTHER, ("575-open",))):
        common = [
            made.add("nvidia-driver-cuda", version, f"nvidia-kmod = {version.partition('-')[0]}", epoch=3),
            made.add("nvidia-persistenced", version, epoch=3),
            made.add("nvidia-fabric-manager", version),
        ]
        for stream in streams:
            kind = "open" if stream.endswith("open") else "latest"
            provides = f"dkms\nProvides: nvidia-kmod = {version.partition('-')[0]}"
            text = module_file(version.partition("-")[0], "Dual MIT/GPL" if kind == "open" else "NVIDIA")
            module = {f"/lib/modules/{KERNEL}.x86_64/extra/nvidia.ko": text}
            kmod = made.add(f"kmod-nvidia-{kind}-dkms", version, provides, epoch=3, files=module)
            made.stream(stream, [*common, kmod])
    made.build(key)


def toolkit(folder: Path, key: Key) -> None:
    """Make the container toolkit's repository in two versions; its index is signed."""
    made = Rpms(folder)
    for version in ("1.17.8-1", "1.18.2-1"):
        for name in TOOLKIT:
            made.add(name, version)
    made.build(key)
    index = folder / "repodata/repomd.xml"
    key.gpg("--armor", "--output", f"{index}.asc", "--detach-sign", str(index))
