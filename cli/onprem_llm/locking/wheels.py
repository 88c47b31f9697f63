"""onprem-llm and everything that it needs, as wheels for the Pythons that a control host may have."""

import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from email.parser import HeaderParser
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename

from onprem_llm.errors import InvalidError
from onprem_llm.locking.blobs import Blobs, hint_for
from onprem_llm.locking.own_wheel import own_wheel
from onprem_llm.spec.lock import LockedWheel, LockedWheels, Platform

# What the wheels may be built for: older C libraries run on newer ones.
TAGS = ("manylinux_2_28", "manylinux_2_17", "manylinux2014")
MACHINES = {"linux/amd64": "x86_64", "linux/arm64": "aarch64"}
# Debian's python3 cannot install without it where python3-venv is missing.
ALSO = ("pip",)
ROUNDS = 4


@dataclass(frozen=True, slots=True)
class Wheels:
    """Wheels from this machine's package index, as its pip is configured."""

    platform: Platform
    blobs: Blobs = field(default_factory=Blobs)

    def resolve(self, pythons: Sequence[str]) -> tuple[LockedWheels, ...]:
        """Keep the wheels for each Python, and say which they are."""
        if not pythons:
            return ()
        with tempfile.TemporaryDirectory(dir=self.blobs.folder, prefix=".own-") as folder:
            own = own_wheel(Path(folder))
            return tuple(self._for(python, own) for python in sorted(set(pythons), key=_number))

    def fetch(self, wheels: LockedWheels) -> None:
        """Bring the wheels of a lock by name and version; ours is built again."""
        names = [parse_wheel_filename(one.filename)[:2] for one in wheels.files]
        with tempfile.TemporaryDirectory(dir=self.blobs.folder, prefix=".wheels-") as name:
            folder = Path(name)
            own = own_wheel(folder)
            exact = [f"{name}=={version}" for name, version in names if name != canonicalize_name("onprem_llm")]
            self._download(wheels.python, ["--no-deps", *exact], folder)
            for file in sorted({own, *folder.glob("*.whl")}):
                self.blobs.take(file)

    def _for(self, python: str, own: Path) -> LockedWheels:
        with tempfile.TemporaryDirectory(dir=self.blobs.folder, prefix=".wheels-") as name:
            folder = Path(name)
            wanted = [str(own), *ALSO]
            for _ in range(ROUNDS):
                self._download(python, wanted, folder)
                # pip asks the markers of requirements about the Python that it runs on.
                wanted = _absent(folder, python, self.platform)
                if not wanted:
                    break
            else:
                raise InvalidError(
                    f"wheels for Python {python}: {', '.join(wanted)} cannot be had beside the others",
                    hint="choose another --python",
                )
            files = [self._take(file) for file in sorted(folder.glob("*.whl"))]
        return LockedWheels(python=python, platform=self.platform, files=tuple(files))

    def _take(self, file: Path) -> LockedWheel:
        filename = file.name
        sha256, size = self.blobs.take(file)
        return LockedWheel(filename=filename, size=size, sha256=sha256)

    def _download(self, python: str, wanted: Sequence[str], folder: Path) -> None:
        machine = MACHINES[self.platform]
        argv = [
            sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input",
            "--only-binary", ":all:", "--implementation", "cp", "--python-version", python, "--dest", str(folder),
        ]  # fmt: skip
        argv += [word for tag in TAGS for word in ("--platform", f"{tag}_{machine}")]
        done = subprocess.run([*argv, *wanted], env=_environment(), capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
        raise InvalidError(
            f"wheels for Python {python} ({self.platform}) cannot be had",
            details="\n".join(f"  {line}" for line in lines[-6:]),
            hint=hint_for(
                done.stderr, "see that pip on this machine reaches a package index, or choose another --python"
            ),
        )


def _environment() -> Mapping[str, str]:
    # What a person requires of their own pip runs (hashes, constraints for other things) is not for ours.
    return {key: value for key, value in os.environ.items() if key not in {"PIP_REQUIRE_HASHES", "PIP_NO_DEPS"}}


def _absent(folder: Path, python: str, platform: Platform) -> list[str]:
    """Return the requirements of the wheels in a folder which that Python has, and no wheel there meets."""
    there = {parse_wheel_filename(file.name)[0] for file in folder.glob("*.whl")}
    environment = {
        "python_version": python, "python_full_version": f"{python}.0", "platform_machine": MACHINES[platform],
        "sys_platform": "linux", "platform_system": "Linux", "os_name": "posix", "extra": "",
        "implementation_name": "cpython", "platform_python_implementation": "CPython",
    }  # fmt: skip
    needed: dict[str, str] = {}
    for file in folder.glob("*.whl"):
        for requirement in _requirements(file):
            met = requirement.marker is None or requirement.marker.evaluate(environment)
            if met and canonicalize_name(requirement.name) not in there:
                needed[canonicalize_name(requirement.name)] = f"{requirement.name}{requirement.specifier}"
    return [needed[name] for name in sorted(needed)]


def _requirements(wheel: Path) -> list[Requirement]:
    try:
        with zipfile.ZipFile(wheel) as archive:
            name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
            headers = HeaderParser().parsestr(archive.read(name).decode("utf-8", "replace"))
        return [Requirement(text) for text in headers.get_all("Requires-Dist") or []]
    except (OSError, zipfile.BadZipFile, StopIteration, InvalidRequirement) as error:
        raise InvalidError(
            f"{wheel.name}: no whole wheel: {error}", hint="clear pip's cache: pip cache purge"
        ) from None


def _number(python: str) -> tuple[int, ...]:
    return tuple(int(part) for part in python.split("."))
