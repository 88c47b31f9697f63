"""Packages of another release than this machine's, through the real apt and this machine's mirror."""

import base64
import hashlib
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from tests.made_facts import facts_of, host_facts

from onprem_llm.errors import InvalidError, OnpremError
from onprem_llm.locking import apt_root
from onprem_llm.locking.blobs import Blobs
from onprem_llm.locking.driver_packages import GpuHost
from onprem_llm.locking.packages import Packages, Release, releases
from onprem_llm.spec.lock import LockedPackages
from onprem_llm.spec.site import NvidiaContainerToolkit, NvidiaDriver

TRIXIE = Release("debian", "13", "trixie", "amd64", ("6.1-gone-amd64",), ("6.1-gone-amd64",))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One root of apt for these tests: its lists are 100 MB."""
    return tmp_path_factory.mktemp("shared")


@pytest.fixture(autouse=True)
def _own_machine(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONPREM_LLM_CACHE", str(shared))
    if not apt_root.own_mirrors("debian"):
        pytest.skip("this machine is no Debian with a mirror of its own")


def status() -> str:
    return subprocess.run(["dpkg-query", "-W"], capture_output=True, text=True, check=True).stdout


Resolved = tuple[LockedPackages, tuple[str, ...]]


@pytest.fixture(scope="module")
def looked(shared: Path) -> tuple[Resolved, str]:
    """What is locked, and a kernel that the mirror has headers of.

    Asked for together: another mirror's sources come into the same root later, and then apt knows no such lists.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ONPREM_LLM_CACHE", str(shared))
        resolved = Packages({}, Blobs()).resolve(TRIXIE)
        known = apt_root.apt_root("debian", "13", "amd64").run(["apt-cache", "pkgnames", "linux-headers-6"], "headers")
    names = [name.removeprefix("linux-headers-") for name in known.split()]
    return resolved, next(name for name in sorted(names) if name.endswith("+deb13-amd64"))


@pytest.fixture(scope="module")
def resolved(looked: tuple[Resolved, str]) -> Resolved:
    return looked[0]


@pytest.fixture(scope="module")
def kernel(looked: tuple[Resolved, str]) -> str:
    return looked[1]


def test_the_closure_has_what_bootstrap_installs_down_to_libc(resolved: Resolved, shared: Path) -> None:
    locked, notes = resolved
    names = {one.name for one in locked.files}
    ours = {"docker.io", "docker-compose", "docker-cli", "iperf3", "nftables", "openssl", "rsync"}
    assert ours | {"libc6", "containerd", "libiperf0"} <= names
    assert [one.filename for one in locked.files] == sorted(one.filename for one in locked.files)
    assert all(one.architecture in {"amd64", "all"} for one in locked.files)
    assert len(notes) == 1
    assert "no mirror has linux-headers-6.1-gone-amd64" in notes[0]


def test_it_is_what_apt_would_install_on_an_empty_machine(resolved: Resolved) -> None:
    """Every dependency of every package is met inside of the closure: apt itself says so, given nothing else."""
    locked, _ = resolved
    root = apt_root.apt_root("debian", "13", "amd64")
    exact = [f"{one.name}:{one.architecture}={one.version}" for one in locked.files]
    said = root.run(["apt-get", "install", "--simulate", "--no-install-recommends", *exact], "the closure")
    assert f"{len(locked.files)} newly installed" in said
    assert "0 upgraded" in said


