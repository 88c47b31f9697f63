# SPDX-License-Identifier: Apache-2.0
"""Debian and Ubuntu: what their sources offer of a driver, installing it, holding it."""

from __future__ import annotations

import re
from typing import Any, Iterable, Mapping

from ansible.module_utils import nvidia_driver_sources as sources
from ansible.module_utils import onprem_llm_apt as apt
from ansible.module_utils import onprem_llm_record as record
from ansible.module_utils.nvidia_driver_packages import DEBIAN_PARTS, targets
from ansible.module_utils.onprem_llm_apt_get import PackageError, apt_get
from ansible.module_utils.onprem_llm_command import run
from ansible.module_utils.onprem_llm_write import put

PATTERN = (
    r"^(nvidia-(driver|kernel|open-kernel|dkms|smi|persistenced|fabricmanager)\S*|nvlsm|libcuda1|libnvidia-nvvm4"
    r"|linux-modules-nvidia-\d+-server(-open)?-%(kernels)s|linux-headers-(%(kernels)s|[a-z-]*(amd64|arm64)))$"
)
PREFIXES = ("nvidia-", "nvlsm", "linux-modules-nvidia-", "linux-headers-")
# What must stay at one version with the kernel's module: NVIDIA's own packages, and the kernels that have one.
DRIVERS = re.compile(
    r"^(nvidia-|libnvidia-|libcuda|libcudadebugger|libnvcuvid|firmware-nvidia|nvlsm|xserver-xorg-video-nvidia"
    r"|linux-(modules|objects|signatures)-nvidia)"
)
KERNELS = re.compile(r"^linux-(image|headers|)-?((cloud-|rt-)?(amd64|arm64)|generic\S*|virtual\S*)$")
OTHERS = re.compile(r"^(nvidia-container|libnvidia-container|nvidia-docker|nvidia-settings)")


class Apt:
    """The hands of a Debian or Ubuntu host."""

    def __init__(self, facts: Mapping[str, Any], mirrors: Mapping[str, str], source: str | None) -> None:
        """`source`: the one apt source that is asked, where a bundle brought it."""
        names = (facts["os"], "debian_security", "cuda")
        self.facts, self.source = facts, source
        self.mirrors = {} if source else {name: one for name, one in mirrors.items() if name in names}

    def prepare(self) -> bool:
        """Write the source that is missing and fetch package lists; return whether a file changed. PackageError."""
        written, text = sources.APT_SOURCES, ""
        if not self.source:
            text = sources.apt_text(self.facts, self.mirrors, self._targets())
        changed = bool(text) and not (written.exists() and written.read_text(encoding="utf-8") == text)
        if changed:
            if "cuda" in self.mirrors:
                record.note_absent([str(sources.CUDA_KEY), str(sources.CUDA_KEY.parent)], False)
                sources.fetch_key(self.facts, self.mirrors["cuda"])
            record.note_absent([str(written)], False)
            put(written, text, 0o644)
        # Headers come from the system's own archive: asked for alone only where that is a mirror of the site.
        apt.refresh([written] if self.facts["os"] in self.mirrors else [])
        return changed

    def _targets(self) -> str:
        """Return which indexes the host's sources have; apt names none before it has fetched lists once."""
        ask = ["apt-get", "indextargets", "--format", sources.TARGETS]
        known = run(ask)[1]
        if "Packages\t" not in known and self.facts["os"] not in self.mirrors:
            apt.refresh()
            known = run(ask)[1]
        return known

    def _known(self, *prefixes: str) -> list[str]:
        names: list[str] = []
        for prefix in prefixes:
            names += run(["apt-cache", *apt.scope, "pkgnames", prefix], 60)[1].split()
        return names

    def offered(self) -> dict[str, str]:
        """Return {package: version} of what a driver may be made of."""
        return offers(apt.policies(asked_names(self.facts, self._known(*PREFIXES))))

    def installed(self) -> dict[str, str]:
        """Return {package: version} of what is installed to the end."""
        form = "${db:Status-Abbrev}\t${Package}\t${Version}\\n"
        rows = [line.split("\t") for line in run(["dpkg-query", "--show", "--showformat", form], 60)[1].splitlines()]
        return {row[1]: row[2] for row in rows if len(row) == 3 and row[0].strip() in ("ii", "hi")}

    def there(self) -> list[str]:
        """Return what is installed, also where its script failed or was cut off."""
        form = "${db:Status-Abbrev}\t${Package}\\n"
        rows = [line.split("\t") for line in run(["dpkg-query", "--show", "--showformat", form], 60)[1].splitlines()]
        return [row[1] for row in rows if len(row) == 2 and row[0][1:2] not in ("n", "c")]

    def remove(self, names: list[str]) -> None:
        """Remove packages. PackageError."""
        apt_get(["remove", "--yes", "--allow-change-held-packages", *names], f"{', '.join(names)} could not be removed")

    def stream(self) -> str | None:
        """Return nothing: apt has no streams."""
        return None

    def set_stream(self, name: str) -> None:
        """Refuse: apt has no streams."""
        raise PackageError(f"found the stream {name}, expected packages alone")

    def install(self, names: list[str]) -> None:
        """Install packages, and note them for uninstall. PackageError."""
        record.begin_packages(apt.installed())
        apt.install(names, "--allow-change-held-packages")
        record.end_packages(apt.installed())

    def lockable(self) -> list[str]:
        """Return what is installed and is to be held."""
        names = self.installed()
        return sorted(name for name in names if holdable(name))

    def unheld(self) -> list[str]:
        """Return what is to be held, and is not."""
        return sorted(set(self.lockable()) - set(run(["apt-mark", "showhold"])[1].split()))

    def hold(self) -> None:
        """Hold them, and note them for uninstall. PackageError."""
        names = self.unheld()
        if names:
            record.note_held(names)
            code, text = run(["apt-mark", "hold", *names], 60)
            if code != 0:
                raise PackageError(f"{', '.join(names)} could not be held: apt-mark says\n{text[-400:]}")


def asked_names(facts: Mapping[str, Any], known: Iterable[str]) -> list[str]:
    """Return of what apt knows by PREFIXES the packages that a driver may be made of, for the host's kernels."""
    kernels = "|".join(re.escape(kernel) for kernel in targets(facts))
    pattern = re.compile(PATTERN % {"kernels": f"({kernels})"})
    return sorted({*DEBIAN_PARTS, *filter(pattern.match, known)})


def offers(known: Mapping[str, apt.Policy]) -> dict[str, str]:
    """Return {package: version} of those that can be installed."""
    return {name: policy.candidate for name, policy in known.items() if policy.candidate}


def holdable(name: str) -> bool:
    """Say whether a package is held at its version: a driver, and the kernels whose modules are built for it."""
    return bool(KERNELS.match(name) or (DRIVERS.match(name) and not OTHERS.match(name)))
