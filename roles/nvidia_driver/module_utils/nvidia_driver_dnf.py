# SPDX-License-Identifier: Apache-2.0
"""The RHEL family: the streams of NVIDIA's module, installing from one, versionlock."""

from __future__ import annotations

import re
from typing import Any, Mapping

from ansible.module_utils import nvidia_driver_sources as sources
from ansible.module_utils import onprem_llm_dnf as dnf
from ansible.module_utils import onprem_llm_record as record
from ansible.module_utils.nvidia_driver_packages import targets
from ansible.module_utils.onprem_llm_apt_get import PackageError
from ansible.module_utils.onprem_llm_command import run
from ansible.module_utils.onprem_llm_write import put

MODULE = "nvidia-driver"
LOCK_PLUGIN = "python3-dnf-plugin-versionlock"
FABRIC = ("nvidia-fabric-manager", "nvidia-fabricmanager")
HELD = re.compile(r"^(nvidia-|libnvidia-|kmod-nvidia|kernel(-core|-modules|-modules-core|-devel|-headers)?$)")
OTHERS = re.compile(r"^(nvidia-container|libnvidia-container|nvidia-docker)")
# An artifact of a stream: nvidia-driver-cuda-3:580.95.05-1.el9.x86_64
ARTIFACT = re.compile(r"\b(nvidia-driver-cuda|nvidia-fabric-?manager)-(?:\d+:)?(\d{3,}\.\d+(?:\.\d+)?)-\S+")


class Dnf:
    """The hands of a host of the RHEL family."""

    def __init__(self, facts: Mapping[str, Any], mirrors: Mapping[str, str], source: str | None) -> None:
        """A bundle brings no packages for these yet: `source` is refused by `prepare`."""
        self.facts, self.mirrors, self.source = facts, mirrors, source

    def prepare(self) -> bool:
        """Write NVIDIA's repository where the site names a mirror; return whether the file changed. PackageError."""
        if self.source:
            raise PackageError("found a host without apt, expected one that takes Debian packages from a bundle")
        text, path = sources.dnf_text(self.facts, self.mirrors), sources.DNF_REPOSITORY
        if not text or (path.exists() and path.read_text(encoding="utf-8") == text):
            return False
        record.note_absent([str(path)], False)
        put(path, text, 0o644)
        return True

    def offered(self) -> dict[str, str]:
        """Return {package, or nvidia-driver:STREAM, or package@STREAM: version}."""
        found: dict[str, str] = {}
        for stream in self._streams():
            said = run(["dnf", "--quiet", "module", "info", f"{MODULE}:{stream}"], 300)[1]
            for name, version in ARTIFACT.findall(said):
                key = f"{MODULE}:{stream}" if name == "nvidia-driver-cuda" else f"{name}@{stream}"
                found[key] = max(version, found.get(key, ""), key=_as_numbers)
        for kernel in targets(self.facts):
            if run(["dnf", "--quiet", "repoquery", f"kernel-devel-{kernel}"], 300)[1].strip():
                found[f"kernel-devel-{kernel}"] = kernel
        return found

    def _streams(self) -> list[str]:
        text = run(["dnf", "--quiet", "module", "list", MODULE], 300)[1]
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

    def install(self, names: list[str]) -> None:
        """Install packages, and note them for uninstall. PackageError."""
        record.begin_packages(dnf.installed())
        dnf.install(names)
        record.end_packages(dnf.installed())

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
