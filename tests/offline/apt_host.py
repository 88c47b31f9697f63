"""A repository as a bundle brings it, and a host of its own for apt-get: a root folder, and a mirror that is silent."""

import hashlib
import os
import shutil
import socket
import subprocess
import threading
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from tests.offline.roles_here import run_role

from onprem_llm.package_signing import sign_repository

RELEASE = """\
Origin: onprem-llm
Suite: stable
Date: Thu, 01 Jan 1970 00:00:00 UTC
SHA256:
 {sha256} {size} Packages
"""


@dataclass
class Repository:
    """A tree with real packages that depend on one another, made from nothing."""

    site: Path
    name: str = "debian-13-amd64"

    @property
    def folder(self) -> Path:
        return self.site / "packages" / self.name

    def fill(self, version: str = "1.0") -> "Repository":
        """Put onprem-llm-tool there, which needs onprem-llm-part; whatever was there goes."""
        shutil.rmtree(self.folder, ignore_errors=True)
        (self.folder / "pool").mkdir(parents=True)
        paragraphs = [
            self._package("onprem-llm-part", version, ""),
            self._package("onprem-llm-tool", version, f"Depends: onprem-llm-part (= {version})\n"),
        ]
        self._index("\n".join(paragraphs))
        return self

    def _package(self, name: str, version: str, more: str) -> str:
        work = self.site / "work" / name
        shutil.rmtree(work, ignore_errors=True)
        (work / "DEBIAN").mkdir(parents=True)
        (work / "opt").mkdir()
        (work / "opt" / name).write_text(f"{name} {version}\n")
        control = f"Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: us <us@example.com>\n{more}"
        control += f"Description: {name}\n"
        (work / "DEBIAN/control").write_text(control)
        path = self.folder / "pool" / f"{name}_{version}_all.deb"
        subprocess.run(["dpkg-deb", "--build", "--root-owner-group", str(work), str(path)], check=True, stdout=-3)
        data = path.read_bytes()
        sums = f"Size: {len(data)}\nSHA256: {hashlib.sha256(data).hexdigest()}\n"
        return f"{control}Filename: pool/{path.name}\n{sums}"

    def _index(self, packages: str) -> None:
        (self.folder / "Packages").write_text(packages)
        sha256 = hashlib.sha256(packages.encode()).hexdigest()
        (self.folder / "Release").write_text(RELEASE.format(sha256=sha256, size=len(packages.encode())))
        for path in self.folder.rglob("*"):
            os.utime(path, (0, 0))

    def sign(self) -> "Repository":
        sign_repository(self.folder, self.site)
        for name in ("InRelease", "key.asc"):
            os.utime(self.folder / name, (0, 0))
        return self

    def files(self) -> list[dict[str, Any]]:
        """Every file as an order lists it."""
        return [
            {"path": path.relative_to(self.folder).as_posix(), "size": path.stat().st_size, "sha256": sha256(path)}
            for path in sorted(self.folder.rglob("*"))
            if path.is_file() and path.name != "Release"
        ]


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@dataclass
class Mirror:
    """Takes connections and says nothing, as a catch-all does; counts them."""

    listener: socket.socket = field(default_factory=socket.socket)
    asked: int = 0

    def start(self) -> int:
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen(16)
        threading.Thread(target=self._take, daemon=True).start()
        return int(self.listener.getsockname()[1])

    def _take(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.asked += 1
            connection.close()


@dataclass
class Host:
    """A root folder that apt-get and dpkg work in, by APT_CONFIG and DPKG_ADMINDIR."""

    root: Path
    mirror: Mirror

    def make(self) -> "Host":
        for name in ("etc/apt/sources.list.d", "etc/apt/preferences.d", "var/lib/apt/lists/partial"):
            (self.root / name).mkdir(parents=True)
        for name in ("var/cache/apt/archives/partial", "var/lib/dpkg/info", "var/lib/dpkg/updates", "var/log/apt"):
            (self.root / name).mkdir(parents=True)
        (self.root / "var/lib/dpkg/status").touch()
        port = self.mirror.start()
        (self.root / "etc/apt/sources.list").write_text(f"deb http://127.0.0.1:{port}/debian trixie main\n")
        (self.root / "apt.conf").write_text(
            f'Dir "{self.root}/"; Dir::State::status "{self.root}/var/lib/dpkg/status"; Acquire::Retries "0";\n'
            f'DPkg::Options {{ "--root={self.root}"; "--force-unsafe-io"; }};\nDebug::NoLocking "false";\n'
        )
        return self

    @property
    def environment(self) -> dict[str, str]:
        return {"APT_CONFIG": str(self.root / "apt.conf"), "DPKG_ADMINDIR": str(self.root / "var/lib/dpkg")}

    @property
    def source(self) -> Path:
        return self.root / "etc/apt/sources.list.d/onprem-llm-packages.sources"

    @property
    def packages(self) -> Path:
        return self.root / "srv/onprem-llm/packages"

    def role(self, repository: Repository, entry: str = "main") -> int:
        """Run the role package_repository on this machine, and return how many tasks changed something."""
        order: dict[str, object] = {
            "package_repository_path": str(self.packages),
            "package_repository_source": str(repository.folder),
            "package_repository_files": repository.files(),
            "package_repository_sources_file": str(self.source),
        }
        return run_role(self.root, "package_repository", order, entry)

    def place(self, repository: Repository, module: ModuleType) -> None:
        """Put there what the role puts there, without the seconds that Ansible takes."""
        for one in repository.files():
            target = self.packages / one["path"]
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(repository.folder / one["path"], target)
        module.present(self.packages, repository.files(), self.source, False)

    def installed(self) -> dict[str, str]:
        """What each of our packages put there."""
        return {path.name: path.read_text() for path in sorted((self.root / "opt").glob("*"))}
