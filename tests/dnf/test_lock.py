"""What a lock takes for hosts of the RHEL family: the closure that dnf names, each package signed by whom we know."""

import hashlib
from pathlib import Path

import pytest
from tests.dnf.conftest import KERNEL, NEWER, TOOLKIT, Mirrors
from tests.made_facts import facts_of, host_facts
from tests.made_rpms import agents

from onprem_llm.errors import InvalidError, OnpremError
from onprem_llm.locking import dnf_root
from onprem_llm.locking.blobs import Blobs
from onprem_llm.locking.packages import Packages, Release, releases
from onprem_llm.spec.facts import Facts
from onprem_llm.spec.lock import LockedPackages
from onprem_llm.spec.site import NvidiaContainerToolkit

ROCKY = {"id": "rocky", "version_id": "9.6", "codename": ""}
H100 = {"name": "NVIDIA 10de:2330", "memory_bytes": None, "pci_id": "10de:2330"}
RUNNING = {"running": f"{KERNEL}.x86_64", "installed": [f"{KERNEL}.x86_64"]}
BASE = {
    "docker-ce", "docker-ce-cli", "containerd.io", "docker-compose-plugin", "iperf3", "nftables", "openssl", "rsync",
}  # fmt: skip
DRIVER = {
    "python3-dnf-plugin-versionlock", "kmod-nvidia-open-dkms", "nvidia-driver-cuda", "nvidia-persistenced", "dkms",
    "gcc",
    "kernel-devel", "kernel-devel-matched", "kernel-headers",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONPREM_LLM_CACHE", str(tmp_path / "cache"))


def facts(**change: object) -> Facts:
    return facts_of(a=host_facts(os=ROCKY, kernels=RUNNING, **change))


def resolved(mirrors: Mirrors, known: Facts) -> tuple[LockedPackages, tuple[str, ...]]:
    return Packages(mirrors.named, Blobs(), keys=mirrors.keys).resolve(*releases(known))


def test_a_host_without_gpus_gets_the_engine(mirrors: Mirrors) -> None:
    locked, notes = resolved(mirrors, facts())
    assert {one.name for one in locked.files} == BASE
    assert notes == ()
    (engine,) = [one for one in locked.files if one.name == "docker-ce"]
    assert (engine.version, engine.architecture) == ("3:28.5.1-1.el9", "x86_64")
    assert engine.filename == "docker-ce-28.5.1-1.el9.x86_64.rpm"


def test_a_host_with_gpus_gets_the_driver_for_its_kernel_and_no_other(mirrors: Mirrors) -> None:
    """One that asks for headers of any kernel gets those of the host's, not the newest with a kernel behind them."""
    locked, notes = resolved(mirrors, facts(gpus=[H100] * 8))
    assert {one.name for one in locked.files} == BASE | DRIVER | set(TOOLKIT)
    versions = {one.name: one.version for one in locked.files}
    assert versions["nvidia-driver-cuda"] == "3:580.95.05-1.el9"
    assert versions["kernel-devel"] == versions["kernel-devel-matched"] == KERNEL
    assert NEWER not in {one.version for one in locked.files if one.name.startswith("kernel-devel")}
    assert {versions[name] for name in TOOLKIT} == {"1.18.2-1"}
    assert notes == ()


def test_the_container_toolkit_that_is_wished_or_none(mirrors: Mirrors) -> None:
    for wished, expected in ((NvidiaContainerToolkit(version="1.17.8"), {"1.17.8-1"}),
                             (NvidiaContainerToolkit(install=False), set())):  # fmt: skip
        packages = Packages(mirrors.named, Blobs(), keys=mirrors.keys, toolkit=wished)
        locked, notes = packages.resolve(*releases(facts(gpus=[H100])))
        assert {one.version for one in locked.files if one.name in TOOLKIT} == expected
        assert notes == ()


def test_no_gpg_agent_outlives_a_lock(mirrors: Mirrors, tmp_path: Path) -> None:
    """dnf starts one for each repository whose index is signed; a lock that is refused leaves none either."""
    resolved(mirrors, facts(gpus=[H100]))
    assert list(tmp_path.glob("cache/dnf/*/cache/nvidia_container_toolkit-*/pubring"))
    assert agents(tmp_path) == []
    index = mirrors.folder / "nvidia_container_toolkit/stable/rpm/x86_64/repodata/repomd.xml"
    good = index.read_bytes()
    index.write_bytes(good + b"\n")
    try:
        with pytest.raises(InvalidError):
            resolved(mirrors, facts(gpus=[H100]))
    finally:
        index.write_bytes(good)
    assert agents(tmp_path) == []


def test_nvswitches_want_the_fabric_manager_of_that_version(mirrors: Mirrors) -> None:
    locked, _ = resolved(mirrors, facts(gpus=[H100] * 8, nvswitches=4))
    assert {one.version for one in locked.files if one.name == "nvidia-fabric-manager"} == {"580.95.05-1.el9"}


def test_a_kernel_without_headers_is_told(mirrors: Mirrors) -> None:
    gone = {"running": "5.14.0-1.el9.x86_64", "installed": ["5.14.0-1.el9.x86_64"]}
    locked, notes = resolved(mirrors, facts_of(a=host_facts(os=ROCKY, kernels=gone, gpus=[H100])))
    assert not [one.name for one in locked.files if "nvidia" in one.name and one.name not in TOOLKIT]
    assert "a: no driver for its GPUs in this bundle: found no headers of the kernel 5.14.0-1.el9.x86_64" in notes[0]


def test_packages_come_as_they_were_locked(mirrors: Mirrors) -> None:
    locked, _ = resolved(mirrors, facts(gpus=[H100]))
    blobs = Blobs()
    Packages(mirrors.named, blobs, keys=mirrors.keys).fetch(locked, locked.files)
    for one in locked.files:
        data = blobs.path(one.sha256).read_bytes()
        assert (hashlib.sha256(data).hexdigest(), len(data)) == (one.sha256, one.size)


def test_a_package_that_another_signed_is_refused(
    mirrors: Mirrors, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    from tests.made_rpms import Key

    stranger = Key(tmp_path / "stranger").make()
    locked, _ = resolved(mirrors, facts())
    some = [one for one in locked.files if one.name == "rsync"]
    with pytest.raises(InvalidError) as raised:
        Packages(mirrors.named, Blobs(), keys={**mirrors.keys, "rocky": str(stranger.public)}).fetch(locked, some)
    assert "Public key for rsync-1.0-1.el9.x86_64.rpm is not installed" in (raised.value.details or "")
    assert not Blobs().has(some[0].sha256, some[0].size)


def test_a_mirrors_own_key_is_taken_for_its_fingerprint_alone(mirrors: Mirrors) -> None:
    """This mirror serves a key where Rocky's is, and it is another."""
    served = mirrors.folder / "rocky/RPM-GPG-KEY-Rocky-9"
    served.write_bytes(mirrors.key.public.read_bytes())
    keys = {name: one for name, one in mirrors.keys.items() if name != "rocky"}
    try:
        with pytest.raises(InvalidError, match=r"expected 21CB256AE16FC54C6E652949702D426D350D275D") as raised:
            Packages(mirrors.named, Blobs(), keys=keys).resolve(*releases(facts()))
    finally:
        served.unlink()
    assert "--package-key rocky=FILE" in (raised.value.hint or "")


def test_mirrors_that_are_not_named_or_not_there_are_told(mirrors: Mirrors) -> None:
    release = Release("rocky", "9.6", "", "amd64", ())
    with pytest.raises(InvalidError, match="no mirror of rocky") as raised:
        Packages({}, Blobs()).resolve(release)
    assert "--package-mirror rocky=URL (with 9.6/BaseOS and 9.6/AppStream in it)" in (raised.value.hint or "")
    only = {"rocky": mirrors.named["rocky"]}
    with pytest.raises(InvalidError, match=r"found no docker-ce, .* in its mirrors") as raised:
        Packages(only, Blobs(), keys=mirrors.keys).resolve(release)
    assert "--package-mirror docker=URL" in (raised.value.hint or "")
    gone = {**mirrors.named, "rocky": "http://127.0.0.1:9/rocky"}
    with pytest.raises(InvalidError, match=r"rocky 9\.6 \(amd64\): dnf says") as raised:
        Packages(gone, Blobs(), keys=mirrors.keys).resolve(release)
    assert "rocky-0" in (raised.value.details or "")


def test_without_dnf_it_is_said(mirrors: Mirrors, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    python = tmp_path / "python3"
    python.write_text('#!/bin/sh\nexec /usr/bin/python3 -S -I "$@"\n')  # without the system's own packages
    python.chmod(0o755)
    monkeypatch.setattr(dnf_root, "PYTHON", str(python))
    with pytest.raises(OnpremError, match="dnf is not on this machine") as raised:
        Packages(mirrors.named, Blobs(), keys=mirrors.keys).resolve(Release("rocky", "9.6", "", "amd64", ()))
    assert "--skip packages" in (raised.value.hint or "")
