# SPDX-License-Identifier: Apache-2.0
"""How the GPUs of a host reach each other: `nvidia-smi topo -m` and `nvidia-smi nvlink --status`."""

from __future__ import annotations

import re

GPU = re.compile(r"^GPU(\d+)$")
# nvidia-smi underlines the head of the matrix on some versions, terminal or not.
UNDERLINE = re.compile(r"\x1b\[[0-9;]*m")


def matrix(text: str) -> dict[str, str]:
    """Return {"0-1": "NV18", …} for each pair of GPUs of `topo -m`; columns of network cards are left out."""
    columns: list[str] = []
    pairs: dict[str, str] = {}
    for line in UNDERLINE.sub("", text).splitlines():
        cells = line.replace("CPU Affinity", "").split()
        if not columns:
            columns = [cell for cell in cells if GPU.match(cell)] if cells and GPU.match(cells[0]) else []
            continue
        row = GPU.match(cells[0]) if cells else None
        if row is None:
            continue
        for name, cell in zip(columns, cells[1:]):
            other = int(name[3:])
            if int(row.group(1)) < other:
                pairs[f"{row.group(1)}-{other}"] = cell
    return pairs


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
