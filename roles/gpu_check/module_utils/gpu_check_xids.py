# SPDX-License-Identifier: Apache-2.0
"""What Xid numbers mean, and what is to be done: NVIDIA's Xid catalogue, the ones that a serving host meets.

Source: docs.nvidia.com/deploy/xid-errors/analyzing-xid-catalog.html (read in November 2026): its descriptions, and its
resolution bucket for the immediate action. Numbers that it calls unused, or of video engines, are left out.
"""

from __future__ import annotations

# Number: (description, action). The actions stand in ACTIONS.
XIDS = {
    8: ("GPU stopped processing", "program"),
    11: ("invalid or corrupted push buffer stream", "program"),
    13: ("graphics engine exception", "program"),
    25: ("invalid or illegal push buffer stream", "program"),
    31: ("GPU memory page fault", "program"),
    32: ("invalid or corrupted push buffer stream", "bus"),
    37: ("driver firmware error", "note"),
    38: ("driver firmware error", "note"),
    39: ("copy engine exception", "program"),
    40: ("copy engine exception", "program"),
    41: ("copy engine exception", "program"),
    43: ("GPU stopped processing", "note"),
    44: ("graphics engine fault during context switch", "note"),
    45: ("preemptive cleanup, due to previous errors", "note"),
    46: ("GPU stopped processing", "reset"),
    48: ("double bit ECC error", "memory"),
    54: ("auxiliary power is not connected to the GPU board", "power"),
    62: ("internal micro-controller halt", "reset"),
    63: ("GPU memory remapping event", "remapped"),
    64: ("GPU memory remapping failure", "memory"),
    66: ("illegal access by driver", "note"),
    67: ("illegal access by driver", "note"),
    69: ("graphics engine class error", "program"),
    74: ("NVLink error", "nvlink"),
    78: ("vGPU start error", "versions"),
    79: ("GPU has fallen off the bus", "power_off"),
    80: ("corrupted data sent to GPU", "program"),
    92: ("high single-bit ECC error rate", "remapped"),
    93: ("InfoROM wear limit", "note"),
    94: ("contained memory error", "contained"),
    95: ("uncontained memory error", "memory"),
    109: ("context switch timeout", "reset"),
    110: ("security fault error", "power_off"),
    119: ("GSP RPC timeout", "reset"),
    120: ("GSP error", "reset"),
    121: ("C2C link error, corrected", "note"),
    136: ("link training failed", "nvlink"),
    137: ("NVLink privilege error", "program"),
    140: ("unrecovered ECC error", "memory"),
    141: ("CUDA fast path error", "note"),
    143: ("GPU initialization error", "reset"),
    144: ("NVLink: SAW error", "nvlink"),
    145: ("NVLink: RLW error", "nvlink"),
    146: ("NVLink: TLW error", "nvlink"),
    147: ("NVLink: TREX error", "nvlink"),
    148: ("NVLink: NVLPW_CTRL error", "nvlink"),
    149: ("NVLink: NETIR error", "nvlink"),
    150: ("NVLink: MSE error", "nvlink"),
    151: ("key rotation error", "reset"),
    154: ("GPU recovery action changed", "note"),
    155: ("NVLink: link down", "nvlink"),
    156: ("resource retirement event", "reset"),
    157: ("resource retirement failure", "memory"),
    158: ("GPU fatal timeout", "reset"),
    160: ("channel retirement event", "remapped"),
    161: ("channel retirement failure", "memory"),
    167: ("PCIe fatal timeout", "power_off"),
    171: ("uncorrectable DRAM error", "memory"),
    172: ("uncorrectable SRAM error", "memory"),
}

RESET = "take the host out (onprem-llm host drain HOST), then reset the GPU (nvidia-smi --gpu-reset -i N) or reboot"
# Action: (level, what to do).
ACTIONS = {
    "note": ("ok", ""),
    "program": (
        "warning",
        "Mostly a fault of the program on it: look at its log (onprem-llm logs NAME) and at its version. Where it "
        "comes with every program and on this GPU alone, have the card looked at.",
    ),
    "bus": ("warning", "A sign of a bad PCIe link: look at the slot, the riser and the card's seat."),
    "remapped": ("warning", "The card mends itself: " + RESET + " when convenient. Watch whether it comes again."),
    "contained": ("warning", "One program was ended; others go on. When convenient, " + RESET + "."),
    "reset": ("error", RESET[0].upper() + RESET[1:] + ". If it comes back, ask the vendor."),
    "memory": ("error", RESET[0].upper() + RESET[1:] + ". If it comes back, the card is to be replaced."),
    "nvlink": (
        "error",
        "Look at nvidia-smi nvlink --status and --errorcounters; "
        + RESET
        + ". If it comes back: a link, a bridge or the "
        "GPU at its other end.",
    ),
    "power": ("error", "Power the host off and connect the card's power cable."),
    "power_off": (
        "error",
        "Power the host off (a reboot may not be enough), look at the card's seat, its power cable and its cooling, "
        "and power it on. If it comes back: another slot, then another card.",
    ),
    "versions": ("warning", "Bring the vGPU manager of the host and the driver of the guest to versions that fit."),
    "unknown": ("warning", "Look it up: docs.nvidia.com/deploy/xid-errors/analyzing-xid-catalog.html"),
}


def meaning(code: int) -> tuple:
    """Return (description, level, what to do) of an Xid."""
    description, action = XIDS.get(code, ("not in the catalogue that is known here", "unknown"))
    return (description, *ACTIONS[action])
