# SPDX-License-Identifier: Apache-2.0
"""Asking nvidia-smi: its XML, and its csv where there is no XML to be had."""

from __future__ import annotations

import csv
import io
import os
import re
import shutil
from typing import Any

from ansible.module_utils.gpu_check_bus import bus_id
from ansible.module_utils.gpu_check_cards import SmiError, blank, number, parsed, said
from ansible.module_utils.onprem_llm_limited import call

LOST = re.compile(r"Unable to determine the device handle for GPU\s*([0-9A-Fa-f]+:[0-9A-Fa-f:.]*[0-9A-Fa-f])")
CSV_FIELDS = ("index", "uuid", "name", "pci.bus_id", "driver_version", "memory.total", "memory.used", "memory.free")


def tool() -> str | None:
    """Return where nvidia-smi is, None where it is not."""
    return shutil.which("nvidia-smi", path=os.environ.get("PATH", "") + ":/usr/bin:/usr/local/bin:/usr/lib/wsl/lib")


def ask(path: str, limit: float, *arguments: str) -> str:
    """Return what nvidia-smi prints. Raises SmiError."""
    try:
        code, text = call([path, *arguments], limit)
    except OSError as error:
        raise SmiError(f"nvidia-smi cannot be started: {error}") from None
    if code is None:
        raise SmiError(f"nvidia-smi did not answer within {limit:g} s")
    if code != 0 or LOST.search(text):
        raise SmiError(" ".join(text.split())[:400] or f"nvidia-smi ended with {code} and said nothing")
    return text


def seen(path: str, limit: float, addresses: list[str]) -> dict[str, Any]:
    """Return {"driver", "cuda", "gpus", "error", "lost"}. `addresses`: the cards on the bus.

    One lost GPU makes nvidia-smi fail for all of them: the others are asked for by name then.
    """
    found: dict[str, Any] = {"driver": None, "cuda": None, "gpus": [], "error": None, "lost": []}
    try:
        return {**found, **parsed(ask(path, limit, "-q", "-x"))}
    except SmiError as error:
        found["error"] = str(error)
    found["lost"] = [bus_id(one) or one for one in LOST.findall(found["error"])]
    others = [address for address in addresses if address not in found["lost"]]
    arguments = ["-q", "-x", "-i", ",".join(others)] if found["lost"] else []
    if "did not answer" in found["error"] or (found["lost"] and not others):
        return found  # a driver that hangs is not asked again
    try:
        answer = parsed(ask(path, limit, *arguments)) if arguments else _by_csv(path, limit)
    except SmiError:
        return found
    for gpu in answer["gpus"] if found["lost"] else []:
        # Counted from those that answered it would not be the index that nvidia-smi means with -i.
        gpu["index"] = addresses.index(gpu["bus_id"]) if gpu["bus_id"] in addresses else gpu["index"]
    return {**found, **answer, "error": found["error"] if found["lost"] else None}


def _by_csv(path: str, limit: float) -> dict[str, Any]:
    text = ask(path, limit, "--query-gpu=" + ",".join(CSV_FIELDS), "--format=csv,noheader,nounits")
    rows = [row for row in csv.reader(io.StringIO(text), skipinitialspace=True) if len(row) == len(CSV_FIELDS)]
    if not rows:
        raise SmiError("nvidia-smi lists no GPU")
    gpus = []
    for row in rows:
        cell = dict(zip(CSV_FIELDS, row))
        gpu = blank(int(cell["index"]) if cell["index"].isdigit() else len(gpus))
        gpu.update(
            uuid=said(cell["uuid"]),
            name=said(cell["name"]) or "unknown",
            bus_id=bus_id(cell["pci.bus_id"]),
            **{f"memory_{key}": number(cell[f"memory.{key}"]) for key in ("total", "used", "free")},
        )
        gpus.append(gpu)
    return {"driver": said(rows[0][4]), "cuda": None, "gpus": gpus}
