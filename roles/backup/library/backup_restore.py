#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Put a backup's book, keys, authority and page back on a gateway host."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.onprem_llm_backup import (
    BLOCK,
    GIVEN_KEYS,
    KEYS,
    MANIFEST,
    BackupError,
    check_link,
    check_member,
    folders,
    manifest_of,
    mark,
    names_of,
)

DOCUMENTATION = r"""
module: backup_restore
short_description: Put a backup back
description:
  - All of the archive is unpacked beside its places and compared with its manifest before anything is replaced. Then
    each file takes its place in one piece, and files of the same parts that the backup has not are removed; what is the
    host's own (what bootstrap noted, the key of its engines) stays.
  - The record of client keys comes to lie beside the host's own, as C(keys/given.json), for C(merge) of
    C(gateway_keys).
  - A page that runs is stopped first; the next deployment starts it. Where the authority becomes another one,
    certificates that the old one signed for this host are removed, so that they are made anew.
options:
  path:
    description: The archive on the host.
    type: path
    required: true
  book:
    description: Folder of the book.
    type: path
    default: /var/lib/onprem-llm
  data_root:
    description: Folder of the projects and of the engines' keys.
    type: path
    default: /srv/onprem-llm
  mark:
    description: What this host is from then on.
    type: str
    choices: [gateway, second]
    required: true
author: the onprem-llm authors
"""

EXAMPLES = r"""
- name: Put it back
  backup_restore:
    path: /srv/onprem-llm/backup/given.tar.gz
    mark: gateway
"""

RETURN = r"""
onprem_llm:
  description: C(restored), the number of files by part.
  type: dict
  returned: success
"""

PAGE = "open-webui"


def unpack(archive, wanted, files, staging):
    """Write every member of one part into `staging`; BackupError where one is not what the manifest says."""
    left, links = {name: about for name, about in files.items() if name.startswith(f"{wanted}/")}, []
    for info in archive:
        if info.name == MANIFEST:
            continue
        part, name = check_member(info.name)
        if part != wanted:
            continue
        known = left.pop(info.name, None)
        if known is None:
            raise BackupError(f"{info.name!r:.120} is not in its manifest")
        target = staging / info.name
        if info.issym() and known.get("link") == info.linkname:
            check_link(name, info.linkname)
            links.append((target, info.linkname))
        elif info.isreg():
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write(archive.extractfile(info), info, known, target)
        else:
            raise BackupError(f"{info.name!r:.120} is neither a file nor the link of its manifest")
    if left:
        raise BackupError(f"{len(left)} files of its manifest are missing, {sorted(left)[0]!r:.120} first")
    make_links(links, staging / wanted)


def make_links(links, folder):
    """Make the links once all files lie there, so that nothing is written through one; none may lead out together."""
    for target, leads_to in links:
        if any(one.is_symlink() for one in target.parents if folder in one.parents):
            raise BackupError(f"{target.name!r:.120} lies behind a link")
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        target.symlink_to(leads_to)
    root = os.path.realpath(str(folder))
    for target, leads_to in links:
        if not (os.path.realpath(str(target)) + os.sep).startswith(root + os.sep):
            raise BackupError(
                f"{target.name!r:.120} is a link to {leads_to!r:.120}, by way of others out of its folder"
            )


