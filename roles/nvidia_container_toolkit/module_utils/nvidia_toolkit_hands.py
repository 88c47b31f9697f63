# SPDX-License-Identifier: Apache-2.0
"""What a host's package sources offer of the toolkit, installing it, holding it: by apt or by dnf."""

from __future__ import annotations

import re
from typing import Any, Mapping, Union

from ansible.module_utils import nvidia_toolkit_sources as sources
from ansible.module_utils import onprem_llm_apt as apt
from ansible.module_utils import onprem_llm_dnf as dnf
from ansible.module_utils import onprem_llm_package_key as package_key
from ansible.module_utils import onprem_llm_package_source as package_source
from ansible.module_utils import onprem_llm_record as record
from ansible.module_utils.nvidia_toolkit_packages import NAMES, Choice, of_madison
from ansible.module_utils.onprem_llm_apt_get import PackageError
from ansible.module_utils.onprem_llm_command import run

MIRROR = "nvidia_container_toolkit"
LOCK_PLUGIN = "python3-dnf-plugin-versionlock"


class Apt:
    """Debian and Ubuntu."""

    def __init__(self, machine: str, options: Mapping[str, Any]) -> None:
        """Read the module's options; one source of a bundle's stands alone."""
        self.machine, self.fingerprints = machine, options["fingerprints"]
        self.mirror = None if options["source"] else options["mirrors"].get(MIRROR)

    def prepare(self) -> None:
        """Name the mirror where there is one, and fetch package lists. PackageError."""
        written = sources.APT_SOURCES
        if self.mirror:
            keys = [str(path) for path in (sources.APT_KEY, sources.APT_KEY.parent)]
            record.note_absent([*package_source.apt_files(written), *keys], False)
            package_key.present(sources.key(self.mirror, sources.APT_KEY, self.fingerprints))
            package_source.write_apt(written, sources.apt_text(self.mirror, self.machine))
        apt.refresh([written] if self.mirror else [])

    def offered(self) -> dict[str, list[str]]:
        """Return the versions of each package."""
        return of_madison(run(["apt-cache", *apt.scope, "madison", *NAMES], 60)[1])

    def install(self, choice: Choice) -> None:
        """Install, and note it for uninstall. PackageError."""
        record.begin_packages(apt.installed())
        # The packages of another version, which somebody holds, would keep these out.
        apt.install(choice.names("="), "--allow-change-held-packages", "--allow-downgrades")
        record.end_packages(apt.installed())

    def hold(self) -> None:
        """Hold them, and note what was not held before. PackageError."""
        names = sorted(set(NAMES) - set(run(["apt-mark", "showhold"])[1].split()))
        record.note_held(names)
        code, text = run(["apt-mark", "hold", *names], 60) if names else (0, "")
        if code != 0:
            raise PackageError(f"{', '.join(names)} could not be held: apt-mark says\n{text[-400:]}")


class Dnf:
    """The RHEL family."""

    def __init__(self, machine: str, options: Mapping[str, Any]) -> None:
        """Read the module's options."""
        self.fingerprints = options["fingerprints"]
        self.mirror = None if options["source"] else options["mirrors"].get(MIRROR)

    def prepare(self) -> None:
        """Name the mirror where there is one. PackageError."""
        if self.mirror:
            record.note_absent([str(sources.DNF_REPOSITORY), str(sources.DNF_KEY)], False)
            package_key.present(sources.key(self.mirror, sources.DNF_KEY, self.fingerprints))
            package_source.write_dnf(sources.DNF_REPOSITORY, sources.dnf_text(self.mirror))

    def offered(self) -> dict[str, list[str]]:
        """Return the versions of each package."""
        form = "%{name} %{version}-%{release}\n"
        # Without --assumeyes dnf asks whether it shall believe the repository's key, and leaves the repository out.
        ask = ["dnf", "--assumeyes", "--quiet", *dnf.scope, "repoquery", "--showduplicates", "--queryformat", form]
        said = run([*ask, *NAMES], 300)[1]
        found: dict[str, list[str]] = {}
        for words in map(str.split, said.splitlines()):
            if len(words) == 2 and words[0] in NAMES:
                found.setdefault(words[0], []).append(words[1])
        return found

    def install(self, choice: Choice) -> None:
        """Install, and note it for uninstall. PackageError."""
        # Those of another version, which are locked, would keep these out.
        locked = sorted(set(NAMES) & self._locked())
        if locked:
            run(["dnf", "--quiet", "versionlock", "delete", *locked], 300)
        record.begin_packages(dnf.installed())
        try:
            dnf.install(choice.names("-"))
        except PackageError:
            if locked:
                run(["dnf", "--quiet", "versionlock", "add", *locked], 300)
            raise
        record.end_packages(dnf.installed())

    def hold(self) -> None:
        """Lock their version, and note what was not locked before. PackageError."""
        if dnf.missing([LOCK_PLUGIN]):
            record.begin_packages(dnf.installed())
            dnf.install([LOCK_PLUGIN])
            record.end_packages(dnf.installed())
        names = sorted(set(NAMES) - self._locked())
        record.note_held(names)
        code, text = run(["dnf", "--quiet", "versionlock", "add", *names], 300) if names else (0, "")
        if code != 0:
            raise PackageError(f"{', '.join(names)} could not be held: dnf versionlock says\n{text[-400:]}")

    def _locked(self) -> set[str]:
        return locked_names(run(["dnf", "--quiet", "versionlock", "list"], 120)[1])


def locked_names(text: str) -> set[str]:
    """Return the packages that `dnf versionlock list` names, as name-epoch:version-release.*."""
    return {re.sub(r"-(?:\d+:)?[^-]+-[^-]+$", "", line.strip()) for line in text.splitlines()}


Hands = Union[Apt, Dnf]
