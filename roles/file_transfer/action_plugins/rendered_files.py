# SPDX-License-Identifier: Apache-2.0
"""The control host's half of a module that gets rendered files: read them and hand them over in one task.

A role that depends on this one derives the action plugin of its module from it.
"""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):
    """Reads the files below `source`; their text never becomes an Ansible variable."""

    TRANSFERS_FILES = False

    def run(self, tmp=None, task_vars=None):
        """Return the module's result."""
        super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        source = Path(arguments.get("source") or "")
        files = arguments.get("files") or {}
        arguments["contents"] = {name: self._read(source / name, digest) for name, digest in files.items()}
        return self._execute_module(module_name=self._task.action, module_args=arguments, task_vars=task_vars)

    @staticmethod
    def _read(path, digest):
        try:
            content = path.read_bytes()
        except OSError as error:
            raise AnsibleActionFail(
                f"cannot read the rendered file {path}: {error.strerror}; make the plan again"
            ) from error
        found = hashlib.sha256(content).hexdigest()
        if found != digest:
            raise AnsibleActionFail(
                f"{path} is not what was planned: its sha256 is {found}, the plan says {digest}; make the plan again"
            )
        return base64.b64encode(content).decode("ascii")
