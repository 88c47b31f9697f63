# SPDX-License-Identifier: Apache-2.0
"""Hand the program to the hosts, and tell how far they are. Documented in library/network_check.py."""

from __future__ import annotations

import base64
import io
import json
import os
import zipfile
from pathlib import Path

from ansible.plugins.action import ActionBase

PROGRAM = Path(__file__).resolve().parents[1] / "files" / "network_check"


def packed():
    """Return the program as a zip file, which python3 runs as it is."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(PROGRAM.glob("*.py")):
            archive.write(str(path), f"network_check/{path.name}")
    return base64.b64encode(stream.getvalue()).decode()


class ActionModule(ActionBase):
    """Runs the module of the same name."""

    TRANSFERS_FILES = False
    _supports_check_mode = False

    def run(self, tmp=None, task_vars=None):
        """Return what the module says."""
        super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        if arguments.get("state") == "started":
            arguments["program"] = packed()
        result = self._execute_module(module_name="network_check", module_args=arguments, task_vars=task_vars)
        progress, status = os.environ.get("ONPREM_LLM_PROGRESS"), result.get("status") or {}
        if progress and status.get("total"):
            line = {"host": task_vars["inventory_hostname"], "done": status["done"], "total": status["total"]}
            with Path(progress).open("a", encoding="utf-8") as handle:
                handle.write(json.dumps({**line, "unit": "rounds"}) + "\n")
        return result
