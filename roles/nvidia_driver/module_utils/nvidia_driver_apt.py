# SPDX-License-Identifier: Apache-2.0
"""Debian and Ubuntu: what their sources offer of a driver, installing it, holding it."""

from __future__ import annotations

import contextlib
import re
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any, Collection, Iterable, Iterator, Mapping

from ansible.module_utils import nvidia_driver_sources as sources
from ansible.module_utils import onprem_llm_apt as apt
from ansible.module_utils import onprem_llm_package_key as package_key
from ansible.module_utils import onprem_llm_package_source as package_source
from ansible.module_utils import onprem_llm_record as record
from ansible.module_utils.nvidia_driver_packages import DEBIAN_PARTS, targets
from ansible.module_utils.onprem_llm_apt_get import LOCK_WAIT_S, PackageError, apt_get
from ansible.module_utils.onprem_llm_command import run

PATTERN = (
    r"^(nvidia-(driver|kernel|open-kernel|dkms|smi|persistenced|fabricmanager|imex)\S*|nvlsm|libcuda1"
    r"|libnvidia-(nvvm4|nscq\S*)"
    r"|linux-modules-nvidia-\d+-server(-open)?-%(kernels)s|linux-headers-(%(kernels)s|[a-z-]*(amd64|arm64)))$"
)
INDEXES = ["apt-get", "indextargets", "--format", sources.TARGETS]
PREFIXES = ("nvidia-", "libnvidia-nscq", "nvlsm", "linux-modules-nvidia-", "linux-headers-")
# What must stay at one version with the kernel's module: NVIDIA's own packages, and the kernels that have one.
DRIVERS = re.compile(
    r"^(nvidia-|libnvidia-|libcuda|libcudadebugger|libnvcuvid|firmware-nvidia|nvlsm|xserver-xorg-video-nvidia"
    r"|linux-(modules|objects|signatures)-nvidia)"
)
KERNELS = re.compile(r"^linux-(image|headers|)-?((cloud-|rt-)?(amd64|arm64)|generic\S*|virtual\S*)$")
PREFERENCES = Path("/etc/apt/preferences")
PARTS = Path("/etc/apt/sources.list.d")
OTHERS = re.compile(r"^(nvidia-container|libnvidia-container|nvidia-docker|nvidia-settings)")


