# SPDX-License-Identifier: Apache-2.0
"""The control host's half of a module that runs a program on hosts as a unit (module_utils/onprem_llm_run_unit.py).

A role's own plugin is of the module's name, and says with PROGRAM which folder below the role's files the program is;
the folder, the program and the module have one name.
"""

from __future__ import annotations

import base64
import io
import json
import os
import zipfile
from pathlib import Path

from ansible.plugins.action import ActionBase


def packed(program):
    """Return a folder of Python files as a zip file in base64, which python3 runs as it is."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(program.glob("*.py")):
            archive.write(str(path), f"{program.name}/{path.name}")
    return base64.b64encode(stream.getvalue()).decode()


class ActionModule(ActionBase):
    """Hand the program to a host, and tell how far it is there."""

    TRANSFERS_FILES = False
    _supports_check_mode = False
    PROGRAM: Path
    UNIT: str | None = None  # what its total counts; bytes where it is not said

    def run(self, tmp=None, task_vars=None):
        """Return what the module says."""
        super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        if arguments.get("state") == "started":
            arguments["program"] = packed(self.PROGRAM)
        result = self._execute_module(module_name=self.PROGRAM.name, module_args=arguments, task_vars=task_vars)
        progress, status = os.environ.get("ONPREM_LLM_PROGRESS"), result.get("status") or {}
        if progress and status.get("total"):
            line = {"host": task_vars["inventory_hostname"], "done": status["done"], "total": status["total"]}
            unit = {"unit": self.UNIT} if self.UNIT else {}
            with Path(progress).open("a", encoding="utf-8") as handle:
                handle.write(json.dumps({**line, **unit}) + "\n")
        return result
