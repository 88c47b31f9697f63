"""What a bundle needs to know of rpm packages: a repository's index of them, and their licences.

createrepo_c reads them. The index depends on the packages alone: it has no times, and is not compressed, so that it
is the same everywhere.
"""

import hashlib
import os
import re
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from html import unescape
from pathlib import Path

from onprem_llm.bundle.debs import POOL, Deb
from onprem_llm.errors import InvalidError, OnpremError
from onprem_llm.spec.lock import LockedPackage

INDEX = "repodata/repomd.xml"
KINDS = ("primary", "filelists")
_TIMES = re.compile(rb'<time file="\d+"')
_PACKAGE = re.compile(
    r"<package type=\"rpm\">.*?<name>([^<]*)</name>.*?<checksum type=\"sha256\" pkgid=\"YES\">([0-9a-f]{64})</checksum>"
    r".*?<rpm:license>([^<]*)</rpm:license>",
    re.DOTALL,
)
_HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n<repomd xmlns="http://linux.duke.edu/metadata/repo">\n'


def index_of(packages: Sequence[tuple[LockedPackage, Path]]) -> dict[str, bytes]:
    """Return the files of a repository's index by their paths. InvalidError where a file is not what the lock says."""
    with tempfile.TemporaryDirectory(prefix="onprem-llm-rpms-") as name:
        folder = Path(name)
        (folder / POOL).mkdir()
        for package, path in packages:
            (folder / POOL / package.filename).symlink_to(path.absolute())
        _createrepo(folder)
        texts = {kind: _text(folder, kind) for kind in KINDS}
    _check(packages, texts["primary"].decode())
    files = {f"repodata/{kind}.xml": data for kind, data in texts.items()}
    return {**files, INDEX: _repomd(texts)}


def licences_of(index: Mapping[str, bytes]) -> dict[str, Deb]:
    """Return what packages say of their licences, by their names; the texts are inside of them."""
    found = _PACKAGE.findall(index["repodata/primary.xml"].decode())
    return {name: Deb("", f"{unescape(licence)}\n") for name, _, licence in found}


def _createrepo(folder: Path) -> None:
    argv = ["createrepo_c", "--quiet", "--no-database", "--simple-md-filenames", "--revision", "1", str(folder)]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C"})
    except FileNotFoundError:
        raise OnpremError(
            "createrepo_c is missing", hint="apt-get install createrepo-c (on the RHEL family: createrepo_c)"
        ) from None
    if done.returncode:
        raise InvalidError(
            "createrepo_c cannot read the packages", details=done.stderr[-600:], hint="make the lock again"
        )


def _text(folder: Path, kind: str) -> bytes:
    """Return an index without the hour at which files were written here."""
    import gzip

    found = sorted((folder / "repodata").glob(f"*{kind}.xml*"))
    data = found[0].read_bytes()
    return _TIMES.sub(b'<time file="0"', gzip.decompress(data) if found[0].suffix == ".gz" else data)


def _check(packages: Sequence[tuple[LockedPackage, Path]], primary: str) -> None:
    found = {sha256: name for name, sha256, _ in _PACKAGE.findall(primary)}
    for package, path in packages:
        if found.get(package.sha256) != package.name:
            raise InvalidError(
                f"{path}: found {found.get(package.sha256, 'no package')}, the lock says {package.name}",
                hint="make the lock again: onprem-llm lock",
            )


def _repomd(texts: Mapping[str, bytes]) -> bytes:
    parts = [
        f'  <data type="{kind}">\n    <checksum type="sha256">{hashlib.sha256(data).hexdigest()}</checksum>\n'
        f'    <location href="repodata/{kind}.xml"/>\n    <timestamp>1</timestamp>\n    <size>{len(data)}</size>\n'
        "  </data>\n"
        for kind, data in texts.items()
    ]
    return f"{_HEAD}  <revision>1</revision>\n{''.join(parts)}</repomd>\n".encode()
