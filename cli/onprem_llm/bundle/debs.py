"""What a bundle needs to know of Debian packages: their paragraphs for an index, and their licences.

dpkg-deb reads them, whatever their compression. What was read is kept in the cache: packages do not change.
"""

import json
import re
import subprocess
import tarfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from onprem_llm.errors import InvalidError, OnpremError
from onprem_llm.json_values import is_mapping
from onprem_llm.spec.lock import LockedPackage
from onprem_llm.whole_files import write_whole

INDEX = "Packages"
POOL = "pool"
_LARGEST_TEXT = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Deb:
    """A package: its control paragraph, its copyright text, or the package that has it instead."""

    control: str
    copyright: str = ""
    copyright_in: str = ""


def read_deb(package: LockedPackage, path: Path, cache: Path) -> Deb:
    """Read a package, once; InvalidError where it is not the one that the lock names."""
    kept = cache / f"{package.sha256}.json"
    deb = _kept(kept)
    if deb is None:
        deb = Deb(_control(path), *_copyright(path, package.name))
        write_whole(kept, json.dumps(asdict(deb)).encode())
    fields = dict(re.findall(r"^([A-Za-z-]+):[ \t]*(.*)$", deb.control, re.MULTILINE))
    found = tuple(fields.get(name) for name in ("Package", "Version", "Architecture"))
    expected = (package.name, package.version, package.architecture)
    if found != expected:
        raise InvalidError(
            f"{path}: found {' '.join(str(one) for one in found)}, the lock says {' '.join(expected)}",
            hint="make the lock again: onprem-llm lock",
        )
    return deb


def index_text(packages: Iterable[tuple[LockedPackage, Deb]]) -> bytes:
    """Return `Packages`, as apt reads it, sorted."""
    stanzas = [
        f"{deb.control.strip()}\nFilename: {POOL}/{package.filename}\nSize: {package.size}\nSHA256: {package.sha256}\n"
        for package, deb in sorted(packages, key=lambda one: (one[0].name, one[0].architecture, one[0].version))
    ]
    return "\n".join(stanzas).encode()


def _kept(path: Path) -> Deb | None:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not is_mapping(value) or set(value) != {"control", "copyright", "copyright_in"}:
        return None
    return Deb(*(str(value[name]) for name in ("control", "copyright", "copyright_in")))


def _dpkg_deb(*arguments: str) -> list[str]:
    return ["dpkg-deb", *arguments]


def _control(path: Path) -> str:
    try:
        ended = subprocess.run(_dpkg_deb("-f", str(path)), capture_output=True, check=False)
    except FileNotFoundError:
        raise OnpremError("dpkg-deb is missing", hint="install dpkg: bundles are made on Debian or Ubuntu") from None
    if ended.returncode:
        said = ended.stderr.decode("utf-8", "replace").strip()
        raise InvalidError(f"{path}: no whole package: {said}", hint="remove it, and make the lock again")
    # An empty line would end the paragraph.
    return "\n".join(line for line in ended.stdout.decode("utf-8", "replace").splitlines() if line.strip())


def _copyright(path: Path, name: str) -> tuple[str, str]:
    """Return the text of usr/share/doc/NAME/copyright, or the package that a link there leads to."""
    folder = f"usr/share/doc/{name}"
    process = subprocess.Popen(
        _dpkg_deb("--fsys-tarfile", str(path)), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )  # fmt: skip
    assert process.stdout is not None  # noqa: S101 - asked for with PIPE
    try:
        with tarfile.open(fileobj=process.stdout, mode="r|") as tar:
            for member in tar:
                entry = member.name.removeprefix("./")
                if entry == folder and member.issym():
                    return "", member.linkname.rstrip("/").rpartition("/")[2]
                if entry == f"{folder}/copyright":
                    if member.issym():
                        return "", ([*member.linkname.split("/"), ""])[-2]
                    stream = tar.extractfile(member)
                    data = stream.read(_LARGEST_TEXT) if stream else b""
                    return data.decode("utf-8", "replace"), ""
    except tarfile.TarError:
        pass
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    return "", ""
