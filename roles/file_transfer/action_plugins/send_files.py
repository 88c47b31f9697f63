# SPDX-License-Identifier: Apache-2.0
"""Send large files in verified chunks through the task's own connection. Documented in library/send_files.py."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
from pathlib import Path

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

CHUNK = 64 * 1024 * 1024  # bytes; one remote command each, so larger means less overhead and coarser resuming
TRIES = 3  # a chunk that arrives damaged is sent again
PARTIAL = ".partial"  # what a file is called on the host, behind its name, while it grows

# Runs on the host: take one chunk from standard input, write it at its place, tell its sha256.
WRITER = """
import hashlib, os, sys
data = sys.stdin.buffer.read()
handle = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600)
os.lseek(handle, int(sys.argv[2]), os.SEEK_SET)
view = memoryview(data)
while view:
    view = view[os.write(handle, view):]
os.close(handle)
print(hashlib.sha256(data).hexdigest())
"""


SMALL = 16 * 1024 * 1024  # bytes; smaller files may travel together, up to CHUNK in one remote command

# Runs on the host: take several files from standard input, put each that is right in its place, tell its number.
UNPACKER = """
import hashlib, json, os, sys
stream = sys.stdin.buffer
for number, one in enumerate(json.loads(stream.read(int(sys.argv[1])).decode())):
    data = stream.read(one["size"])
    if hashlib.sha256(data).hexdigest() != one["sha256"]:
        continue
    growing = one["path"] + ".partial"
    with os.fdopen(os.open(growing, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600), "wb") as handle:
        handle.write(data)
        handle.flush()
        os.fsync(handle.fileno())
    os.chmod(growing, 0o644)
    os.utime(growing, ns=(one["mtime_ns"], one["mtime_ns"]))
    os.replace(growing, one["path"])
    print("got", number)
"""


class Transfer:
    """One file on its way: where it comes from, where it goes, what it must be."""

    def __init__(self, folder, name):
        """Take the file's size from the disk where the order does not say it."""
        about = next((one for one in folder["files"] if one["path"] == name), {"path": name})
        if name.startswith("/") or ".." in Path(name).parts or not Path(name).parts:
            raise AnsibleActionFail(f"found the path {name!r}, expected one below {folder['path']}; nothing was sent")
        self.source = Path(folder["source"], name)
        self.folder, self.name = folder["path"], name
        self.path = str(Path(folder["path"], name))
        try:
            stat = self.source.stat()
        except OSError as error:
            raise AnsibleActionFail(f"cannot read {self.source}: {error.strerror}") from error
        self.size = stat.st_size
        # Whole seconds: a file server that keeps no finer time must not make every file look changed.
        self.mtime_ns = int(stat.st_mtime) * 1_000_000_000
        self.sha256 = about.get("sha256")
        if about.get("size") is not None and about["size"] != self.size:
            message = f"{self.source} has {self.size} bytes, the plan says {about['size']}: it changed since"
            raise AnsibleActionFail(message + "; make the plan again")

    def chunks(self):
        """Yield (offset, bytes); none for an empty file: Ansible would ask for a terminal where nothing is sent."""
        with self.source.open("rb") as handle:
            offset = 0
            for data in iter(lambda: handle.read(CHUNK), b""):
                yield offset, data
                offset += len(data)

    def whole(self):
        """Return the bytes of a small file, which must be what was planned."""
        data = self.source.read_bytes()
        if hashlib.sha256(data).hexdigest() != self.sha256:
            raise AnsibleActionFail(f"{self.source} changed since it was planned; make the plan again")
        return data


def check_growing(folders, transfers):
    """Refuse a file that would grow under the name of another one, which may be on the host already."""
    names = [(folder["path"], name) for folder in folders for name in folder["send"]]
    names += [(folder["path"], one["path"]) for folder in folders for one in folder["files"]]
    known = {str(Path(path, name)) for path, name in names}
    for one in transfers:
        if one.path + PARTIAL in known:
            why = f"{one.path}{PARTIAL} is the name under which {one.path} grows"
            raise AnsibleActionFail(f"{why}, and a file of its own; rename that file, nothing was sent")


def batches(transfers):
    """Yield files together, as many as fit into CHUNK bytes."""
    batch, size = [], 0
    for one in transfers:
        if batch and size + one.size > CHUNK:
            yield batch
            batch, size = [], 0
        batch.append(one)
        size += one.size
    if batch:
        yield batch


class Meter:
    """Tells how far a host is, in the file that the runner reads."""

    def __init__(self, host, total):
        """`total` in bytes."""
        self.host = host
        self.total = total
        self.done = 0
        self._file = os.environ.get("ONPREM_LLM_PROGRESS")

    def add(self, count):
        """Count bytes that are on the host."""
        self.done += count
        if self._file:
            line = json.dumps({"host": self.host, "done": self.done, "total": self.total})
            with Path(self._file).open("a", encoding="utf-8") as handle:
                handle.write(line + "\n")


