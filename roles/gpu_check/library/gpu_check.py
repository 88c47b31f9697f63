#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Ansible module: look at a host's NVIDIA GPUs, driver and kernel log, and say what is wrong. It changes nothing."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any, Callable

from ansible.module_utils import gpu_check_bus as bus_part
from ansible.module_utils import gpu_check_containers as containers_part
from ansible.module_utils import gpu_check_driver as driver_part
from ansible.module_utils import gpu_check_links as links_part
from ansible.module_utils import gpu_check_log as log_part
from ansible.module_utils import gpu_check_smi as smi_part
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.gpu_check_judge_access import access_findings
from ansible.module_utils.gpu_check_judge_cards import card_findings
from ansible.module_utils.gpu_check_judge_driver import driver_findings
from ansible.module_utils.gpu_check_judge_links import link_findings, xid_findings
from ansible.module_utils.onprem_llm_gpu_matrix import matrix

DOCUMENTATION = r"""
module: gpu_check
short_description: Look at a host's NVIDIA GPUs and say what is wrong
description:
  - Returns facts (GPUs, driver, PCI bus, links, Xids since boot, containers) and findings, each with C(check),
    C(level) (ok, warning, error), C(found), C(expected) and C(remedy).
  - A host without GPUs is fine, and said to be so. Nothing fails the host, and nothing is changed on it.
options:
  timeout: {description: Seconds to wait for nvidia-smi., type: float, default: 30}
author: [onprem-llm]
"""

SCHEMA = 1
GRACE = 5.0  # seconds beside two answers of nvidia-smi, the most that are waited for one after the other
OPTIONS: dict[str, Any] = {"timeout": {"type": "float", "default": 30}}
NO_ACCESS = {
    "engine": False,
    "error": "no answer",
    "runtimes": [],
    "cdi": [],
    "cdi_missing": [],
    "cdi_on": None,
    "containers": [],
}


def gather(parts: dict[str, Callable[[], Any]], limit: float) -> dict[str, Any]:
    """Run the functions beside each other and return what came in time; one that hangs does not keep us from ending."""
    answers: dict[str, Any] = {}
    threads = []
    for name, function in parts.items():
        threads.append(threading.Thread(target=_keep, args=(answers, name, function), daemon=True))
        threads[-1].start()
    end = time.monotonic() + limit
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    return dict(answers)


def _keep(answers: dict[str, Any], name: str, function: Callable[[], Any]) -> None:
    try:
        answers[name] = function()
    except smi_part.SmiError:
        return  # of links alone; of the GPUs themselves it is an answer


def look(timeout: float, root: Path = Path("/")) -> dict[str, Any]:
    """Return everything that the judges want to know of this host."""
    bus, tool, state = bus_part.cards(root), smi_part.tool(), driver_part.state(root)
    booted = time.time() - float((bus_part.text_of(root / "proc/uptime").split() or ["0"])[0])
    facts: dict[str, Any] = {
        "schema": SCHEMA, "now": int(time.time()), "kernel": state["kernel"], "bus": bus, "gpus": [], "owners": {},
        "boot_id": bus_part.text_of(root / "proc/sys/kernel/random/boot_id"), "memory_total": _memory(root),
        "driver": {"tool": tool is not None, "version": None, "cuda": None, "error": None, "lost": [], "state": state},
        "links": {"pairs": {}, "states": {}}, "log": [], "log_read": None, "xids": [], "access": dict(NO_ACCESS),
    }  # fmt: skip
    if tool is None and not bus:
        return facts
    answers = gather(_questions(tool, timeout, bus, root), 2 * timeout + GRACE)
    said = answers.get("smi") or {"error": f"nvidia-smi did not answer within {timeout:g} s"}
    facts["gpus"] = said.get("gpus", [])
    if tool is not None:
        facts["driver"].update(version=said.get("driver"), cuda=said.get("cuda"), error=said.get("error"))
        facts["driver"]["lost"] = said.get("lost", [])
    facts["links"] = {
        "pairs": matrix(answers.get("topology") or ""),
        "states": links_part.link_states(answers.get("nvlink") or ""),
    }
    facts.update(log=answers.get("log") or [], log_read=answers.get("log") is not None)
    facts["xids"] = log_part.xids(facts["log"], booted)
    facts["access"].update(answers.get("access") or {})
    pids = [one["pid"] for gpu in facts["gpus"] for one in gpu["processes"] if one["pid"]]
    found = containers_part.owners(pids, facts["access"]["containers"], root)
    facts["owners"] = {str(pid): name for pid, name in found.items()}
    return facts


def _questions(tool: str | None, timeout: float, bus: list[Any], root: Path) -> dict[str, Callable[[], Any]]:
    """Return what is asked at the same time. Links are asked for where there are two cards to be linked."""
    asked: dict[str, Callable[[], Any]] = {"log": log_part.lines, "access": containers_part.access}
    if tool is None:
        return asked
    asked["smi"] = lambda: smi_part.seen(tool, timeout, [card["address"] for card in bus])
    if max(len(bus), len(list((root / "dev").glob("nvidia[0-9]*")))) > 1:
        asked["topology"] = lambda: smi_part.ask(tool, timeout, "topo", "-m")
        asked["nvlink"] = lambda: smi_part.ask(tool, timeout, "nvlink", "--status")
    return asked


def _memory(root: Path) -> int | None:
    for line in bus_part.text_of(root / "proc/meminfo").splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    return None


def findings_of(facts: dict[str, Any]) -> list[dict[str, str]]:
    """Judge what was seen; pure."""
    found = driver_findings(facts)
    if facts["gpus"]:
        found = [*card_findings(facts), *found, *link_findings(facts)]
    if facts["bus"] or facts["driver"]["tool"]:
        found += xid_findings(facts)
    return found + (access_findings(facts) if facts["gpus"] else [])


def told(facts: dict[str, Any]) -> dict[str, Any]:
    """Return the facts that travel: not the log's lines, and of containers those alone that are ours."""
    access = dict(facts["access"])
    access["containers"] = [
        {key: value for key, value in one.items() if key != "id"}
        for one in access["containers"]
        if "project" in one["labels"]
    ]
    return {**{key: value for key, value in facts.items() if key != "log"}, "access": access}


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(argument_spec=OPTIONS, supports_check_mode=True)
    facts = look(module.params["timeout"])
    module.exit_json(
        changed=False, invocation={}, onprem_llm={"findings": findings_of(facts), "gpu_check": told(facts)}
    )


if __name__ == "__main__":
    main()
