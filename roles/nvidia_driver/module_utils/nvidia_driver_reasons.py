# SPDX-License-Identifier: Apache-2.0
"""Why a driver that is installed does not load, from what modprobe and the kernel say. Pure.

The kernel's lines are those of NVIDIA's own module (github.com/NVIDIA/open-gpu-kernel-modules, kernel-open/nvidia).
"""

from __future__ import annotations

import re
from typing import NamedTuple


class Reason(NamedTuple):
    """What was found, and what to do."""

    found: str
    remedy: str


# Pattern in modprobe's words or the kernel's log, what it means, what to do. The first that fits counts.
REASONS = (
    (
        r"Key was rejected by service|Required key not available|Loading of (?:unsigned )?module .*(?:is )?rejected",
        "Secure Boot refuses the module: the firmware does not know the key that signed it",
        "Enroll the key (`mokutil --import KEY`, reboot, Enroll MOK at the console) or switch Secure Boot off in the "
        "firmware, then run bootstrap again.",
    ),
    (
        r"required GPU System Processor",
        "the open kernel modules, and a GPU older than Turing, which they cannot drive",
        "Set onprem_llm_site.nvidia_driver.kernel_modules to proprietary, remove the open modules' package, and run "
        "bootstrap again.",
    ),
    (
        r"requires use of the NVIDIA open kernel modules",
        "the proprietary kernel modules, and a GPU that the open ones alone can drive",
        "Set onprem_llm_site.nvidia_driver.kernel_modules to open, remove the proprietary modules' package, and run "
        "bootstrap again.",
    ),
    (
        r"supported through the NVIDIA (\S+) Legacy drivers",
        "a GPU that this driver no longer knows",
        "Choose an older branch (onprem_llm_site.nvidia_driver.branch), at most 580 for Maxwell, Pascal and Volta, and "
        "run bootstrap again.",
    ),
    (
        r"is not supported by the\s+(?:NVRM:\s+)?NVIDIA \S+ driver release|no NVIDIA GPU found|No NVIDIA GPU found",
        "a GPU that this driver does not know yet, or that does not answer",
        "Choose a newer branch (onprem_llm_site.nvidia_driver.branch); if the branch is right, power the host off and "
        "on.",
    ),
    (
        r"already bound|conflicting non-NVIDIA kernel module|rivafb, nvidiafb, or nouveau",
        "another driver (nouveau) that has the GPUs",
        "Reboot the host: nouveau is blocked from the next boot on.",
    ),
    (
        r"Module nvidia\S* not found|could not find module",
        "no NVIDIA module for the kernel that runs",
        "Install the headers of that kernel (`uname -r`) and run `dkms autoinstall`, or reboot into a kernel that has "
        "one.",
    ),
    (
        r"Exec format error|Invalid module format|disagrees about version|version magic",
        "a module that was built for another kernel",
        "Install the headers of the kernel that runs and run `dkms autoinstall --force`, or reboot.",
    ),
    (
        r"fallen off the bus|RmInitAdapter failed",
        "a GPU that does not answer",
        "Power the host off and on; if it comes back, look at the card's seat, its power and its temperature.",
    ),
)


def reason(said: str, log: str) -> Reason | None:
    """Return why the module did not load, or None where nothing known is said."""
    for pattern, found, remedy in REASONS:
        if re.search(pattern, said) or re.search(pattern, log):
            return Reason(found, remedy)
    return None
