# SPDX-License-Identifier: Apache-2.0
"""How the GPUs of a host reach each other: the matrix of `nvidia-smi topo -m`."""

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
