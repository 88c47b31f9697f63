# SPDX-License-Identifier: Apache-2.0
"""What is to be done so that containers can get a host's GPUs, and what a person is told. Pure."""

from __future__ import annotations

from typing import Any, Dict, Mapping

from ansible.module_utils.nvidia_toolkit_packages import LEAST, SAFE, ToolkitError
from ansible.module_utils.onprem_llm_command import dotted, numbers

Finding = Dict[str, str]
ROLE = CHECK = "nvidia_container_toolkit"
# Where the units of toolkits from 1.18 on write it, too: one file, whoever makes it anew.
SPECIFICATION = "/var/run/cdi/nvidia.yaml"
# Where NVIDIA's guide has people put it. One that is there is kept current: docker reads both.
BY_HAND = "/etc/cdi/nvidia.yaml"
EXPECTED = "the GPUs of this host by UUID, and files that are there"


def finding(level: str, found: str, expected: str, remedy: str = "", check: str = CHECK) -> Finding:
    """Return a finding as every role of bootstrap spells it."""
    return {"role": ROLE, "check": check, "level": level, "found": found, "expected": expected, "remedy": remedy}


def wants_packages(facts: Mapping[str, Any], wished: str | None) -> bool:
    """Say whether packages are installed; a toolkit that is whole and new enough is left alone."""
    if facts["toolkit"] is None or facts["lacks"]:
        return True
    if wished is not None:
        return numbers(facts["toolkit"]) != numbers(wished)
    return numbers(facts["toolkit"]) < LEAST


def toolkit_findings(facts: Mapping[str, Any]) -> list[Finding]:
    """Say which toolkit the host has now."""
    version = facts["toolkit"]
    if version is None:
        return []
    found = f"NVIDIA Container Toolkit {version}"
    if numbers(version) >= SAFE:
        return [finding("ok", found, f"{dotted(LEAST)} or newer")]
    remedy = (
        f"An image can run code of its own on the host with it (CVE-2025-23266): name {dotted(SAFE)} or newer "
        "(onprem_llm_site.nvidia_container_toolkit.version) and run bootstrap again."
    )
    return [finding("warning", found, f"{dotted(SAFE)} or newer", remedy)]


def no_gpus() -> Finding:
    """Say that nothing is to be done."""
    return finding("ok", "no NVIDIA GPU to serve on: no toolkit is wanted", "any")


def whole(now: Mapping[str, Any]) -> bool:
    """Say whether what CDI offers fits the host: nothing that it names is gone, and every card has its name."""
    if not now["files"] or now["missing"]:
        return False
    # Partitions come and go without a change of cards, and nvidia-ctk names them itself.
    return now["cards"] is None or not (_gone(now) or _new(now))


def _gone(now: Mapping[str, Any]) -> set[str]:
    """Return the GPUs that are named and not there; one with MIG on may have a name, or none."""
    return set(now["named"]) - set(now["cards"]) - set(now["mig"])


def _new(now: Mapping[str, Any]) -> set[str]:
    return set(now["cards"]) - set(now["named"])


def undivided(now: Mapping[str, Any]) -> bool:
    """Say whether there is nothing to name: MIG is on for every card, and none has a partition."""
    return bool(now["mig"]) and not now["cards"] and not now["partitions"]


def wrong(now: Mapping[str, Any]) -> str:
    """Return what is wrong with what CDI offers, for people; empty where nothing is."""
    if not now["files"]:
        return "no CDI specification of NVIDIA's GPUs"
    parts = []
    if now["missing"]:
        more = f" and {len(now['missing']) - 1} more" if len(now["missing"]) > 1 else ""
        parts.append(f"names {now['missing'][0]}{more}, which the host does not have")
    if not whole({**now, "missing": []}):
        gone, new = _gone(now), _new(now)
        parts += [f"names {len(gone)} GPU(s) that are gone"] if gone else []
        parts += [f"has no name by UUID of {len(new)} GPU(s)"] if new else []
    return f"{' and '.join(now['files'])} {' and '.join(parts)}" if parts else ""


def targets(files: list[str]) -> list[str]:
    """Return the files that are made anew; none where somebody else's program keeps them under names of its own."""
    others = [path for path in files if path not in (SPECIFICATION, BY_HAND)]
    return [] if others else [SPECIFICATION, *([BY_HAND] if BY_HAND in files else [])]


def cdi_finding(now: Mapping[str, Any]) -> Finding:
    """Judge what CDI offers at the end."""
    said = wrong(now)
    if not said:
        count = len(now["cards"] or now["named"])
        return finding("ok", f"{' and '.join(now['files'])}: {count} GPU(s) by UUID", EXPECTED, check="cdi")
    if now["mig"]:
        remedy = "Look at the partitions (nvidia-smi -L), then run bootstrap again."
        return finding("warning", f"{said}; MIG is on for {len(now['mig'])} GPU(s)", EXPECTED, remedy, check="cdi")
    others = [path for path in now["files"] if path not in (SPECIFICATION, BY_HAND)]
    remedy = f"Have what wrote {' and '.join(others)} make it anew, or remove it and run bootstrap again."
    if others:
        return finding("warning", said, EXPECTED, remedy, check="cdi")
    raise ToolkitError(
        f"found that {said}, after nvidia-ctk had made it anew, expected {EXPECTED}. Run `nvidia-ctk --debug cdi "
        "generate` on the host and mend what it names, then run bootstrap again"
    )


def later(driver_error: str) -> Finding:
    """Say that the specification waits for the driver, as after an installation that wants a reboot."""
    found = f"no driver that runs yet ({driver_error or 'its module is not loaded'})"
    return finding("ok", f"{found}: the CDI specification is made at the next boot", "any", check="cdi")


def without_partitions(now: Mapping[str, Any]) -> Finding:
    """Say that containers get none of the cards until somebody divides them."""
    found = f"MIG is on for {len(now['mig'])} GPU(s), and there is no partition: containers get none of them"
    remedy = "Make partitions (nvidia-smi mig -cgi ... -C) or switch MIG off (nvidia-smi -mig 0), then bootstrap again."
    return finding("warning", found, "partitions, or MIG off", remedy, check="cdi")


def failed(text: str) -> Finding:
    """Return the finding of `found A, expected B. What to do.`, as errors here are written."""
    sentence, _, remedy = text.partition(". ")
    found, _, expected = sentence.partition(", expected ")
    found = found[len("found ") :] if found.startswith("found ") else found
    return finding("error", found, expected or "containers that can get the host's GPUs", remedy)
