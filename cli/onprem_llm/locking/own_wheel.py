"""onprem-llm itself as a wheel: built from a checkout, put together again from an installed package."""

import base64
import hashlib
import importlib.util
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from onprem_llm import __version__
from onprem_llm.errors import OnpremError
from onprem_llm.resources import PACKAGE, folder

NAME = "onprem_llm"
# The oldest time that a wheel can have. Any fixed one would do: the same sources make the same bytes.
EPOCH = "315532800"
FIRST = (1980, 1, 1, 0, 0, 0)


def own_wheel(target: Path) -> Path:
    """Write our own wheel into the folder `target`, and return it; the same sources always give the same bytes."""
    checkout = PACKAGE.parents[1]
    return built(checkout, target) if (checkout / "pyproject.toml").is_file() else packed(target)


def built(checkout: Path, target: Path) -> Path:
    """Build the wheel of a checkout."""
    isolation = ["--no-build-isolation"] if importlib.util.find_spec("hatchling") else []
    argv = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-cache-dir", *isolation]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": EPOCH}
    done = subprocess.run(
        [*argv, "--wheel-dir", str(target), str(checkout)], env=environment, capture_output=True, text=True, check=False
    )
    wheel = next(iter(sorted(target.glob(f"{NAME}-*.whl"))), None)
    if done.returncode != 0 or wheel is None:
        raise OnpremError(
            f"{checkout}: its wheel cannot be built", details=done.stderr[-800:], hint="mend what pip says above"
        )
    return wheel


def packed(target: Path) -> Path:
    """Put the wheel together from what is installed; nothing is compressed, so that zlib's version does not matter."""
    info = f"{NAME}-{__version__}.dist-info"
    files = dict(sorted({**_package_files(), **_info_files(info)}.items()))
    lines = [f"{name},sha256={_sum(data)},{len(data)}" for name, data in files.items()]
    files[f"{info}/RECORD"] = "".join(f"{line}\n" for line in [*lines, f"{info}/RECORD,,"]).encode()
    wheel = target / f"{NAME}-{__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_STORED) as archive:
        for name, data in files.items():
            entry = zipfile.ZipInfo(name, FIRST)
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, data)
    return wheel


def _package_files() -> dict[str, bytes]:
    found = {f"{NAME}/{path}": data for path, data in _files(PACKAGE)}
    for name in ("playbooks", "roles"):
        found |= {f"{NAME}/{name}/{path}": data for path, data in _files(folder(name))}
    return found


def _files(root: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(root.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts and path.suffix not in {".pyc", ".retry"}:
            yield path.relative_to(root).as_posix(), path.read_bytes()


def _info_files(info: str) -> dict[str, bytes]:
    try:
        known = distribution("onprem-llm")
    except PackageNotFoundError:
        raise OnpremError(
            "onprem-llm runs here without being installed, and so has no list of what it needs",
            hint="install it with pip, or leave wheels out: --skip wheels",
        ) from None
    found = {f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: onprem-llm\nRoot-Is-Purelib: true\nTag: py3-none-any\n"}
    for name in ("METADATA", "entry_points.txt", "licenses/LICENSE"):
        text = known.read_text(name)
        if text is not None:
            found[f"{info}/{name}"] = text.encode()
    return found


def _sum(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
