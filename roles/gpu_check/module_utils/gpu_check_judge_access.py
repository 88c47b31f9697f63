# SPDX-License-Identifier: Apache-2.0
"""Judging by which ways containers can be given GPUs. Pure."""

from __future__ import annotations

import re

from ansible.module_utils.gpu_check_findings import OK, WARNING, Facts, Finding, finding

TOOLKIT_REMEDY = (
    "onprem-llm bootstrap installs the NVIDIA Container Toolkit and has it write a CDI specification (unless "
    "nvidia_container_toolkit.install is false)."
)
ANEW = (
    "onprem-llm bootstrap makes it anew (by hand: /usr/local/libexec/onprem-llm-nvidia-cdi); containers take it at "
    "their next start."
)
EXPECTED = "a CDI specification or the nvidia runtime"
BY_UUID = re.compile(r"=(GPU-[0-9a-fA-F-]+)$")


def access_findings(facts: Facts) -> list[Finding]:
    """Return the ways into containers, and what is wrong with one."""
    access = facts["access"]
    devices = access["cdi"]
    unused = bool(devices) and access.get("cdi_on") is False
    ways = [f"CDI ({len(devices)} devices)"] if devices and not unused else []
    ways += ["the nvidia runtime of docker"] if "nvidia" in access["runtimes"] else []
    if not ways and unused:
        text = "a CDI specification, and docker does not use it"
        remedy = "onprem-llm bootstrap sets features.cdi in daemon.json; it wants Docker Engine 25 or newer."
        return [finding("gpu_access", WARNING, text, EXPECTED, remedy)]
    if not ways:
        return [
            finding("gpu_access", WARNING, "neither " + EXPECTED.replace(" or ", " nor "), EXPECTED, TOOLKIT_REMEDY)
        ]
    found = [finding("gpu_access", OK, " and ".join(ways), EXPECTED), *_gone(access.get("cdi_missing") or [])]
    return found + _stale({match.group(1) for match in map(BY_UUID.search, devices) if match}, facts)


def _gone(missing: list[str]) -> list[Finding]:
    """Say where a CDI specification names files of a driver that is gone: no container that wants a GPU starts."""
    if not missing:
        return []
    more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
    text = f"the CDI specification names {missing[0]}{more}, which the host does not have"
    return [finding("cdi", WARNING, text, "a specification that was made for this driver", ANEW)]


def _stale(named: set[str], facts: Facts) -> list[Finding]:
    """Say where a CDI specification names other cards than there are: indices move when a card drops."""
    there = {gpu["uuid"] for gpu in facts["gpus"] if gpu["uuid"]}
    if not named or not there or named == there or any(gpu["mig_devices"] for gpu in facts["gpus"]):
        return []
    gone, new = len(named - there), len(there - named)
    parts = [f"names {gone} that are gone" if gone else "", f"lacks {new} that are there" if new else ""]
    text = f"the CDI specification {' and '.join(part for part in parts if part)}"
    return [finding("cdi", WARNING, text, "the GPUs of this host, by UUID", ANEW)]
