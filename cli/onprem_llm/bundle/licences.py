"""Licences of what a bundle carries, as far as packages, wheels and weights bring them; what is missing is named."""

import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from onprem_llm.bundle.debs import Deb

MISSING = "missing.txt"
WEIGHTS_LICENCE = re.compile(r"(licen[cs]e|notice|use_policy|copying)[^/]*", re.IGNORECASE)
_LARGEST = 4 * 1024 * 1024
_LICENCE_FILE = re.compile(r"(licen[cs]e|copying|notice|authors)[^/]*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Licences:
    """Texts by their path below `licences/`, and a line for each part whose licence could not be had."""

    texts: dict[str, bytes] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)

    def missing_text(self) -> bytes:
        """Return the list for people."""
        head = "The bundle holds no licence text of these; ask those who made them.\n\n"
        return (head + "".join(f"{line}\n" for line in sorted(set(self.missing)))).encode()


@dataclass(frozen=True, slots=True)
class WheelFacts:
    """What a wheel says of itself."""

    name: str
    version: str
    licence: str
    texts: dict[str, bytes]


def add_debs(licences: Licences, place: str, debs: Mapping[str, Deb]) -> None:
    """Add the copyright texts of a release's packages (by their names)."""
    for name, deb in debs.items():
        owner = deb
        for _ in range(3):
            owner = debs.get(owner.copyright_in, owner) if owner.copyright_in else owner
        if owner.copyright:
            licences.texts[f"{place}/{name}/copyright"] = owner.copyright.encode()
        else:
            where = f" (it refers to {deb.copyright_in})" if deb.copyright_in else ""
            licences.missing.append(f"package {place} {name}{where}")


def read_wheel(path: Path, filename: str) -> WheelFacts:
    """Read a wheel's metadata and licence files."""
    name, version = filename.split("-")[:2]
    licence, texts = "", {}
    with zipfile.ZipFile(path) as wheel:
        for info in wheel.infolist():
            parts = PurePosixPath(info.filename).parts
            if not parts or not parts[0].endswith(".dist-info") or info.file_size > _LARGEST:
                continue
            if parts[1:] == ("METADATA",):
                licence = _licence_field(wheel.read(info).decode("utf-8", "replace"))
            elif len(parts) > 1 and _LICENCE_FILE.fullmatch(parts[-1]):
                texts["-".join(parts[1:])] = wheel.read(info)
    return WheelFacts(name, version, licence, texts)


def add_wheel(licences: Licences, wheel: WheelFacts) -> None:
    """Add the licence files of a wheel."""
    for name, data in wheel.texts.items():
        licences.texts[f"python/{wheel.name}-{wheel.version}/{name}"] = data
    if not wheel.texts:
        said = f" (its metadata says {wheel.licence})" if wheel.licence else ""
        licences.missing.append(f"wheel {wheel.name} {wheel.version}{said}")


def _licence_field(metadata: str) -> str:
    head = metadata.partition("\n\n")[0]
    for pattern in (r"^License-Expression: (.+)$", r"^Classifier: License :: .*?([^:]+)$", r"^License: (.+)$"):
        found = re.search(pattern, head, re.MULTILINE)
        if found and found[1].strip() != "UNKNOWN":
            return found[1].strip()[:200]
    return ""
