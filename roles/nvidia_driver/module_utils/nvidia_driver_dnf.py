# SPDX-License-Identifier: Apache-2.0
"""The RHEL family: the streams of NVIDIA's module, installing from one, versionlock."""

from __future__ import annotations

import contextlib
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any, Collection, Iterable, Iterator, Mapping

from ansible.module_utils import nvidia_driver_sources as sources
from ansible.module_utils import onprem_llm_dnf as dnf
from ansible.module_utils import onprem_llm_package_key as package_key
from ansible.module_utils import onprem_llm_package_source as package_source
from ansible.module_utils import onprem_llm_record as record
from ansible.module_utils.nvidia_driver_packages import BROUGHT, targets
from ansible.module_utils.onprem_llm_apt_get import PackageError
from ansible.module_utils.onprem_llm_command import run

MODULE = "nvidia-driver"
LOCK_PLUGIN = "python3-dnf-plugin-versionlock"
# What a stream has of kernel modules, and what the stream's name ends in after the branch.
KMODS = (("kmod-nvidia-open-dkms$", "-open"), ("kmod-nvidia-latest-dkms$", "-dkms"), (r"kmod-nvidia-\d", ""))
FABRIC = ("nvidia-fabric-manager", "nvidia-fabricmanager")
HELD = re.compile(r"^(nvidia-|libnvidia-|kmod-nvidia|kernel(-core|-modules|-modules-core|-devel|-headers)?$)")
OTHERS = re.compile(r"^(nvidia-container|libnvidia-container|nvidia-docker)")
# An artifact of a stream: nvidia-driver-cuda-3:580.95.05-1.el9.x86_64
ARTIFACT = re.compile(r"\b(nvidia-driver-cuda|nvidia-fabric-?manager)-(?:\d+:)?(\d{3,}\.\d+(?:\.\d+)?)-\S+")


