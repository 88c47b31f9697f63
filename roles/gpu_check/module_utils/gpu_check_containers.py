# SPDX-License-Identifier: Apache-2.0
"""How containers of this host can be given GPUs, which have some, and which container a process belongs to."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ansible.module_utils.gpu_check_bus import text_of
from ansible.module_utils.onprem_llm_cdi import FOLDERS, missing
from ansible.module_utils.onprem_llm_engine_api import ERRORS, ask, cdi_devices

LABEL = "onprem-llm."
CONTAINER_ID = re.compile(r"[0-9a-f]{64}")


def access() -> dict[str, Any]:
    """Return the engine's runtimes, the devices that CDI offers and what it names that is gone, the containers.

    `error` says why no engine answers.
    """
    found: dict[str, Any] = {"engine": False, "error": None, "runtimes": [], "containers": []}
    found.update(cdi=cdi_devices(FOLDERS), cdi_missing=missing(FOLDERS))
    try:
        info = ask("/info")
        listed = ask("/containers/json?all=1")
    except ERRORS as error:
        return {**found, "error": str(error)}
    # The engine names its folders where CDI is switched on.
    folders = info.get("CDISpecDirs")
    found["cdi_on"] = bool(folders)
    if folders:
        found.update(cdi=cdi_devices(folders), cdi_missing=missing(folders))
    found.update(engine=True, runtimes=sorted(info.get("Runtimes") or {}))
    found["containers"] = [_container(one) for one in listed]
    _name_images(found["containers"])
    return found


def _name_images(containers: list[dict[str, Any]]) -> None:
    """Write the names of images beside those that containers of ours know by id alone: people know names."""
    nameless = [one for one in containers if one["image"].startswith("sha256:") and "project" in one["labels"]]
    for one in nameless:
        try:
            known = ask(f"/images/{one['image']}/json")
        except ERRORS:
            continue
        one["image_name"] = next(
            iter([*(known.get("RepoTags") or []), *(known.get("RepoDigests") or [])]), one["image"]
        )


def _container(listed: dict[str, Any]) -> dict[str, Any]:
    labels = listed.get("Labels") or {}
    names = listed.get("Names") or [listed["Id"][:12]]
    return {
        "id": listed["Id"],
        "name": names[0].lstrip("/"),
        "running": listed.get("State") == "running",
        "image": listed.get("Image") or "",
        "image_name": listed.get("Image") or "",
        "labels": {key[len(LABEL) :]: value for key, value in labels.items() if key.startswith(LABEL)},
    }


def owners(pids: list[int], containers: list[dict[str, Any]], root: Path = Path("/")) -> dict[int, str]:
    """Return {pid: container} of the processes that run in one; ours have their project's name and a `+` before it."""
    by_id = {one["id"]: one for one in containers}
    found = {}
    for pid in pids:
        for number in CONTAINER_ID.findall(text_of(root / f"proc/{pid}/cgroup")):
            if number in by_id:
                project = by_id[number]["labels"].get("project")
                found[pid] = f"+{project}" if project else by_id[number]["name"]
    return found
