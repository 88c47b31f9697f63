# SPDX-License-Identifier: Apache-2.0
"""The record of client keys on a gateway, the maps that HAProxy reads, and bringing them to the running process."""

import contextlib
import fcntl
import hashlib
import json
import os
import re
from pathlib import Path

from ansible.module_utils.onprem_llm_haproxy import HaproxyError, NotRunningError
from ansible.module_utils.onprem_llm_write import put

RECORD = "keys.json"
GIVEN = "given.json"  # the record of a backup that was put back, until it is merged
LOCK = ".lock"
VERSION = 1
IN_CONTAINER = "/var/lib/keys"  # where the folder is mounted; HAProxy names a map by its path
# In the order in which a new key is told to the process: who may come in is the last thing it learns.
MAPS = ("expires.map", "rates.map", "allowed.map", "restricted.map", "keys.map")
INTERNAL = ("onprem-llm", "open-webui")
NAME = re.compile(r"^[a-z0-9][a-z0-9._-]{0,62}$")
SHA256 = re.compile(r"^[0-9a-f]{64}$")
UNITS = ("second", "minute", "hour", "day")


class KeysError(Exception):
    """What was found and expected; for a person, never with a key."""


@contextlib.contextmanager
def locked(folder):
    """Let one run at a time change the record."""
    descriptor = os.open(str(folder / LOCK), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def check_private(path, mode, what):
    """Refuse a file or folder that others can read or that is not ours."""
    stat = path.stat()
    found = stat.st_mode & 0o777
    if found != mode:
        raise KeysError(
            f"{what} {path} has mode {found:04o}, expected {mode:04o}: others could read or change who may come in. "
            f"Look who could have, then: chmod {mode:04o} {path}"
        )
    if stat.st_uid != os.geteuid():
        raise KeysError(
            f"{what} {path} belongs to user {stat.st_uid}, expected {os.geteuid()}. Look who could have changed it, "
            f"then: chown {os.geteuid()}:{os.getegid()} {path}"
        )


def check_folder(folder):
    """Refuse a folder of keys that is missing, or open to others."""
    if not folder.is_dir():
        raise KeysError(
            f"there is no folder {folder}: this host has no gateway yet, and deploy makes it; or it was removed, and "
            "onprem-llm-keys.service makes it anew within seconds. Clients' keys come back with onprem-llm restore"
        )
    check_private(folder, 0o700, "the folder of keys")


def read(folder, name=RECORD):
    """Return the record. KeysError where it is missing, open to others, or not ours."""
    check_folder(folder)
    path = folder / name
    if not path.exists():
        raise KeysError(f"there is no {path}: this host has no gateway yet, or it was removed; deploy makes it")
    check_private(path, 0o600, "the key file")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        check_record(record)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise KeysError(
            f"the key file {path} cannot be read ({error}); nothing was changed, and the gateway goes on with the keys "
            f"it has. Put it back from a backup or from another gateway host"
        ) from None
    return record


def check_record(record):
    """Raise ValueError (or KeyError, TypeError) with what is wrong in the record."""
    if record.get("version") != VERSION:
        raise ValueError(f"found version {record.get('version')!r}, expected {VERSION}")
    if not isinstance(record["serial"], int):
        raise ValueError("serial is not a number")
    for name, key in record["keys"].items():
        where = f"keys.{name}"
        if not NAME.fullmatch(name):
            raise ValueError(f"{where}: not a name")
        if not SHA256.fullmatch(key["sha256"]):
            raise ValueError(f"{where}.sha256: not 64 hexadecimal digits")
        if key["models"] is not None and not all(NAME.fullmatch(model) for model in key["models"]):
            raise ValueError(f"{where}.models: not names of deployments")
        if key["rate"] is not None and (key["rate"]["unit"] not in UNITS or int(key["rate"]["count"]) < 1):
            raise ValueError(f"{where}.rate: not a number per {', '.join(UNITS)}")
        for moment in ("expires", "revoked"):
            if key[moment] is not None and not isinstance(key[moment], int):
                raise ValueError(f"{where}.{moment}: not seconds since 1970")


def maps(record):
    """Return {map: {entry: value}} of the keys that count; HAProxy looks at `expires` itself."""
    found = {name: {} for name in MAPS}
    for name, key in sorted(record["keys"].items()):
        if key["revoked"] is not None:
            continue
        found["keys.map"][key["sha256"]] = name
        if key["rate"] is not None:
            found["rates.map"][name] = f"{key['rate']['count']}/{key['rate']['unit']}"
        if key["expires"] is not None:
            found["expires.map"][name] = str(key["expires"])
        if key["models"] is not None:
            found["restricted.map"][name] = "1"
            found["allowed.map"].update({f"{name}:{model}": "1" for model in key["models"]})
    return found


def map_text(entries):
    """Return a map as HAProxy reads it."""
    return "".join(f"{entry} {value}\n" for entry, value in sorted(entries.items()))


def update(path, text):
    """Write a private file that is never seen half-written; return whether it differed."""
    try:
        if path.read_text(encoding="utf-8") == text and path.stat().st_mode & 0o777 == 0o600:
            return False
    except (OSError, ValueError):
        pass
    put(path, text)
    return True


def write(folder, record):
    """Write the record and the maps made of it; return whether anything differed. The record is the master: first."""
    changed = update(folder / RECORD, json.dumps(record, indent=1, sort_keys=True) + "\n")
    for name, entries in maps(record).items():
        changed |= update(folder / name, map_text(entries))
    return changed


def running_map(worker, name):
    """Return {entry: value} of a map as a worker has it, None where its configuration does not use the map."""
    answer = worker.ask(f"show map {IN_CONTAINER}/{name}")
    if answer.startswith("Unknown map"):
        return None
    found = {}
    for line in answer.splitlines():
        words = line.split(" ", 2)
        if len(words) == 3:  # the entry's address, the entry, its value
            found[words[1]] = words[2]
    return found


def tell_worker(worker, record):
    """Bring one worker's maps to what the record says; return how many entries differed."""
    wanted, count = maps(record), 0
    # What is taken away first takes the key away, what is given last lets it in.
    differing = []
    for name in MAPS:
        found = running_map(worker, name)
        if found is None:
            if worker.old:
                continue
            raise HaproxyError(f"the running gateway does not use {IN_CONTAINER}/{name}; deploy loads it anew")
        differing.append((name, found))
    for name, found in reversed(differing):
        for entry in sorted(set(found) - set(wanted[name])):
            worker.tell(f"del map {IN_CONTAINER}/{name} {entry}")
            count += 1
    for name, found in differing:
        for entry, value in sorted(wanted[name].items()):
            if found.get(entry) != value:
                verb = "set" if entry in found else "add"
                worker.tell(f"{verb} map {IN_CONTAINER}/{name} {entry} {value}")
                count += 1
    return count


def tell(gateway, record):
    """Bring every worker to the record; return how many entries differed. A gateway that is down reads the files."""
    try:
        workers = gateway.workers()
    except NotRunningError:
        return 0
    return sum(tell_worker(worker, record) for worker in workers)


def newer(one, other):
    """Return which of two entries of one name counts: the later one made; of the same key the one that is revoked."""
    if one["sha256"] != other["sha256"]:
        return max(one, other, key=lambda key: (key["created"], canonical(key)))
    ends = [key["revoked"] for key in (one, other) if key["revoked"] is not None]
    chosen = max(one, other, key=lambda key: (key["created"], canonical(dict(key, revoked=None))))
    return dict(chosen, revoked=min(ends) if ends else None)


def canonical(value):
    """Return a value as text that two hosts write alike."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def digest(record):
    """Return what two hosts with the same keys have in common."""
    return hashlib.sha256(canonical(record["keys"]).encode()).hexdigest()


def merged(mine, theirs):
    """Return the record that both hosts come to, whoever begins; nothing that was revoked comes back."""
    keys = dict(theirs["keys"])
    for name, key in mine["keys"].items():
        keys[name] = newer(key, keys[name]) if name in keys else key
    return {"version": VERSION, "serial": max(mine["serial"], theirs["serial"]), "keys": keys}


def empty():
    """Return the record of a host that has none yet."""
    return {"version": VERSION, "serial": 0, "keys": {}}


def restored(mine, given):
    """Return what both know after a backup was put back; of our own keys the backup's: their clear text came too."""
    both = merged(mine, given)
    for name in INTERNAL:
        known, key = both["keys"].get(name), given["keys"].get(name)
        if key and known["sha256"] != key["sha256"]:
            both["keys"][name] = dict(key, created=later(key["created"], known))
    if both["keys"] != mine["keys"]:
        both["serial"] += 1
    return both


def later(now, before):
    """Return when a key was made that takes the place of `before`, whatever the clock of the host says that made that.

    Of two keys of one name the one that was made later counts.
    """
    return max(now, before["created"] + 1, (before["revoked"] or 0) + 1) if before else now


def entry(sha256, about, by, now, before):
    """Return a key as the record has it; `before` is the one of that name that it replaces."""
    return {
        "sha256": sha256,
        "models": about.get("models"),
        "rate": about.get("rate"),
        "expires": about.get("expires"),
        "created": later(now, before),
        "created_by": by,
        "revoked": None,
    }


def add_internal(record, names, folder, now):
    """Put keys of our own into the record, from the files with their clear text."""
    for name in names:
        path = Path(folder, f"client-{name}")
        try:
            value = path.read_text(encoding="utf-8").strip()
        except OSError as error:
            raise KeysError(f"the internal key {path} cannot be read: {error.strerror}") from None
        if not value:
            raise KeysError(f"the internal key {path} is empty; remove it, and deploy makes a new one")
        sha256 = hashlib.sha256(value.encode()).hexdigest()
        before = record["keys"].get(name)
        if not before or before["sha256"] != sha256 or before["revoked"] is not None:
            record["keys"][name] = entry(sha256, {}, "onprem-llm", now, before)