class Dnf:
    """The hands of a host of the RHEL family."""

    def __init__(
        self, facts: Mapping[str, Any], mirrors: Mapping[str, str], source: str | None, known: Collection[str] = ()
    ) -> None:
        """`source`: the repository that alone is asked (`dnf.only`), where a bundle brought it.

        `known`: fingerprints of NVIDIA's keys.
        """
        self.facts, self.source, self.known = facts, source, known
        self.mirrors: Mapping[str, str] = {} if source else mirrors
        self.options = ["--allowerasing"]
        self.scope: list[str] = []  # dnf's options for other repositories than the host's
        self.exact = ""  # of a stream's versions the one to take; the newest where it is empty

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """Ask the repositories as `prepare` would have them, and change nothing: files and lists are in a folder.

        PackageError where a key cannot be fetched.
        """
        text = sources.dnf_text(self.facts, self.mirrors)
        with tempfile.TemporaryDirectory(prefix="onprem-llm-dnf-") as folder:
            parts = Path(folder) / "parts"
            shutil.copytree(sources.DNF_REPOSITORY.parent, parts)
            if text:
                key = package_key.present(self._key(), Path(folder) / "cuda.asc")
                text = text.replace(str(sources.DNF_KEY), str(key))
                package_source.write_dnf(parts / sources.DNF_REPOSITORY.name, text)
            self.scope = [f"--setopt=reposdir={parts}", f"--setopt=cachedir={folder}/cache"]
            try:
                yield
            finally:
                self.scope = []

    @contextlib.contextmanager
    def pinned(self, pattern: str) -> Iterator[None]:
        """Have of each stream the version that is asked for: 580.95.05*; of 580.* it is the newest."""
        self.exact = pattern.rstrip("*").rstrip(".") if pattern.count(".") > 1 else ""
        yield

    def prepare(self) -> bool:
        """Write NVIDIA's repository where the site names a mirror; return whether the file changed. PackageError."""
        text, path = sources.dnf_text(self.facts, self.mirrors), sources.DNF_REPOSITORY
        if not text:
            return False
        record.note_absent([str(sources.DNF_KEY), str(path)], False)
        package_key.present(self._key())
        return package_source.write_dnf(path, text)

    def _key(self) -> package_key.Key:
        return sources.key(self.facts, self.mirrors["cuda"], self.known)

    def _ask(self, *words: str) -> str:
        return run(["dnf", "--quiet", *dnf.scope, *self.scope, *words], 300)[1]

    def offered(self) -> dict[str, str]:
        """Return {package, or nvidia-driver:STREAM, or package@STREAM: version}."""
        found: dict[str, str] = self._brought() if self.source else {}
        for stream in [] if self.source else self._streams():
            said = self._ask("module", "info", f"{MODULE}:{stream}")
            for name, version in ARTIFACT.findall(said):
                key = f"{MODULE}:{stream}" if name == "nvidia-driver-cuda" else f"{name}@{stream}"
                found[key] = max(found.get(key, ""), version, key=self._rank)
        for kernel in targets(self.facts):
            if self._ask("repoquery", f"kernel-devel-{kernel}").strip():
                found[f"kernel-devel-{kernel}"] = kernel
        return found

    def _rank(self, version: str) -> tuple[bool, list[int]]:
        return bool(version) and version == self.exact, _as_numbers(version)

    def _brought(self) -> dict[str, str]:
        """Return the same of a bundle: its packages say which streams they are of."""
        text = self._ask("repoquery", "--queryformat", "%{name}\t%{version}", "nvidia-*", "kmod-nvidia-*")
        rows = [line.split("\t") for line in text.splitlines() if line.count("\t") == 1]
        found = {BROUGHT: ""}
        for name, version in rows:
            kind = next((kind for pattern, kind in KMODS if re.match(pattern, name)), None)
            if kind is not None:
                stream = f"{MODULE}:{version.partition('.')[0]}{kind}"
                found[stream] = max(found.get(stream, ""), version, key=self._rank)
        for name, version in rows:
            if name in FABRIC:
                streams = [one.partition(":")[2] for one, other in found.items() if other == version]
                found.update({f"{name}@{stream}": version for stream in streams})
        return found

    def _streams(self) -> list[str]:
        text = self._ask("module", "list", MODULE)
        return [line.split()[1] for line in text.splitlines() if line.startswith(f"{MODULE} ")]

    def installed(self) -> dict[str, str]:
        """Return {package: version}; packages of several versions (kernels) by name and name-version-release.arch."""
        form = "%{NAME}\\t%{VERSION}-%{RELEASE}.%{ARCH}\\n"
        rows = [
            line.split("\t") for line in run(["rpm", "--query", "--all", "--queryformat", form], 60)[1].splitlines()
        ]
        found = {row[0]: row[1] for row in rows if len(row) == 2}
        full = {f"{row[0]}-{row[1]}": row[1] for row in rows if len(row) == 2}
        short = {f"{row[0]}-{row[1].split('-')[0]}": row[1] for row in rows if len(row) == 2}
        return {**short, **full, **found}

    def there(self) -> list[str]:
        """Return what is installed; rpm knows no packages that are half so."""
        return list(self.installed())

    def remove(self, names: list[str]) -> None:
        """Remove packages. PackageError."""
        code, text = run(["dnf", "--assumeyes", "--quiet", "remove", *names], 1800)
        if code != 0:
            raise PackageError(f"{', '.join(names)} could not be removed: dnf says\n{text[-600:]}")

    def stream(self) -> str | None:
        """Return the stream that is enabled, as nvidia-driver:580-open."""
        text = run(["dnf", "--quiet", "module", "list", "--enabled", MODULE], 300)[1]
        rows = [line.split() for line in text.splitlines() if line.startswith(f"{MODULE} ")]
        return f"{MODULE}:{rows[0][1]}" if rows else None

    def set_stream(self, name: str) -> None:
        """Enable a stream, whichever was enabled before. PackageError."""
        run(["dnf", "--assumeyes", "--quiet", "module", "reset", MODULE], 300)
        code, text = run(["dnf", "--assumeyes", "--quiet", "module", "enable", name], 300)
        if code != 0:
            raise PackageError(f"the stream {name} could not be enabled: dnf says\n{text[-600:]}")

    def install(self, names: list[str], without: Iterable[str] = ()) -> None:
        """Install packages, and note them for uninstall; dnf takes away what stands against them. PackageError."""
        record.begin_packages(dnf.installed())
        dnf.install(names, *self.options)
        record.end_packages(dnf.installed())

    def allow_downgrade(self) -> None:
        """Nothing is wanted: dnf installs the version that is named, also in the place of a newer one."""

    def lockable(self) -> list[str]:
        """Return what is installed and is to be held."""
        rows = run(["rpm", "--query", "--all", "--queryformat", "%{NAME}\\n"], 60)[1].split()
        return sorted({name for name in rows if HELD.match(name) and not OTHERS.match(name)})

    def unheld(self) -> list[str]:
        """Return what is to be held, and is not."""
        code, text = run(["dnf", "--quiet", "versionlock", "list"], 120)
        locked = (
            {re.sub(r"-(?:\d+:)?[^-]+-[^-]+$", "", line.strip()) for line in text.splitlines()} if code == 0 else set()
        )
        return [name for name in self.lockable() if name not in locked]

    def let_go(self) -> None:
        """Lock the driver's versions no longer; kernels stay locked. PackageError."""
        names = [name for name in self.lockable() if not name.startswith("kernel") and name not in self.unheld()]
        code, text = run(["dnf", "--quiet", "versionlock", "delete", *names], 300) if names else (0, "")
        if code != 0:
            raise PackageError(f"{', '.join(names)} could not be let go: dnf versionlock says\n{text[-400:]}")

    def hold(self) -> None:
        """Lock versions, and note them for uninstall. PackageError."""
        if dnf.missing([LOCK_PLUGIN]):
            self.install([LOCK_PLUGIN])
        names = self.unheld()
        if names:
            record.note_held(names)
            code, text = run(["dnf", "--quiet", "versionlock", "add", *names], 300)
            if code != 0:
                raise PackageError(f"{', '.join(names)} could not be held: dnf versionlock says\n{text[-400:]}")


def _as_numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".") if part.isdigit()]