def test_this_machine_is_left_as_it_is_and_makes_no_difference(
    resolved: Resolved, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What is installed, pinned and configured here does not count; nor does another cache."""
    before = status()
    monkeypatch.setenv("ONPREM_LLM_CACHE", str(tmp_path))
    monkeypatch.setenv("APT_CONFIG", "/nowhere")
    assert Packages({}, Blobs()).resolve(TRIXIE) == resolved
    assert status() == before


def test_packages_come_by_name_and_version_and_are_what_was_locked(resolved: Resolved, shared: Path) -> None:
    locked, _ = resolved
    some = [one for one in locked.files if one.name in {"rsync", "adduser", "libpopt0"}]
    blobs = Blobs()
    Packages({}, blobs).fetch(locked, some)
    assert len(some) == 3
    for one in some:
        data = blobs.path(one.sha256).read_bytes()
        assert (hashlib.sha256(data).hexdigest(), len(data)) == (one.sha256, one.size)


def test_a_version_that_is_gone_says_to_lock_again(resolved: Resolved, monkeypatch: pytest.MonkeyPatch) -> None:
    locked, _ = resolved
    updated: list[str] = []
    # The lists are a few seconds old; fetching them takes as many.
    monkeypatch.setattr(apt_root.AptRoot, "update", lambda root: updated.append(root.name))
    gone = locked.files[0].model_copy(update={"version": "0.0-gone"})
    with pytest.raises(InvalidError, match="make the lock again then") as raised:
        Packages({}, Blobs()).fetch(locked, [gone])
    assert "0.0-gone" in (raised.value.details or "")
    assert updated == ["debian 13 (amd64)"]


def test_a_mirror_that_is_not_there_is_told() -> None:
    with pytest.raises(InvalidError, match=r"package lists of debian 13 \(amd64\)") as raised:
        Packages(dict.fromkeys(("debian", "debian_security"), "http://127.0.0.1:9/debian"), Blobs()).resolve(TRIXIE)
    assert "127.0.0.1:9" in (raised.value.details or "")
    assert "--package-mirror" in (raised.value.hint or "")


def test_an_archive_that_nobody_signed_is_refused(tmp_path: Path) -> None:
    """A mirror with its own key: what it has is not installed as root."""
    suite = tmp_path / "debian/dists/trixie"
    (suite / "main/binary-amd64").mkdir(parents=True)
    (suite / "main/binary-amd64/Packages").write_text("")
    (suite / "Release").write_text("Suite: trixie\nCodename: trixie\nComponents: main\nArchitectures: amd64\n")
    root = apt_root.apt_root("debian", "13-unsigned", "amd64")
    keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"
    root.prepare(
        "amd64", f"Types: deb\nURIs: file:{tmp_path}/debian\nSuites: trixie\nComponents: main\nSigned-By: {keyring}\n"
    )
    with pytest.raises(InvalidError) as raised:
        root.update()
    assert "is not signed" in (raised.value.details or "")


def test_a_driver_for_the_hosts_gpus_is_in_the_closure(resolved: Resolved, kernel: str) -> None:
    """With all that DKMS builds it with, and again without a driver where people look after drivers themselves."""
    hosts = (GpuHost(("a",), (0x1EB8,), kernel, kernel), GpuHost(("b", "c"), (0x2901,), kernel, kernel))
    release = replace(TRIXIE, kernels=(kernel,), headers=(kernel,), gpus=hosts)
    locked, notes = Packages({}, Blobs()).resolve(release)
    names = {one.name for one in locked.files}
    assert {"nvidia-kernel-dkms", "dkms", f"linux-headers-{kernel}", "gcc-14", "libcuda1", "nvidia-smi"} <= names
    assert {one.name for one in resolved[0].files} <= names
    assert len({one.name for one in locked.files}) == len(locked.files)
    assert len(notes) == 2
    assert notes[1].startswith("a, b, c: no NVIDIA Container Toolkit in this bundle: found no nvidia-container-toolkit")
    assert notes[0].startswith("b, c: no driver for its GPUs in this bundle: found driver 550 in Debian's sources")
    blobs = Blobs()
    some = [one for one in locked.files if one.name == "nvidia-persistenced"]
    Packages({}, blobs).fetch(locked, some)
    assert blobs.path(some[0].sha256).stat().st_size == some[0].size
    without, notes = Packages({}, Blobs(), NvidiaDriver(install=False), NvidiaContainerToolkit(install=False)).resolve(
        release
    )
    assert not [one.name for one in without.files if "nvidia" in one.name]
    assert notes == ()


def test_hosts_are_put_together_by_release() -> None:
    gpu = {"name": "NVIDIA 10de:2330", "memory_bytes": None, "pci_id": "10de:2330"}
    kernels = {"running": "6.12.9", "installed": ["6.12.8", "6.12.9"]}
    bookworm = {"id": "debian", "version_id": "12", "codename": "bookworm"}
    old = {**gpu, "pci_id": "10de:102d"}
    several = host_facts(gpus=[gpu, gpu, old], kernels=kernels, nvswitches=4)
    found = releases(facts_of(a=host_facts(), b=several, c=host_facts(os=bookworm)))
    assert [one.gpus for one in found] == [(), (GpuHost(("b",), (0x2330,), "6.12.9", "6.12.9", 4),)]
    assert [(one.label, one.kernels, one.headers) for one in found] == [
        ("debian 12 (amd64)", ("6.12.1-amd64",), ()),
        ("debian 13 (amd64)", ("6.12.1-amd64", "6.12.8", "6.12.9"), ("6.12.8", "6.12.9")),
    ]


@pytest.mark.parametrize(
    ("system", "said"),
    [
        (
            {"id": "sles", "version_id": "15.6", "codename": ""},
            "a: found sles 15.6, expected Debian, Ubuntu or the RHEL",
        ),
        ({"id": "debian", "version_id": "", "codename": "forky"}, "without a version"),
        ({"id": "debian", "version_id": "13", "codename": ""}, "with no codename"),
    ],
)
def test_systems_that_cannot_be_locked_say_so(system: dict[str, str], said: str) -> None:
    with pytest.raises(InvalidError) as raised:
        releases(facts_of(a=host_facts(os=system)))
    assert said in raised.value.message
    assert "--skip packages" in (raised.value.hint or "")


def test_another_systems_mirror_must_be_named() -> None:
    jammy = Release("ubuntu", "22.04", "jammy", "amd64", ())
    with pytest.raises(InvalidError, match="no mirror of ubuntu") as raised:
        Packages({}, Blobs()).resolve(jammy)
    assert "--package-mirror ubuntu=URL" in (raised.value.hint or "")


def test_a_release_without_a_good_engine_asks_for_dockers_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    """As apt-cache policy answers on Debian 12."""
    said = "docker.io:\n  Installed: (none)\n  Candidate: 20.10.24+dfsg1-1+deb12u1\n"
    monkeypatch.setattr(apt_root.AptRoot, "update", lambda root: None)
    monkeypatch.setattr(apt_root.AptRoot, "run", lambda root, argv, what: said)
    bookworm = Release("debian", "12", "bookworm", "amd64", ())
    with pytest.raises(InvalidError, match=r"debian 12 \(amd64\): found docker.io 20") as raised:
        Packages({}, Blobs()).resolve(bookworm)
    assert "--package-mirror docker=URL" in (raised.value.hint or "")


def test_without_apt_it_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ONPREM_LLM_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", "/nowhere")
    mirrors = dict.fromkeys(("debian", "debian_security"), "http://127.0.0.1:9/debian")
    with pytest.raises(OnpremError, match="apt-get is not on this machine") as raised:
        Packages(mirrors, Blobs()).resolve(TRIXIE)
    assert "--skip packages" in (raised.value.hint or "")


def test_a_mirrors_password_is_where_apt_has_it_and_nobody_else_reads_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mirror that asks for one: apt has it of auth.conf. Our files are private from their first byte."""
    auth = tmp_path / "auth.conf"
    root = apt_root.AptRoot(tmp_path / "apt", "debian 13 (amd64)")
    made = root.folder / "etc/apt"
    (made / "sources.list.d").mkdir(parents=True)
    for name in ("apt.conf", "sources.list.d/onprem-llm.sources"):
        (made / name).touch(mode=0o644)  # as an earlier onprem-llm left them
    opened: list[int] = []
    written = os.open
    monkeypatch.setattr(os, "open", lambda path, flags, mode=0o777: opened.append(mode) or written(path, flags, mode))
    with closed_mirror() as (address, asked):
        auth.write_text(f"machine {address}\nlogin me\npassword hunter2\n")
        root.prepare("amd64", f"Types: deb\nURIs: {address}/debian\nSuites: trixie\nComponents: main\n")
        assert opened == [0o600, 0o600]
        assert {(made / name).stat().st_mode & 0o777 for name in ("apt.conf", "sources.list.d/onprem-llm.sources")} == {
            0o600
        }
        conf = (made / "apt.conf").read_text()
        assert '"/etc/apt/auth.conf"' in conf
        (made / "apt.conf").write_text(conf.replace("/etc/apt/auth.conf", str(auth)))
        with pytest.raises(InvalidError):  # it has nothing
            root.update()
    assert f"Basic {base64.b64encode(b'me:hunter2').decode()}" in asked


@contextmanager
def closed_mirror() -> Iterator[tuple[str, list[str]]]:
    """A mirror that asks for a password and then has nothing; gives its address, and how it was asked."""
    asked: list[str] = []

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.headers.get("Authorization", ""))
            self.send_response(404 if asked[-1] else 401)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """What is asked is kept above."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()
