"""Every package that bootstrap installs on hosts of a release, with its whole closure, whatever this machine is."""

import functools
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from onprem_llm.errors import InvalidError
from onprem_llm.locking import dnf_packages
from onprem_llm.locking.apt_root import AptRoot, apt_root, own_mirrors
from onprem_llm.locking.blobs import Blobs
from onprem_llm.locking.driver_packages import GpuHost, components, gpu_hosts, is_driver, wanted
from onprem_llm.locking.repositories import RHEL_FAMILY, System, apt_paragraph, key_file
from onprem_llm.locking.repositories import wanted as repositories_wanted
from onprem_llm.locking.role_code import defaults, module_utils
from onprem_llm.locking.toolkit_packages import by_apt
from onprem_llm.spec.facts import ARCHITECTURES, Facts, HostFacts
from onprem_llm.spec.lock import LockedPackage, LockedPackages
from onprem_llm.spec.site import NvidiaContainerToolkit, NvidiaDriver
from onprem_llm.weights.lock import held

ROLE = "container_engine"
BY_APT = ("debian", "ubuntu")
APT_ARCHIVES = ("debian", "debian_security", "ubuntu")
# 'http://mirror/pool/d/docker.io_26.1.5%2bdfsg1-9_amd64.deb' docker.io_26.1.5+dfsg1-9_amd64.deb 27213012 SHA256:…
_URI = re.compile(r"'[^']+' (?P<file>[^ /]+\.deb) (?P<size>\d+) SHA256:(?P<sum>[0-9a-f]{64})")
# Of a suite's key, where the mirror is a copy of the archive.
_KEYRING = "/usr/share/keyrings/{}-archive-keyring.gpg"


@dataclass(frozen=True, slots=True)
class Release:
    """Hosts that get the same packages: one system, release and architecture."""

    os: str
    release: str
    codename: str
    architecture: str  # as packages name it
    kernels: tuple[str, ...]
    headers: tuple[str, ...] = ()  # kernels that a GPU driver may have to be built for
    gpus: tuple[GpuHost, ...] = ()

    @property
    def system(self) -> System:
        """Return it as repositories name it."""
        return System(self.os, self.release, self.codename, self.architecture)

    @property
    def label(self) -> str:
        """Name it for people."""
        return f"{self.os} {self.release} ({self.architecture})"


