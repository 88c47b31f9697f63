"""The repositories that roles name on a host of the RHEL family: the real dnf installs what the checked key signed."""

import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from tests.dnf.conftest import Mirrors
from tests.dnf.test_bundle import Host
from tests.made_rpms import Key
from tests.unit.bootstrap.conftest import role_module  # noqa: F401 - a fixture
from tests.unit.nvidia_driver.conftest import driver  # noqa: F401 - a fixture

from onprem_llm.locking.repositories import fingerprints

FACTS = {"os": "rocky", "version": "9.6", "machine": "x86_64"}


class Plain(Host):
    """A host's root that no bundle came to."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "etc/yum.repos.d").mkdir(parents=True)

    def install(self, package: str) -> subprocess.CompletedProcess[str]:
        """Install a package, of whichever stream, as Rocky Linux 9's dnf does: its releasever has one number."""
        return self.dnf("--releasever=9", "--setopt=*.module_hotfixes=true", "install", package)


@dataclass
class Named:
    """A role's repository on a host: `name` writes it, with fingerprints; `served` is the mirror's key."""

    host: Plain
    name: Callable[[dict[str, str], list[str]], Any]
    place: Path
    served: Path
    package: str
    errors: type[Exception]


@pytest.fixture(params=["docker", "cuda"])
def named(
    request: pytest.FixtureRequest,
    mirrors: Mirrors,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    role_module: Callable[[str], ModuleType],  # noqa: F811
    driver: SimpleNamespace,  # noqa: F811
) -> Iterator[Named]:
    """The repository of docker's, or of NVIDIA's, from a mirror; files go to a folder that stands for a host's root."""
    host = Plain(tmp_path / "host")
    place, key = host.root / "etc/yum.repos.d/ours.repo", host.root / "etc/pki/rpm-gpg/KEY"
    if request.param == "docker":
        dnf = role_module("container_engine_dnf")
        monkeypatch.setattr(dnf, "REPOSITORY", place)
        monkeypatch.setattr(dnf, "KEY", key)
        made = Named(
            host, lambda named, known: dnf.write_repository(named, "rocky", known), place,
            mirrors.folder / "docker/linux/centos/gpg", "docker-ce-cli", dnf.PackageError,
        )  # fmt: skip
    else:
        monkeypatch.setattr(driver.sources, "DNF_REPOSITORY", place)
        monkeypatch.setattr(driver.sources, "DNF_KEY", key)
        monkeypatch.setattr(driver.dnf.record, "RECORD", tmp_path / "bootstrap.json")
        made = Named(
            host, lambda named, known: driver.dnf.Dnf(FACTS, named, None, known).prepare(), place,
            mirrors.folder / "cuda/rhel9/x86_64/D42D0685.pub", "nvidia-persistenced-580.95.05", driver.dnf.PackageError,
        )  # fmt: skip
    made.served.write_bytes(mirrors.key.public.read_bytes())
    yield made
    made.served.unlink()


def test_what_the_checked_key_signed_is_installed(named: Named, mirrors: Mirrors) -> None:
    assert named.name(mirrors.named, sorted(fingerprints(mirrors.key.public.read_bytes()))) is True
    assert named.place.stat().st_mode & 0o777 == 0o644
    done = named.host.install(named.package)
    assert done.returncode == 0, done.stdout + done.stderr
    assert named.package.partition("-580")[0] in named.host.installed()


def test_dnf_signs_in_with_an_account_that_root_alone_reads(named: Named, guarded: Mirrors) -> None:
    known = sorted(fingerprints(guarded.key.public.read_bytes()))
    assert [named.name(guarded.named, known) for _ in range(2)] == [True, False]
    assert named.place.stat().st_mode & 0o777 == 0o600
    done = named.host.install(named.package)
    assert done.returncode == 0, done.stdout + done.stderr
    # What dnf writes into caches and logs, which everybody reads, and says of an address, has no account in it.
    for path in (one for one in named.host.root.rglob("*") if one.is_file() and one != named.place):
        assert b"s3cret" not in path.read_bytes(), path
    named.place.write_text(named.place.read_text().replace("password=s3cret", "password=another"))
    refused = named.host.dnf("--releasever=9", "--refresh", "makecache")
    assert refused.returncode != 0
    assert "401" in refused.stdout + refused.stderr
    assert "another" not in refused.stdout + refused.stderr


def test_another_key_at_the_mirror_names_no_repository(named: Named, mirrors: Mirrors, tmp_path: Path) -> None:
    """Also where it is beside the right one. dnf would have taken whatever the address gave it."""
    stranger = Key(tmp_path / "stranger").make()
    right = fingerprints(named.served.read_bytes())
    for data in (stranger.public.read_bytes(), named.served.read_bytes() + stranger.public.read_bytes()):
        named.served.write_bytes(data)
        with pytest.raises(named.errors, match="could install anything"):
            named.name(mirrors.named, sorted(right))
    assert not list((named.host.root / "etc/yum.repos.d").iterdir())
    assert not (named.host.root / "etc/pki").exists()


def test_what_another_signed_is_refused(named: Named, mirrors: Mirrors, tmp_path: Path) -> None:
    """The host has a key whose fingerprint is known, and it is not the one that signed the packages."""
    stranger = Key(tmp_path / "stranger").make()
    path = named.host.root / "etc/pki/rpm-gpg/KEY"
    path.parent.mkdir(parents=True)
    path.write_bytes(stranger.public.read_bytes())
    assert named.name(mirrors.named, sorted(fingerprints(stranger.public.read_bytes()))) is True
    done = named.host.install(named.package)
    assert done.returncode != 0
    assert "is not installed" in done.stdout + done.stderr
    asked = ["rpm", "--root", str(named.host.root), "--dbpath", "/var/lib/rpm", "-q", named.package]
    assert subprocess.run(asked, capture_output=True, check=False).returncode != 0
