# SPDX-License-Identifier: Apache-2.0
"""What is to be done so that a host has a driver, told from what it has. Pure: facts in, actions out."""

from __future__ import annotations

from typing import Any, Dict, Mapping, NamedTuple

from ansible.module_utils.nvidia_driver_needs import DriverError, asked, is_old, is_unknown
from ansible.module_utils.nvidia_driver_packages import Choice, branch_of, targets
from ansible.module_utils.onprem_llm_nvidia_chips import TAKEN

Finding = Dict[str, str]
Action = Dict[str, Any]
PERSISTENCE = "nvidia-persistenced"
UNITS = {"fabric": "nvidia-fabricmanager"}


class Plan(NamedTuple):
    """Actions in their order, what a person is told, and why a reboot is wanted (nothing: it is not)."""

    actions: list[Action]
    findings: list[Finding]
    reboot: list[str]


def finding(check: str, level: str, found: str, expected: str, remedy: str = "") -> Finding:
    """Return a finding as every role of bootstrap spells it."""
    return {
        "role": "nvidia_driver",
        "check": check,
        "level": level,
        "found": found,
        "expected": expected,
        "remedy": remedy,
    }


def ours(facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the GPUs that containers on this host may get: not those that are lent, nor those that are too old."""
    return [gpu for gpu in facts["gpus"] if gpu["driver"] not in TAKEN and not is_old(gpu)]


def settled(facts: Mapping[str, Any]) -> Plan | None:
    """Return the plan of a host that needs no driver or has one that runs, which is left alone; None of any other."""
    if not ours(facts):
        return Plan([], [_none(facts), *_too_old(facts)], [])
    if facts["loaded"] is None:
        return None
    return Plan([], [*_running(facts), *_left_out(facts), *_too_old(facts)], [])


def _none(facts: Mapping[str, Any]) -> Finding:
    lent = [gpu for gpu in facts["gpus"] if gpu["driver"] in TAKEN]
    found = f"{len(lent)} NVIDIA GPU(s) are lent to virtual machines" if lent else "no NVIDIA GPU to serve on"
    return finding("nvidia_driver", "ok", f"{found}: no driver is wanted", "any")


def _too_old(facts: Mapping[str, Any]) -> list[Finding]:
    old = sorted({f"10de:{gpu['device']:04x}" for gpu in facts["gpus"] if is_old(gpu) and gpu["driver"] not in TAKEN})
    if not old:
        return []
    found = f"{', '.join(old)}: older than Maxwell, and left out"
    remedy = "No driver that a vLLM image runs on knows this card: serve on others, or on the CPU."
    return [finding("nvidia_old_gpu", "warning", found, "Maxwell or newer", remedy)]


def _running(facts: Mapping[str, Any]) -> list[Finding]:
    version = facts["loaded"]["version"]
    try:
        needs = asked(ours(facts), facts["switches"])
    except DriverError as error:  # it runs all the same
        return [{**failed(str(error)), "level": "warning"}]
    kind = "open" if facts["loaded"]["open"] else "proprietary"
    found = f"driver {version} ({kind} modules) runs, and is left alone"
    expected = f"branch {needs.branches()} for {needs.names}"
    if needs.least <= branch_of(version):
        return [finding("nvidia_driver", "ok", found, expected)]
    remedy = (
        "Remove that driver while nothing runs on the GPUs, reboot, and run bootstrap again: it installs a newer one."
    )
    return [finding("nvidia_driver", "warning", found, expected, remedy)]


def _left_out(facts: Mapping[str, Any]) -> list[Finding]:
    """Warn of GPUs that the running driver does not have, and of a next kernel without a module."""
    lost = [gpu["address"] for gpu in ours(facts) if gpu["driver"] != "nvidia"]
    findings = []
    if lost:
        remedy = (
            "Read `dmesg | grep -i nvrm` on the host: it says why. A card that fell off the bus wants a power cycle."
        )
        found = f"the driver does not have {', '.join(lost)}"
        findings.append(finding("nvidia_gpus", "warning", found, "every NVIDIA GPU on the bus", remedy))
    following = facts["newest"]
    if following not in facts["built"] and facts["running"] in facts["built"]:
        remedy = f"Install its headers and run `dkms autoinstall -k {following}` before the next reboot."
        found = f"no NVIDIA module for {following}, which boots next"
        findings.append(finding("nvidia_next_kernel", "warning", found, "a module for that kernel too", remedy))
    return findings


def for_packages(facts: Mapping[str, Any], choice: Choice, state: Mapping[str, Any]) -> Plan:
    """Return the plan that brings a host to a driver from packages.

    `state`: installed {package: version}, there (names, also of packages that are not whole), held (all that is to be
    held is), stream (enabled of dnf's module), nouveau_blocked, enabled {unit: systemd's word}, key and enrolled (what
    signs modules that are built here, and whether the firmware believes it).
    """
    actions: list[Action] = []
    wrong = [name for name in choice.instead_of if name in state["there"]]
    if wrong:
        actions.append({"do": "remove", "names": wrong})
    if choice.stream is not None and state["stream"] != choice.stream:
        actions.append({"do": "stream", "name": choice.stream})
    for why, names in choice.groups:
        missing = [name for name in names if not has(state["installed"], name)]
        if missing:
            actions.append({"do": "install", "names": missing, "why": why})
    return finished(facts, choice, state, actions)


def for_run_file(facts: Mapping[str, Any], choice: Choice, state: Mapping[str, Any], path: str) -> Plan:
    """Return the plan for a .run file: its build tools, then itself, for one kernel; DKMS builds for the other."""
    actions: list[Action] = []
    for why, names in choice.groups:
        missing = [name for name in names if not has(state["installed"], name)]
        if missing:
            actions.append({"do": "install", "names": missing, "why": why})
    if all(one["version"] != choice.version for one in facts["built"].values()):
        kernel = next(one for one in targets(facts) if one not in choice.unbuilt)
        about = {"path": path, "kind": choice.kind, "kernel": kernel, "branch": choice.branch}
        actions.append({"do": "run_file", **about})
    return finished(facts, choice, state, actions)


def has(installed: Mapping[str, str], name: str) -> bool:
    """Tell whether a package is there, in the version that the name may ask for (apt: name=version)."""
    base, _, version = name.partition("=")
    return base in installed and version in ("", installed[base])


def finished(facts: Mapping[str, Any], choice: Choice, state: Mapping[str, Any], actions: list[Action]) -> Plan:
    """Add what follows on the packages: nouveau, modules, holding, units, loading; and what a person must know."""
    installs = bool(actions)
    if not state["nouveau_blocked"]:
        actions.append({"do": "block_nouveau"})
    wanted = [kernel for kernel in targets(facts) if kernel not in choice.unbuilt]
    for kernel in wanted:
        if facts["built"].get(kernel, {}).get("version") != choice.version:
            actions.append({"do": "build", "kernel": kernel, "version": choice.version})
    if installs or not state["held"]:
        actions.append({"do": "hold"})
    units = [
        PERSISTENCE,
        *([UNITS["fabric"]] if any("fabric" in name for _, ns in choice.groups for name in ns) else []),
    ]
    actions += [
        {"do": "enable", "unit": unit} for unit in units if installs or state["enabled"].get(unit) == "disabled"
    ]
    reboot = _reboot(facts, wanted)
    locked_out = facts["secure_boot"] and state["enrolled"] is False and not choice.signed
    if not reboot and not locked_out:
        actions.append({"do": "load", "version": choice.version})
    findings = [_chosen(facts, choice), *_remarks(facts, choice)]
    if locked_out:
        findings.append(secure_boot_finding(state["key"]))
        reboot = []  # it would lead to nothing: the key is enrolled at the console, in a reboot of a person's own
    return Plan(actions, findings, reboot)


def _reboot(facts: Mapping[str, Any], wanted: list[str]) -> list[str]:
    reasons = []
    if facts["nouveau"]:
        reasons.append("the driver nouveau has the GPUs")
    if facts["running"] not in wanted:
        reasons.append(f"the driver's module is built for {', '.join(wanted)}, and {facts['running']} runs")
    return reasons


def _chosen(facts: Mapping[str, Any], choice: Choice) -> Finding:
    needs = asked(ours(facts), facts["switches"])
    found = f"driver {choice.version} ({choice.kind} modules) for {len(ours(facts))} GPU(s)"
    return finding("nvidia_driver", "ok", found, f"branch {needs.branches()} for {needs.names}")


def _remarks(facts: Mapping[str, Any], choice: Choice) -> list[Finding]:
    findings = _too_old(facts)
    if facts["running"] in choice.unbuilt or facts["newest"] in choice.unbuilt:
        found = f"no headers of {', '.join(choice.unbuilt)}: no module is built for it"
        remedy = "Boot the host with the other kernel, or bring these headers (package sources, a newer bundle)."
        findings.append(finding("nvidia_headers", "warning", found, "headers of every kernel that may boot", remedy))
    unknown = is_unknown(ours(facts))
    if unknown:
        remedy = "A newer onprem-llm may know it; the newest driver with open modules is taken."
        found = f"{', '.join(unknown)}: newer than this version knows"
        findings.append(finding("nvidia_generation", "warning", found, "a known generation", remedy))
    return findings


def secure_boot_finding(key: str) -> Finding:
    """Say how a person makes the firmware believe modules that were built on the host (MOK)."""
    remedy = (
        f"On the host (package mokutil): `mokutil --import {key}` and a password of your choice, then reboot it with "
        "its console in sight: in the blue menu choose Enroll MOK, Continue, Yes, type the password, Reboot. Then run "
        "bootstrap again. Or switch Secure Boot off in the firmware."
    )
    found = "Secure Boot is on, and the firmware does not know the key that signs modules built on this host"
    return finding("secure_boot", "warning", found, "that key enrolled, or Secure Boot off", remedy)


def failed(text: str) -> Finding:
    """Return the finding of `found A, expected B. What to do.`, as errors here are written."""
    sentence, _, remedy = text.partition(". ")
    found, _, expected = sentence.partition(", expected ")
    found = found[len("found ") :] if found.startswith("found ") else found
    return finding("nvidia_driver", "error", found, expected or "a driver that serves the GPUs", remedy)