@dataclass(frozen=True, slots=True)
class Packages:
    """Packages of releases, from this machine's mirrors or those that `mirrors` names (repositories.NAMES).

    `keys`: files of the keys that sign them, where those are others than we know.
    """

    mirrors: Mapping[str, str]
    blobs: Blobs = field(default_factory=Blobs)
    driver: NvidiaDriver = field(default_factory=NvidiaDriver)
    toolkit: NvidiaContainerToolkit = field(default_factory=NvidiaContainerToolkit)
    keys: Mapping[str, str] = field(default_factory=dict)

    def resolve(self, release: Release) -> tuple[LockedPackages, tuple[str, ...]]:
        """Return the closure, and notes about what no mirror has."""
        if release.os in RHEL_FAMILY:
            return dnf_packages.resolve(release, self.mirrors, self.keys, self.driver, self.toolkit)
        with_driver = bool(release.gpus) and self.driver.install
        with self._root(release, with_driver) as root:
            root.update()
            names, notes = self._wanted(root, release)
            groups = [names]
            if with_driver:
                drivers, said = self._drivers(root, release)
                groups, notes = [names, *([*names, *one] for one in drivers)], (*notes, *said)
            toolkit, said = self._toolkit(root, release)
            groups, notes = [*groups, *([[*names, *toolkit]] if toolkit else [])], (*notes, *said)
            lines = {line for group in groups for line in _closure(root, release, group)}
        found = sorted((_package(line) for line in lines), key=lambda one: one.filename)
        locked = LockedPackages(
            os=release.os, release=release.release, codename=release.codename, architecture=release.architecture,
            kernels=release.kernels, files=tuple(found),
        )  # fmt: skip
        return locked, notes

    def fetch(self, locked: LockedPackages, files: Sequence[LockedPackage]) -> None:
        """Bring packages by name and version; a version that the mirror no longer has is an InvalidError."""
        if locked.os in RHEL_FAMILY:
            dnf_packages.fetch(locked, files, self.mirrors, self.keys, self.blobs)
            return
        release = Release(locked.os, locked.release, locked.codename, locked.architecture, locked.kernels)
        exact = [f"{one.name}:{one.architecture}={one.version}" for one in files]
        with_driver = any(is_driver(one.name) for one in locked.files)
        place = tempfile.TemporaryDirectory(dir=self.blobs.folder, prefix=".packages-")
        with self._root(release, with_driver) as root, place as folder:
            what = f"packages of {release.label}, which may have newer versions by now: make the lock again then"
            argv = ["apt-get", "download", "--quiet", *exact]
            try:
                if not root.try_run(argv, Path(folder)):
                    # The lists are from the last lock, which another machine may have made, or none.
                    root.update()
                    root.run(argv, what, cwd=Path(folder))
            finally:
                # Those that came before one that did not stay.
                for file in Path(folder).glob("*.deb"):
                    self.blobs.take(file)

    @contextmanager
    def _root(self, release: Release, with_driver: bool) -> Iterator[AptRoot]:
        """Give the release's apt to one of us at a time: RefusedError says who has it."""
        apt, root = _apt(), apt_root(release.os, release.release, release.architecture)
        mirrors = {**own_mirrors(release.os), **self.mirrors}
        keyring = _check_mirrors(release, mirrors, self.keys)
        root.folder.mkdir(parents=True, exist_ok=True)
        with held(root.folder / ".lock", f"the package lists of {release.label}"):
            more = components(release.os) if with_driver else ()
            archives = {name: one for name, one in mirrors.items() if name in APT_ARCHIVES}
            archive = apt.sources_text(archives, release.os, release.codename, more)
            texts = [archive.replace(_KEYRING.format(release.os), str(keyring))]
            for one in repositories_wanted(release.system, mirrors):
                key = key_file(one, release.system, mirrors[one.name], self.keys, root.folder / "keys")
                texts.append(apt_paragraph(one, release.system, mirrors[one.name], key))
            root.prepare(release.architecture, "\n".join(texts))
            yield root

    def _drivers(self, root: AptRoot, release: Release) -> tuple[list[list[str]], tuple[str, ...]]:
        system = {"os": release.os, "version": release.release, "codename": release.codename}
        about = f"NVIDIA's driver for {release.label}"
        ask = functools.partial(root.run, what=about)
        return wanted({**system, "architecture": release.architecture}, release.gpus, self.driver, ask)

    def _toolkit(self, root: AptRoot, release: Release) -> tuple[list[str], tuple[str, ...]]:
        about = f"NVIDIA's container toolkit for {release.label}"
        return by_apt(release.gpus, self.toolkit, functools.partial(root.run, what=about))

    def _wanted(self, root: AptRoot, release: Release) -> tuple[list[str], tuple[str, ...]]:
        apt, settings = _apt(), defaults(ROLE)
        extra = [str(name) for name in settings["container_engine_extra_packages"]]  # type: ignore[attr-defined]
        headers = [f"linux-headers-{kernel}" for kernel in release.headers]
        asked = [*apt.CANDIDATES, *extra, *headers]
        said = root.run(["apt-cache", "policy", *asked], f"packages of {release.label}")
        known = module_utils(ROLE, "onprem_llm_apt").parse_policies(said, asked)
        least = [apt.numbers(str(settings[f"container_engine_min_{what}"])) for what in ("engine", "compose")]
        try:
            names = apt.chosen(known, False, *least, extra)
        except apt.PackageError as error:
            raise InvalidError(
                f"{release.label}: {error}", hint="name a mirror of docker-ce's repository: --package-mirror docker=URL"
            ) from None
        absent = [name for name in headers if not known[name].candidate]
        notes = tuple(
            f"{release.label}: no mirror has {name}: a GPU driver cannot be built for that kernel from this bundle; "
            "update the hosts' kernel and collect their facts again, if one has to be"
            for name in absent
        )
        return [*names, *(name for name in headers if name not in absent)], notes