def write(source, info, known, target):
    """Write one file with its owner and rights, and compare its sum."""
    found = hashlib.sha256()
    handle = os.fdopen(os.open(str(target), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
    with handle:
        for block in iter(lambda: source.read(BLOCK), b""):
            found.update(block)
            handle.write(block)
    if found.hexdigest() != known.get("sha256"):
        raise BackupError(f"{info.name!r:.120} is damaged: its sum is not that of the manifest")
    os.chown(str(target), info.uid, info.gid)
    target.chmod(info.mode & 0o7777)
    os.utime(str(target), (info.mtime, info.mtime))


def replace(part, source, target):
    """Let the files of a part take their places; remove those that the backup has not. Return how many there are."""
    wanted = names_of(part, source)
    for name in sorted(set(names_of(part, target)) - set(wanted)):
        if part != "book" or not KEYS.fullmatch(name):
            (target / name).unlink()
    for name in wanted:
        place = target / name
        place.parent.mkdir(mode=0o755 if part == "ui" else 0o700, parents=True, exist_ok=True)
        (source / name).replace(place)
    for folder in sorted((one for one in target.rglob("*") if one.is_dir() and not one.is_symlink()), reverse=True):
        if part == "book" and not any(folder.iterdir()):
            folder.rmdir()
    return len(wanted)


def set_keys_aside(folder):
    """Let the backup's record of client keys be found as such; the maps are made of the record."""
    record = folder / "keys" / "keys.json"
    if record.exists():
        record.replace(folder / GIVEN_KEYS)
    for path in folder.glob("keys/*.map"):
        path.unlink()


def stop_page():
    """Stop the page's containers, so that nobody writes into its databases."""
    label = f"label=com.docker.compose.project={PAGE}"
    listed = subprocess.run(["docker", "ps", "-q", "--filter", label], stdout=subprocess.PIPE, check=True, timeout=60)
    names = listed.stdout.decode().split()
    if names:
        subprocess.run(["docker", "stop", *names], stdout=subprocess.DEVNULL, check=True, timeout=180)


def forget_certificates(data_root):
    """Remove what another authority has signed for this host."""
    gone = ("secrets/engine.crt", "secrets/engine.key", "gateway/secrets/gateway.pem", "gateway/secrets/ca.crt")
    for name in gone:
        path = Path(data_root, name)
        if path.exists():
            path.unlink()


def text_of(path):
    """Return the bytes of a file, or None."""
    try:
        return path.read_bytes()
    except OSError:
        return None


def restore(params):
    """Put everything back; return the number of files by part."""
    path, where = Path(params["path"]), folders(params["book"], params["data_root"])
    # Beside each place, so that a file moves in one piece whichever disk it is on.
    staging = {part: folder.with_name(f".{folder.name}.restore") for part, folder in where.items()}
    try:
        with tarfile.open(str(path), "r:gz") as archive:
            manifest = manifest_of(archive)
        return fill(path, manifest, where, staging, params)
    finally:
        for folder in staging.values():
            shutil.rmtree(str(folder), ignore_errors=True)


def fill(path, manifest, where, staging, params):
    """Unpack, compare, replace."""
    count = {}
    for part in manifest["parts"]:
        shutil.rmtree(str(staging[part]), ignore_errors=True)
        staging[part].mkdir(mode=0o700, parents=True)
        with tarfile.open(str(path), "r:gz") as archive:
            unpack(archive, part, manifest["files"], staging[part])
        if part == "book":
            set_keys_aside(staging[part] / part)
    authority = text_of(where["book"] / "ca" / "ca.crt")
    if "ui" in manifest["parts"]:
        stop_page()
    for part in manifest["parts"]:
        where[part].mkdir(mode=0o755 if part == "ui" else 0o700, parents=True, exist_ok=True)
        count[part] = replace(part, staging[part] / part, where[part]) if (staging[part] / part).is_dir() else 0
    if "book" in manifest["parts"]:
        # A host without one was served by the authority that comes back.
        if authority not in (None, text_of(where["book"] / "ca" / "ca.crt")):
            forget_certificates(params["data_root"])
        mark(where["book"], params["mark"])
    return count


def main():
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "book": {"type": "path", "default": "/var/lib/onprem-llm"},
            "data_root": {"type": "path", "default": "/srv/onprem-llm"},
            "mark": {"type": "str", "choices": ["gateway", "second"], "required": True},
        }
    )
    try:
        count = restore(module.params)
    except (BackupError, OSError, EOFError, tarfile.TarError, subprocess.SubprocessError) as error:
        module.fail_json(msg=f"cannot put the backup {module.params['path']} back: {error}", invocation={})
    module.exit_json(changed=True, invocation={}, onprem_llm={"restored": count})


if __name__ == "__main__":
    main()
