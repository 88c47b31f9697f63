"""Package repositories beside a system's own, and those of the RHEL family, as data: where in a mirror, signed by whom.

A repository that is added here can be named with `--package-mirror`. Its key is fetched from the mirror and taken for
its fingerprint alone, so a mirror needs no TLS; one that a site signs anew is named with `--package-key`.
"""

import hashlib
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from onprem_llm.errors import InvalidError
from onprem_llm.locking.role_code import module_utils
from onprem_llm.spec.lock import LockedPackages
from onprem_llm.whole_files import write_whole

RHEL_FAMILY = ("rocky", "almalinux", "rhel", "centos", "ol")
_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
_LARGEST_KEY = 1024 * 1024
_TIMEOUT_S = 30


@dataclass(frozen=True, slots=True)
class System:
    """A release, as addresses of repositories name it."""

    os: str
    release: str
    codename: str
    architecture: str  # as Debian names it

    @property
    def words(self) -> Mapping[str, str]:
        """Return what stands in a repository's patterns."""
        machine = _MACHINES[self.architecture]
        facts = {"os": self.os, "version": self.release, "machine": machine}
        cuda = module_utils("nvidia_driver", "nvidia_driver_sources")
        return {
            "os": self.os, "codename": self.codename, "major": self.release.partition(".")[0], "machine": machine,
            "release": self.release, "architecture": self.architecture,
            "docker": "rhel" if self.os == "rhel" else "centos",
            "cuda": cuda.tree(facts), "cuda_key": cuda.key_address(facts, "").strip("/"),
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository: `apt` is (below the mirror, suite, components), `dnf` its folders below the mirror.

    `signs`: whether each rpm is signed, or the repository's index.
    """

    name: str
    fingerprints: tuple[str, ...]
    apt: tuple[str, str, str] | None = None
    apt_key: str = ""
    dnf: tuple[str, ...] = ()
    dnf_key: str = ""
    signs: str = "packages"
    systems: tuple[str, ...] = ()  # of these alone; none: of all that it has patterns for


_TREES = ("{release}/BaseOS/{machine}/os", "{release}/AppStream/{machine}/os")
# Fingerprints: docs.docker.com, NVIDIA's driver installation guide and container toolkit's installation guide,
# rockylinux.org/keys, almalinux.org/security.
REPOSITORIES = {
    one.name: one
    for one in (
        Repository(
            "docker", ("9DC858229FC7DD38854AE2D88D81803C0EBFCD88", "060A61C51B558A7F742B77AAC52FEB6B621E9F35"),
            apt=("linux/{os}", "{codename}", "stable"), apt_key="linux/{os}/gpg",
            dnf=("linux/{docker}/{major}/{machine}/stable",), dnf_key="linux/{docker}/gpg",
        ),
        Repository(
            "cuda",
            (
                "EB693B3035CD5710E231E123A4B469963BF863CC", "610C7B14E068A878070DA4E99CD0A493D42D0685",
                "02182E60104FCDC26EAE1B8597A5D4CB8793F200",  # Debian 13's folder alone
            ),
            apt=("{cuda}/", "/", ""), apt_key="{cuda_key}", dnf=("{cuda}",), dnf_key="{cuda_key}",
        ),
        Repository(
            "nvidia_container_toolkit", ("C95B321B61E88C1809C4F759DDCAE044F796ECB0",),
            apt=("stable/deb/{architecture}/", "/", ""), apt_key="gpgkey", dnf=("stable/rpm/{machine}",),
            dnf_key="gpgkey", signs="index",
        ),
        Repository(
            "rocky", ("21CB256AE16FC54C6E652949702D426D350D275D",), dnf=_TREES, dnf_key="RPM-GPG-KEY-Rocky-{major}",
            systems=("rocky",),
        ),
        Repository(
            "almalinux", ("BF18AC2876178908D6E71267D36CB86CB86B3716",), dnf=_TREES,
            dnf_key="RPM-GPG-KEY-AlmaLinux-{major}", systems=("almalinux",),
        ),
        Repository("rhel", (), dnf=_TREES, systems=("rhel",)),
        Repository("centos", (), dnf=_TREES, systems=("centos",)),
        Repository("ol", (), dnf=_TREES, systems=("ol",)),
    )
}  # fmt: skip
# What a person may name; the first three are the archives of apt's systems.
NAMES = ("debian", "debian_security", "ubuntu", *REPOSITORIES)


def system_of(locked: LockedPackages) -> System:
    """Return the release that packages were locked for."""
    return System(locked.os, locked.release, locked.codename, locked.architecture)


def wanted(system: System, mirrors: Mapping[str, str]) -> list[Repository]:
    """Return the repositories that are named and have something for a release."""
    by_dnf = system.os in RHEL_FAMILY
    found = [one for name, one in REPOSITORIES.items() if name in mirrors]
    return [one for one in found if (one.dnf if by_dnf else one.apt) and system.os in (one.systems or (system.os,))]


def apt_paragraph(repository: Repository, system: System, mirror: str, key: Path) -> str:
    """Return a source in deb822."""
    assert repository.apt is not None  # noqa: S101 - `wanted` has asked
    below, suite, components = (part.format_map(system.words) for part in repository.apt)
    text = f"Types: deb\nURIs: {mirror}/{below}\nSuites: {suite}\n"
    return text + (f"Components: {components}\n" if components else "") + f"Signed-By: {key}\n"


def dnf_repositories(repository: Repository, system: System, mirror: str, key: Path) -> list[dict[str, object]]:
    """Return the repositories as dnf_program.py takes them."""
    index = repository.signs == "index"
    return [
        {
            "id": f"{repository.name}-{number}", "baseurl": f"{mirror}/{folder.format_map(system.words)}",
            "gpgkey": str(key), "gpgcheck": not index, "repo_gpgcheck": index,
        }
        for number, folder in enumerate(repository.dnf)
    ]  # fmt: skip


def key_file(repository: Repository, system: System, mirror: str, given: Mapping[str, str], folder: Path) -> Path:
    """Return the file of a repository's keys: the given one, else the mirror's, if that is who we think it is.

    InvalidError says what was found and how another is named.
    """
    if repository.name in given:
        return Path(given[repository.name])
    name = repository.dnf_key if system.os in RHEL_FAMILY else repository.apt_key
    how = f"name the file of its keys: --package-key {repository.name}=FILE"
    if not name:
        raise InvalidError(f"{repository.name}: no key of this repository is known here", hint=how)
    address = f"{mirror}/{name.format_map(system.words)}"
    path = folder / f"{repository.name}-{hashlib.sha256(address.encode()).hexdigest()[:12]}.asc"
    if not path.is_file():
        data = _fetched(address, how)
        _check(repository, address, data, how)
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(path, data)
    return path


def _fetched(address: str, how: str) -> bytes:
    try:
        with urllib.request.urlopen(address, timeout=_TIMEOUT_S) as answer:  # noqa: S310 - a mirror's address is http
            return bytes(answer.read(_LARGEST_KEY))
    except (OSError, ValueError) as error:
        raise InvalidError(f"{address}: no key was to be had there: {error}", hint=how) from None


def _check(repository: Repository, address: str, data: bytes, how: str) -> None:
    found = fingerprints(data)
    if not found or not found <= set(repository.fingerprints):
        said = ", ".join(sorted(found)) or "no key that can be read"
        raise InvalidError(
            f"{address}: found {said}, expected {' or '.join(repository.fingerprints)}",
            hint=f"whoever holds another key could install anything; if it is the site's own, {how}",
        )


def fingerprints(data: bytes) -> set[str]:
    """Return the fingerprints of all keys in a file, as hosts see them; none where it cannot be read."""
    return set(module_utils("module_parts", "onprem_llm_openpgp").fingerprints(data))