def _closure(root: AptRoot, release: Release, names: Sequence[str]) -> list[str]:
    """Return what `apt-get install` would fetch on an empty machine, a line each."""
    argv = ["apt-get", "install", "--print-uris", "--quiet", "--yes", "--no-install-recommends", *names]
    said = root.run(argv, f"the packages of {release.label}")
    return [line for line in said.splitlines() if line[:1] == "'"]


def releases(facts: Facts) -> tuple[Release, ...]:
    """Return the releases of the hosts, sorted. InvalidError for a system whose packages cannot be locked."""
    groups: dict[tuple[str, str, str], list[tuple[str, HostFacts]]] = {}
    for name, host in facts.hosts.items():
        groups.setdefault((*host.release, ARCHITECTURES[host.architecture]), []).append((name, host))
    return tuple(_release(key, hosts) for key, hosts in sorted(groups.items()))


def _release(key: tuple[str, str, str], hosts: Sequence[tuple[str, HostFacts]]) -> Release:
    os_id, version, architecture = key
    names = ", ".join(name for name, _ in hosts)
    if os_id not in (*BY_APT, *RHEL_FAMILY):
        raise InvalidError(
            f"{names}: found {os_id} {version}, expected Debian, Ubuntu or the RHEL family: packages of others cannot "
            "be locked",
            hint="leave packages out (--skip packages): bootstrap then installs from what these hosts have configured",
        )
    codenames = {host.os.codename for _, host in hosts} if os_id in BY_APT else {""}
    if len(codenames) != 1 or ("" in codenames and os_id in BY_APT) or not version:
        found = " and ".join(sorted(codenames - {""})) or "no codename"
        raise InvalidError(
            f"{names}: found {os_id} {version or 'without a version'} with {found}, expected one codename of a release",
            hint="an unreleased system has no fixed packages: leave them out (--skip packages)",
        )
    kernels = {kernel for _, host in hosts for kernel in host.kernels.all}
    headers = {kernel for _, host in hosts if host.gpus for kernel in host.kernels.all}
    return Release(
        os_id, version, codenames.pop(), architecture, tuple(sorted(kernels)), tuple(sorted(headers)), gpu_hosts(hosts)
    )


def _check_mirrors(release: Release, mirrors: Mapping[str, str], keys: Mapping[str, str]) -> Path:
    """Return the file of the keys that the archive is signed with. InvalidError without a mirror, or without them."""
    if release.os not in mirrors:
        raise InvalidError(
            f"this machine knows no mirror of {release.os}: it is another system",
            hint=f"name one: --package-mirror {release.os}=URL"
            + (", and --package-mirror debian_security=URL" if release.os == "debian" else ""),
        )
    keyring = Path(keys.get(release.os, _KEYRING.format(release.os)))
    if not keyring.is_file():
        package = "ubuntu-keyring" if release.os == "ubuntu" else "debian-archive-keyring"
        raise InvalidError(
            f"{keyring} is not on this machine, expected the keys that {release.os} signs its archive with",
            hint=f"apt-get install {package}, or name their file: --package-key {release.os}=FILE",
        )
    return keyring


def _package(line: str) -> LockedPackage:
    found = _URI.match(line)
    if found is None:
        raise InvalidError(
            f"apt-get says {line!r}, expected an address, a file, its size and sha256",
            hint="name a mirror whose package lists have SHA256 sums: --package-mirror NAME=URL",
        )
    name, version, architecture = unquote(found["file"].removesuffix(".deb")).split("_")
    return LockedPackage(
        name=name, version=version, architecture=architecture, filename=found["file"], size=int(found["size"]),
        sha256=found["sum"],
    )  # fmt: skip


def _apt() -> Any:
    return module_utils(ROLE, "container_engine_apt")
