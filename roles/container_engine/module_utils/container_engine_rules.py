# SPDX-License-Identifier: Apache-2.0
"""What docker leaves in the kernel when it stops, and how it goes."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any, Mapping

from ansible.module_utils import container_engine_undo as undo
from ansible.module_utils.onprem_llm_command import run


def drop(before: Mapping[str, Any]) -> None:
    """Remove docker's chains, the jumps to them, and tables that it emptied.

    `before`: the notes of the kernel as it was: `ip_forward`, and `tables`, which were there without docker. OSError.
    """
    for tool in ("iptables", "ip6tables"):
        for table in ("nat", "filter", "raw"):
            _drop_chains([tool, "--table", table])
        if before.get("ip_forward") == "0":
            # docker closed the chain when it switched forwarding on.
            run([tool, "--policy", "FORWARD", "ACCEPT"])
    if before.get("ip_forward") == "0":
        Path("/proc/sys/net/ipv4/ip_forward").write_text("0\n")
    code, ruleset = run(["nft", "--json", "list", "ruleset"])
    if code == 0:
        chains, tables = undo.empty_objects(ruleset, before.get("tables", []))
        for chain in chains:
            run(["nft", "delete", "chain", *chain])
        for table in tables:
            run(["nft", "delete", "table", *table])


def _drop_chains(tool: list[str]) -> None:
    rules, chains = undo.docker_rules(run([*tool, "--list-rules"])[1])
    for rule in rules:
        run([*tool, "--delete", *shlex.split(rule)])
    for flag in ("--flush", "--delete-chain"):
        for chain in chains:
            run([*tool, flag, chain])
