# SPDX-License-Identifier: Apache-2.0
"""The NVLinks of a host's GPUs: `nvidia-smi nvlink --status`."""

from __future__ import annotations

import re


def link_states(text: str) -> dict[str, dict[str, list[int]]]:
    """Return {GPU's index: {"up": [link, …], "down": [link, …]}} of `nvlink --status`; none of GPUs without links.

    A GPU that says that all its links are inactive has both lists empty.
    """
    found: dict[str, dict[str, list[int]]] = {}
    current = None
    for line in text.splitlines():
        head = re.match(r"^GPU (\d+):", line)
        link = re.match(r"^\s+Link (\d+): (.*)", line)
        if head:
            current = head.group(1)
        elif link and current is not None:
            state = "down" if "inactive" in link.group(2) else "up"
            found.setdefault(current, {"up": [], "down": []})[state].append(int(link.group(1)))
        elif "all links are inactive" in line.lower() and current is not None:
            found.setdefault(current, {"up": [], "down": []})
    return found