class Apt:
    """The hands of a Debian or Ubuntu host."""

    def __init__(
        self, facts: Mapping[str, Any], mirrors: Mapping[str, str], source: str | None, known: Collection[str] = ()
    ) -> None:
        """`source`: the one apt source that is asked, where a bundle brought it; `known`: NVIDIA's fingerprints."""
        names = (facts["os"], "debian_security", "cuda")
        self.facts, self.source, self.known = facts, source, known
        self.mirrors = {} if source else {name: one for name, one in mirrors.items() if name in names}
        self.options = ["--allow-change-held-packages"]

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """Ask sources as `prepare` would have them and change nothing: files and lists are in a folder of their own.

        PackageError where a key cannot be fetched.
        """
        if self.source:  # it alone is asked, with lists of its own
            apt.refresh()
            yield
            return
        text = sources.apt_text(self.facts, self.mirrors, run(INDEXES)[1])
        with tempfile.TemporaryDirectory(prefix="onprem-llm-apt-") as folder:
            parts, lists = Path(folder) / "parts", Path(folder) / "lists"
            lists.mkdir()
            written = parts / sources.APT_SOURCES.name
            auth = package_source.auth_of(written).parent
            for own, copied in ((PARTS, parts), (package_source.auth_of(sources.APT_SOURCES).parent, auth)):
                shutil.copytree(own, copied) if own.is_dir() else copied.mkdir()
            written.unlink(missing_ok=True)
            if text:
                if "cuda" in self.mirrors:
                    key = package_key.present(self._key(), Path(folder) / "cuda.asc")
                    text = text.replace(str(sources.CUDA_KEY), str(key))
                package_source.write_apt(written, text)
            with _asking(**{"Dir::Etc::sourceparts": parts, "Dir::Etc::netrcparts": auth, "Dir::State::lists": lists,
                            "APT::Sandbox::User": "root", "Dir::Cache::pkgcache": "",
                            "Dir::Cache::srcpkgcache": ""}):  # fmt: skip
                apt.refresh()
                yield

    @contextlib.contextmanager
    def pinned(self, pattern: str) -> Iterator[None]:
        """Have apt take the driver's packages in these versions (580.*), whichever others there are."""
        with tempfile.NamedTemporaryFile("w", prefix="onprem-llm-apt-", encoding="utf-8") as file:
            had = PREFERENCES.read_text(encoding="utf-8") if PREFERENCES.exists() else ""
            file.write(f"{had}\n\nPackage: /{DRIVERS.pattern}/\nPin: version {pattern}\nPin-Priority: 1001\n")
            file.flush()
            Path(file.name).chmod(0o644)
            with _asking(**{"Dir::Etc::preferences": file.name}):
                yield

    def prepare(self) -> bool:
        """Write the source that is missing and fetch package lists; return whether a file changed. PackageError."""
        written, text = sources.APT_SOURCES, ""
        if not self.source:
            text = sources.apt_text(self.facts, self.mirrors, self._targets())
        if "cuda" in self.mirrors:
            record.note_absent([str(sources.CUDA_KEY), str(sources.CUDA_KEY.parent)], False)
            package_key.present(self._key())
        if text:
            record.note_absent(package_source.apt_files(written), False)
        changed = bool(text) and package_source.write_apt(written, text)
        # Headers come from the system's own archive: asked for alone only where that is a mirror of the site.
        apt.refresh([written] if self.facts["os"] in self.mirrors else [])
        return changed

    def _key(self) -> package_key.Key:
        return sources.key(self.facts, self.mirrors["cuda"], self.known)

    def _targets(self) -> str:
        """Return which indexes the host's sources have; apt names none before it has fetched lists once."""
        known = run(INDEXES)[1]
        if "Packages\t" not in known and self.facts["os"] not in self.mirrors:
            apt.refresh()
            known = run(INDEXES)[1]
        return known

    def _known(self, *prefixes: str) -> list[str]:
        names: list[str] = []
        for prefix in prefixes:
            names += run(["apt-cache", *apt.scope, "pkgnames", prefix], 60)[1].split()
        return names

    def offered(self) -> dict[str, str]:
        """Return {package: version} of what a driver may be made of, and of what there is of one."""
        there = [name for name in self.lockable() if DRIVERS.match(name)]
        return offers(apt.policies([*asked_names(self.facts, self._known(*PREFIXES)), *there]))

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

    def install(self, names: list[str], without: Iterable[str] = ()) -> None:
        """Install packages and take others away in one go; note the new ones for uninstall. PackageError."""
        record.begin_packages(apt.installed())
        apt.install([*names, *(f"{name}-" for name in without)], *self.options)
        record.end_packages(apt.installed())

    def allow_downgrade(self) -> None:
        """Have `install` take older versions, too."""
        self.options.append("--allow-downgrades")

    def lockable(self) -> list[str]:
        """Return what is installed and is to be held."""
        names = self.installed()
        return sorted(name for name in names if holdable(name))

    def unheld(self) -> list[str]:
        """Return what is to be held, and is not."""
        return sorted(set(self.lockable()) - set(run(["apt-mark", "showhold"])[1].split()))

    def let_go(self) -> None:
        """Hold the driver's packages no longer; kernels stay held. PackageError."""
        held = run(["apt-mark", "showhold"])[1].split()
        names = [name for name in held if DRIVERS.match(name) and holdable(name)]
        if names:
            _mark("unhold", names)

    def hold(self) -> None:
        """Hold them, and note them for uninstall. PackageError."""
        names = self.unheld()
        if names:
            record.note_held(names)
            _mark("hold", names)


def _mark(word: str, names: list[str]) -> None:
    """Hold packages, or hold them no longer; unlike apt-get, apt-mark does not wait for dpkg's lock. PackageError."""
    end = time.monotonic() + LOCK_WAIT_S
    while True:
        code, text = run(["env", "LC_ALL=C", "apt-mark", word, *names], 60)
        if code == 0:
            return
        if "lock was locked by" not in text or time.monotonic() > end:
            break
        time.sleep(5)
    raise PackageError(
        f"{', '.join(names)} could not be set to {word}: apt-mark says\n{text[-400:]}\nexpected dpkg to take it. Wait "
        "for the program that holds dpkg's lock, or mend what it names, then run the same command again"
    )


@contextlib.contextmanager
def _asking(**options: Any) -> Iterator[None]:
    """Have apt's commands below take these options, too."""
    words = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    apt.scope += words
    try:
        yield
    finally:
        del apt.scope[len(apt.scope) - len(words) :]


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
