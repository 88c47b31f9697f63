"""A rehearsal host's root file system by dnf --installroot: from a mirror alone whose packages the given key signs."""

import subprocess
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
from tests.dnf.conftest import Mirrors
from tests.made_rpms import Key, Rpms

from onprem_llm.errors import OnpremError
from onprem_llm.lab import dnf_root_file_system
from onprem_llm.lab.mirrors import Given, Mirror, find_mirror
from onprem_llm.lab_systems import SYSTEMS, System

ROCKY = SYSTEMS["rocky-9"]
BASE = ("rocky-release", "bash")


@pytest.fixture(scope="module")
def rocky(mirrors: Mirrors) -> tuple[System, str]:
    """Stand-ins for two base packages where a mirror of Rocky Linux has them."""
    for tree, names in (("BaseOS", BASE), ("AppStream", ())):
        made = Rpms(mirrors.folder / f"lab/9/{tree}/x86_64/os")
        for name in names:
            repository = {"/etc/yum.repos.d/rocky.repo": b"[baseos]\nname=x\nmirrorlist=https://outside.example/\n"}
            made.add(name, "9.6-1.el9", files=repository if name == "rocky-release" else None)
        made.build(mirrors.key)
    return replace(ROCKY, base=BASE), f"{mirrors.address}/lab"


def files_of(archive: Path) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(archive) as tar:
        return {one.name.removeprefix("./"): one for one in tar}


def made(system: System, mirror: Mirror, folder: Path) -> Path:
    archive = folder / "base.tar"
    dnf_root_file_system.make(system, mirror, dnf_root_file_system.repository(system, mirror), archive)
    return archive


def test_a_root_file_system_knows_its_mirror_alone(rocky: tuple[System, str], mirrors: Mirrors, tmp_path: Path) -> None:
    system, address = rocky
    archive = made(system, find_mirror(system, Given(address, mirrors.key.public)), tmp_path)
    found = files_of(archive)
    assert "usr/share/stand-ins/bash-9.6-1.el9" in found
    assert [name for name in found if name.startswith("etc/yum.repos.d/")] == ["etc/yum.repos.d/onprem-llm-lab.repo"]
    assert found["dev/null"].ischr()
    with tarfile.open(archive) as tar:
        stream = tar.extractfile("./etc/yum.repos.d/onprem-llm-lab.repo")
        assert stream is not None
        text = stream.read().decode()
        tar.extractall(tmp_path / "root", filter="tar", members=[one for one in tar if not one.ischr()])
    assert f"baseurl={address}/9/AppStream/$basearch/os/" in text
    assert f"gpgkey=file://{dnf_root_file_system.KEY}" in text
    assert f"{dnf_root_file_system.KEY.lstrip('/')}" in found
    # The host's own rpm finds its database, whatever rpm made it.
    argv = ["rpm", "--root", str(tmp_path / "root"), "--dbpath", "/var/lib/rpm", "--query", *BASE]
    assert subprocess.run(argv, capture_output=True, check=False).returncode == 0


def test_packages_that_another_signed_are_refused(rocky: tuple[System, str], tmp_path: Path) -> None:
    system, address = rocky
    stranger = Key(tmp_path / "stranger").make()
    with pytest.raises(OnpremError, match=f"rocky-9: dnf could not make hosts from {address}") as raised:
        made(system, find_mirror(system, Given(address, stranger.public)), tmp_path)
    assert "--mirror-key FILE, or ONPREM_LLM_ROCKY_KEY=FILE" in (raised.value.hint or "")


def test_a_mirror_that_does_not_answer_is_told(mirrors: Mirrors, tmp_path: Path) -> None:
    given = Given("http://127.0.0.1:9/rocky", mirrors.key.public)
    with pytest.raises(OnpremError, match=r"from http://127\.0\.0\.1:9/rocky \(named by --mirror\)") as raised:
        made(ROCKY, find_mirror(ROCKY, given), tmp_path)
    assert "onprem-llm-lab-baseos" in (raised.value.details or "")
    assert "--mirror URL, or ONPREM_LLM_ROCKY_MIRROR" in (raised.value.hint or "")
