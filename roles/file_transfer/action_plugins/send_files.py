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

# Runs on the host: take one chunk from standard input, write it at its place, tell its sha256.
WRITER = """
import hashlib, os, sys
data = sys.stdin.buffer.read()
handle = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT, 0o600)
os.lseek(handle, int(sys.argv[2]), os.SEEK_SET)
view = memoryview(data)
while view:
    view = view[os.write(handle, view):]
os.close(handle)
print(hashlib.sha256(data).hexdigest())
"""


class Transfer:
    """One file on its way: where it comes from, where it goes, what it must be."""

    def __init__(self, folder, name):
        """Take the file's size from the disk where the order does not say it."""
        about = next((one for one in folder["files"] if one["path"] == name), {"path": name})
        self.source = Path(folder["source"], name)
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
        meter = Meter(task_vars["inventory_hostname"], sum(one.size for one in transfers))
        sent = sum(self._send(one, meter, task_vars) for one in transfers)
        return {"changed": sent > 0, "sent": sent, "verified": [one.path for one in transfers]}

    def _module(self, step, transfer, task_vars, **more):
        arguments = {"step": step, "path": transfer.path, "size": transfer.size, "chunk": CHUNK, **more}
        result = self._execute_module(module_name="receive_file", module_args=arguments, task_vars=task_vars)
        if result.get("failed"):
            raise AnsibleActionFail(result.get("msg") or f"receiving {transfer.path} failed", result=result)
        return result

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
        command = shlex.join([python, "-c", WRITER, f"{transfer.path}.partial", str(offset)])
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