class ActionModule(ActionBase):
    """Reads on the control host, writes on the host."""

    TRANSFERS_FILES = False
    _supports_check_mode = False

    def run(self, tmp=None, task_vars=None):
        """Send what is not there; return how much that was."""
        super().run(tmp, task_vars)
        folders = self._task.args.get("folders") or []
        transfers = [Transfer(folder, name) for folder in folders for name in folder["send"]]
        check_growing(folders, transfers)
        meter = Meter(task_vars["inventory_hostname"], sum(one.size for one in transfers))
        small = [one for one in transfers if self._task.args.get("together") and one.sha256 and one.size <= SMALL]
        sent = self._send_together(small, meter, task_vars) if small else 0
        sent += sum(self._send(one, meter, task_vars) for one in transfers if one not in small)
        return {"changed": sent > 0, "sent": sent, "verified": [one.path for one in transfers]}

    def _module(self, step, transfer, task_vars, **more):
        where = {"folder": transfer.folder, "path": transfer.name}
        arguments = {"step": step, **where, "size": transfer.size, "chunk": CHUNK, **more}
        return self._receive(arguments, transfer.path, task_vars)

    def _receive(self, arguments, what, task_vars):
        result = self._execute_module(module_name="receive_file", module_args=arguments, task_vars=task_vars)
        if result.get("failed"):
            raise AnsibleActionFail(result.get("msg") or f"receiving {what} failed", result=result)
        return result

    def _send_together(self, transfers, meter, task_vars):
        """Send small files, many in one remote command, and return the bytes that went over the wire."""
        files = [{"folder": one.folder, "path": one.name, "size": one.size, "sha256": one.sha256} for one in transfers]
        there = self._receive({"step": "look_many", "files": files}, "small files", task_vars)
        present, sent = set(there["paths"]), 0
        meter.add(sum(one.size for one in transfers if one.path in present))
        for batch in batches([one for one in transfers if one.path not in present]):
            self._unpack(batch, there["python"])
            sent += sum(one.size for one in batch) or 1
            meter.add(sum(one.size for one in batch))
        return sent

    def _unpack(self, batch, python):
        """Send one batch; what arrived damaged goes again."""
        for _ in range(TRIES):
            about = [
                {"path": one.path, "size": one.size, "sha256": one.sha256, "mtime_ns": one.mtime_ns} for one in batch
            ]
            head = json.dumps(about).encode()
            command = shlex.join([python, "-c", UNPACKER, str(len(head))])
            payload = head + b"".join(one.whole() for one in batch)
            answer = self._low_level_execute_command(command, sudoable=True, in_data=payload)
            if answer["rc"] != 0:
                said = (answer["stderr"].strip() or answer["stdout"].strip() or "no reason given").splitlines()[-1]
                raise AnsibleActionFail(f"cannot write {batch[0].path}: {said}; run it again, and it goes on from here")
            arrived = set(answer["stdout"].splitlines())
            batch = [one for number, one in enumerate(batch) if f"got {number}" not in arrived]
            if not batch:
                return
        raise AnsibleActionFail(f"{batch[0].path}: it arrived damaged {TRIES} times; check the network to this host")

    def _send(self, transfer, meter, task_vars):
        """Send one file and return the bytes that went over the wire."""
        there = self._module("look", transfer, task_vars, sha256=transfer.sha256)
        if there["present"]:
            meter.add(transfer.size)
            return 0
        sent, whole, before = 0, hashlib.sha256(), there["chunks"]
        for number, (offset, data) in enumerate(transfer.chunks()):
            whole.update(data)
            digest = hashlib.sha256(data).hexdigest()
            if number >= len(before) or before[number] != digest:
                self._write(transfer, offset, data, digest, there["python"])
                sent += len(data)
            meter.add(len(data))
        if transfer.sha256 and whole.hexdigest() != transfer.sha256:
            raise AnsibleActionFail(f"{transfer.source} changed since it was planned; make the plan again")
        self._module("finish", transfer, task_vars, mtime_ns=transfer.mtime_ns)
        return sent or 1  # an empty file, or one whose last step had been cut off, is a change too

    def _write(self, transfer, offset, data, digest, python):
        command = shlex.join([python, "-c", WRITER, transfer.path + PARTIAL, str(offset)])
        for _ in range(TRIES):
            answer = self._low_level_execute_command(command, sudoable=True, in_data=data)
            if answer["rc"] != 0:
                said = (answer["stderr"].strip() or answer["stdout"].strip() or "no reason given").splitlines()[-1]
                raise AnsibleActionFail(f"cannot write {transfer.path}: {said}; run it again, and it goes on from here")
            if answer["stdout"].split()[-1:] == [digest]:
                return
        raise AnsibleActionFail(
            f"{transfer.path}: the chunk at byte {offset} arrived damaged {TRIES} times; check the network to this host"
        )
