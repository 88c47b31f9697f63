# SPDX-License-Identifier: Apache-2.0
"""The control host's half of schedule_timer: role file_transfer has it."""

from __future__ import annotations

from ansible.plugins.loader import action_loader


class ActionModule(action_loader.get("rendered_files", class_only=True)):
    """Reads the files below `source`, and runs the module schedule_timer with them."""
