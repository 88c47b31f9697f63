# SPDX-License-Identifier: Apache-2.0
"""The control host's half of fan_out, which library/fan_out.py documents: role module_parts has it."""

from __future__ import annotations

from pathlib import Path

from ansible.plugins.loader import action_loader


class ActionModule(action_loader.get("onprem_llm_run_program", class_only=True)):
    """Hands the program to the hosts, and tells how far they are."""

    PROGRAM = Path(__file__).resolve().parents[1] / "files" / "fan_out"
