# SPDX-License-Identifier: Apache-2.0
"""Which packages make up the NVIDIA Container Toolkit, at which version. Pure; `lock` chooses with it too."""

from __future__ import annotations

import re
from typing import Mapping, NamedTuple, Sequence

from ansible.module_utils.onprem_llm_command import Version, dotted, numbers

# As NVIDIA's repository has them, for apt and dnf alike (its control files and specs; all four of one version).
NAMES = (
    "nvidia-container-toolkit",
    "nvidia-container-toolkit-base",
    "libnvidia-container-tools",
    "libnvidia-container1",
)
RHEL_FAMILY = ("rhel", "rocky", "almalinux", "centos", "ol")
# The first whose specifications name GPUs by index and by UUID at once (its CHANGELOG, v1.15.0-rc.4).
LEAST: Version = (1, 15)
# The first in which a hook is not run from within the image (CVE-2025-23266).
SAFE: Version = (1, 17, 8)
MADISON = re.compile(r"^\s*(\S+)\s*\|\s*(\S+)\s*\|\s.*Packages$")


class ToolkitError(Exception):
    """`found A, expected B. What to do.`."""


class Choice(NamedTuple):
    """A version, upstream's, and the packages with the version that their source has."""

    version: str
    packages: list[tuple[str, str]]

    def names(self, joint: str) -> list[str]:
        """Return them as a package manager is asked for them: `=` for apt, `-` for dnf."""
        return [f"{name}{joint}{version}" for name, version in self.packages]


def upstream(version: str) -> str:
    """Return 1.18.2 of 1.18.2-1 and of 1:1.18.2-1."""
    return version.rpartition(":")[2].partition("-")[0]


def chosen(offered: Mapping[str, Sequence[str]], wished: str | None) -> Choice:
    """Choose the newest version, or the wished one, that all packages have. ToolkitError where there is none.

    `offered`: the versions of each package in the host's sources, in any order.
    """
    shared = set.intersection(*({upstream(one) for one in offered.get(name, ())} for name in NAMES))
    released = sorted((one for one in shared if "~" not in one and numbers(one) >= LEAST), key=numbers)
    fitting = [one for one in released if wished in (None, one)]
    if not fitting:
        wanted = f"version {wished}" if wished else f"version {dotted(LEAST)} or newer"
        raise ToolkitError(
            f"found {_said(offered)} in the host's package sources, expected the NVIDIA Container Toolkit ({wanted} of "
            f"{', '.join(NAMES)}). Name a mirror of NVIDIA's repository for it "
            "(onprem_llm_site.package_mirrors.nvidia_container_toolkit), configure that repository on the host, or "
            "load a bundle that has it; then run bootstrap again. "
            "onprem_llm_site.nvidia_container_toolkit.install: false leaves it to people"
        )
    version = fitting[-1]
    packages = [(name, next(one for one in offered[name] if upstream(one) == version)) for name in NAMES]
    return Choice(version, packages)


def of_madison(text: str) -> dict[str, list[str]]:
    """Read what `apt-cache madison` says: {package: versions}, the newest first."""
    found: dict[str, list[str]] = {}
    for match in filter(None, map(MADISON.match, text.splitlines())):
        known = found.setdefault(match.group(1), [])
        if match.group(2) not in known:
            known.append(match.group(2))
    return found


def _said(offered: Mapping[str, Sequence[str]]) -> str:
    parts = [f"{name} {', '.join(offered[name][:3])}" for name in NAMES if offered.get(name)]
    return "; ".join(parts) or "no nvidia-container-toolkit"
