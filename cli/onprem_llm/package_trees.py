"""Package repositories on the control host, one for each release of an OS: what bootstrap sends to which host."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from onprem_llm.errors import InvalidError
from onprem_llm.package_signing import PUBLIC, REPOMD, SIGNATURE, SIGNED
from onprem_llm.spec.facts import ARCHITECTURES
from onprem_llm.weights.names import name_problems
from onprem_llm.weights.sums import sums_of

INDEX = "Packages"
PRIMARY, FILELISTS = "repodata/primary.xml", "repodata/filelists.xml"
SOURCES_FILE = "/etc/apt/sources.list.d/onprem-llm-packages.sources"
REPOSITORY_FILE = "/etc/yum.repos.d/onprem-llm-packages.repo"
_RPM = re.compile(
    r'<package type="rpm">.*?<checksum type="sha256" pkgid="YES">([0-9a-f]{64})</checksum>.*?'
    r'<size package="(\d+)".*?<location href="([^"]+)"',
    re.DOTALL,
)
_FIELD = re.compile(r"^(Filename|Size|SHA256):[ \t]*(\S+)[ \t]*$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class PackageTree:
    """A repository for one release: its name (debian-13-amd64), folder and files (path, size, sha256)."""

    name: str
    source: Path
    files: tuple[Mapping[str, object], ...]

    def order(self, data_root: str) -> dict[str, object]:
        """Return it as bootstrap.yml's order has it.

        On the host its folder has no name of the release: after an upgrade the next one takes the former one's place.
        """
        files = [dict(one) for one in self.files]
        return {
            "path": f"{data_root}/packages",
            "source": str(self.source),
            "files": files,
            "sources_file": REPOSITORY_FILE if (self.source / REPOMD).is_file() else SOURCES_FILE,
        }


class PackageTrees:
    """All repositories below the folder that the site names; each is read once, when a host needs it."""

    def __init__(self, folder: Path) -> None:
        """InvalidError where there is no such folder."""
        if not folder.is_dir():
            raise InvalidError(
                f"onprem_llm_site.packages_dir: {folder} is not a folder",
                hint="load a bundle there (onprem-llm bundle load), or leave the setting out",
            )
        self.folder = folder
        self._read: dict[str, PackageTree] = {}

    def for_host(self, os_id: str, release: str, machine: str) -> PackageTree:
        """Return the repository for a host; InvalidError names what is there where none is for it."""
        name = f"{os_id}-{release}-{ARCHITECTURES.get(machine, machine)}"
        if name not in self._read:
            here = [path for one in (INDEX, REPOMD) for path in self.folder.glob(f"*/{one}")]
            known = sorted(path.relative_to(self.folder).parts[0] for path in here)
            if not re.fullmatch(r"[a-z0-9][a-z0-9.+_-]*", name) or name not in known:
                raise InvalidError(
                    f"no packages for it: found {', '.join(known) or 'none'} in {self.folder}, expected {name}",
                    hint="collect this host's facts, and make and load a bundle that has its release",
                )
            self._read[name] = read_tree(self.folder / name)
        return self._read[name]


def read_tree(folder: Path) -> PackageTree:
    """Read a repository's index; InvalidError where it is not signed, or its files are not there."""
    by_dnf = (folder / REPOMD).is_file()
    index = REPOMD if by_dnf else INDEX
    for name in (SIGNATURE if by_dnf else SIGNED, PUBLIC):
        if not (folder / name).is_file():
            raise InvalidError(
                f"{folder}: not signed: found no {name}, expected it beside {index}", hint="load the bundle again"
            )
    own = (REPOMD, SIGNATURE, PUBLIC, PRIMARY, FILELISTS) if by_dnf else (INDEX, SIGNED, PUBLIC)
    files = [*_own(folder, own), *(_rpms(folder) if by_dnf else _packages(folder))]
    problems = name_problems([str(one["path"]) for one in files])
    if problems:
        raise InvalidError(f"{folder / index}: {'; '.join(problems[:3])}", hint="load the bundle again")
    return PackageTree(folder.name, folder, tuple(sorted(files, key=lambda one: str(one["path"]))))


def _own(folder: Path, names: Sequence[str]) -> list[dict[str, object]]:
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise InvalidError(f"{folder / missing[0]}: not there, expected it in a repository", hint="load it again")
    sums = {name: sums_of(folder / name) for name in names}
    return [{"path": name, "size": one.size, "sha256": one.sha256} for name, one in sums.items()]


def _packages(folder: Path) -> list[dict[str, object]]:
    text = (folder / INDEX).read_text(encoding="utf-8", errors="replace")
    found: list[dict[str, object]] = []
    for paragraph in re.split(r"\n{2,}", text.strip()):
        fields = dict(_FIELD.findall(paragraph))
        if set(fields) != {"Filename", "Size", "SHA256"} or not fields["Size"].isdigit():
            raise InvalidError(
                f"{folder / INDEX}: found a package without Filename, Size and SHA256: {paragraph[:60]!r}",
                hint="load the bundle again",
            )
        found.append(
            _there(folder, INDEX, fields["Filename"].removeprefix("./"), int(fields["Size"]), fields["SHA256"])
        )
    return found


def _rpms(folder: Path) -> list[dict[str, object]]:
    text = (folder / PRIMARY).read_text(encoding="utf-8", errors="replace")
    return [_there(folder, PRIMARY, path, int(size), sha256) for sha256, size, path in _RPM.findall(text)]


def _there(folder: Path, index: str, name: str, size: int, sha256: str) -> dict[str, object]:
    path = folder / name
    if not path.is_file() or path.stat().st_size != size:
        raise InvalidError(f"{path}: found no file of {size} bytes, which {index} names", hint="load the bundle again")
    return {"path": name, "size": size, "sha256": sha256}
