"""Backups of what only the gateway host has: made there, fetched over ssh, checked, put back."""

import hashlib
import json
import os
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from onprem_llm import __version__
from onprem_llm.connection import Connection
from onprem_llm.errors import InvalidError, OnpremError
from onprem_llm.json_values import is_mapping
from onprem_llm.output import Progress, note
from onprem_llm.runner import raise_for_failures, run
from onprem_llm.seam import run_folder, write_orders
from onprem_llm.spec.site import Site
from onprem_llm.ssh import Route, routes, stream_route

VERSION: Final = 1
MANIFEST: Final = "manifest.json"
PARTS: Final = ("book", "secrets", "ui")
NAME: Final = "onprem-llm.tar.gz"  # on the host
BLOCK: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Backup:
    """A backup on this machine, with what its manifest says; `files` counts them by part."""

    path: Path
    host: str
    made: str
    version: str
    files: Mapping[str, int]
    size: int
    sha256: str

    def as_json(self) -> dict[str, object]:
        """Return it for --json."""
        return {"file": str(self.path), "host": self.host, "made": self.made, "version": self.version,
                "files": dict(self.files), "size": self.size, "sha256": self.sha256}  # fmt: skip


def make(
    host: str, site: Site, target: Path, connection: Connection, progress: Progress, parts: Sequence[str] = PARTS
) -> Backup:
    """Make a backup on the host and bring it here, into a new file that only we can read."""
    about = {"host": host, "onprem_llm": __version__}
    with run_folder() as folder:
        order = {"name": NAME, "parts": list(parts), "about": about}
        path = write_orders(folder, 0, {host: order})
        result = run("backup.yml", connection, hosts=[host], variables={"onprem_llm_order_file": str(path)},
                     progress=progress, title="Saving what only the gateway host has")  # fmt: skip
    raise_for_failures(result, doing="saving the gateway host")
    found = result.returned.get(host, {}).get("backup")
    if not is_mapping(found):
        raise OnpremError(f"{host}: it did not say where the backup is", hint="run the command again")
    there = f"{site.data_root}/backup"
    way = routes(connection, [host])[host]
    try:
        _fetch(stream_route(way, ["cat", f"{there}/{NAME}"]), target, found, progress, host)
    finally:
        _remove(way, there)
    return read(target)


def _fetch(chunks: Iterable[bytes], target: Path, sent: Mapping[str, Any], progress: Progress, host: str) -> None:
    """Write a stream into a file that is never seen half-written or damaged, nor by others."""
    partial = target.with_name(f"{target.name}.partial")
    partial.unlink(missing_ok=True)
    done, came = 0, hashlib.sha256()
    try:
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as handle:
            for data in chunks:
                handle.write(data)
                came.update(data)
                done += len(data)
                progress.bytes(host, done, sent["size"])
            handle.flush()
            os.fsync(handle.fileno())
        if came.hexdigest() != sent["sha256"]:
            raise OnpremError(
                f"{target}: what came from {host} is not what was sent: found {done} bytes of sha256 "
                f"{came.hexdigest()}, expected {sent['size']} of {sent['sha256']}",
                hint="run the command again",
            )
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def _remove(way: Route, there: str) -> None:
    """Remove the host's own copy. Where that fails the backup is whole all the same, and why it is not is said."""
    try:
        list(stream_route(way, ["rm", "-rf", there]))
    except OnpremError as error:
        note(f"{way.host}: {there}, which holds keys, could not be removed: {error.message}")


def read(path: Path) -> Backup:
    """Check a backup whole, every file against the manifest; InvalidError says what is wrong with it."""
    try:
        with tarfile.open(path, "r:gz") as archive:
            sums, manifest = _sums(archive)
    except (OSError, EOFError, tarfile.TarError, ValueError) as error:
        raise InvalidError(f"{path}: this is no backup that can be read: {error}", hint="name a file that "
                           "`onprem-llm backup` has written, whole") from None  # fmt: skip
    if manifest is None or manifest.get("version") != VERSION:
        found = "no manifest" if manifest is None else f"version {manifest.get('version')!r}"
        raise InvalidError(f"{path}: found {found}, expected a backup of version {VERSION}",
                           hint="name a file that `onprem-llm backup` has written, whole")  # fmt: skip
    files = manifest.get("files")
    listed = files if is_mapping(files) else {}
    known = {name: about.get("sha256") if is_mapping(about) else None for name, about in listed.items()}
    wrong = sorted({name for name in {*sums, *known} if name not in known or sums.get(name) != known[name]})
    if wrong:
        raise InvalidError(f"{path}: {len(wrong)} files are not as its manifest says, {wrong[0]} first",
                           hint="it was damaged or changed; take another backup")  # fmt: skip
    count = {part: sum(name.startswith(f"{part}/") for name in known) for part in PARTS}
    host, made, version = (str(manifest.get(key) or "unknown") for key in ("host", "made", "onprem_llm"))
    return Backup(path, host, made, version, count, path.stat().st_size, _sum_of(path))


def _sums(archive: tarfile.TarFile) -> tuple[dict[str, str | None], dict[str, Any] | None]:
    """Return the sums of all files (None for links) and the manifest."""
    sums: dict[str, str | None] = {}
    manifest = None
    for info in archive:
        source = archive.extractfile(info) if info.isreg() else None
        if info.name == MANIFEST and source:
            manifest = json.loads(source.read())
            continue
        sums[info.name] = None
        if source:
            found = hashlib.sha256()
            while data := source.read(BLOCK):
                found.update(data)
            sums[info.name] = found.hexdigest()
    return sums, manifest if isinstance(manifest, dict) else None


def _sum_of(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def put_back(backup: Backup, host: str, mark: str, connection: Connection, progress: Progress) -> Mapping[str, Any]:
    """Put a backup onto a host, which is then the gateway host (`gateway`) or the other one (`second`).

    Return what became of client keys there (roles/gateway/library/gateway_keys.py, compared).
    """
    with run_folder() as folder:
        (folder / NAME).symlink_to(backup.path.resolve())
        order = {"name": NAME, "source": str(folder), "size": backup.size, "sha256": backup.sha256, "mark": mark}
        path = write_orders(folder, 0, {host: order})
        result = run("backup_restore.yml", connection, hosts=[host], variables={"onprem_llm_order_file": str(path)},
                     progress=progress, title=f"Putting it onto {host}")  # fmt: skip
    raise_for_failures(result, doing="putting the backup back")
    found = result.returned.get(host, {}).get("keys_restored")
    return found if is_mapping(found) else {}


def set_mark(host: str, mark: str, connection: Connection, progress: Progress, *, forget: bool = False) -> None:
    """Say what a host is: `gateway`, `second`, or nothing; `forget`: it loses the book, the keys and the page."""
    with run_folder() as folder:
        path = write_orders(folder, 0, {host: {"mark": mark, "forget": forget}})
        result = run("gateway_mark.yml", connection, hosts=[host], variables={"onprem_llm_order_file": str(path)},
                     progress=progress, title=f"{host} is {mark or 'no gateway host any more'}")  # fmt: skip
    raise_for_failures(result, doing="recording the gateway host")
