# SPDX-License-Identifier: Apache-2.0
"""NVIDIA's GPUs by PCI device id: the generation of each, and what one asks of a driver. Data, with sources."""

from __future__ import annotations

from typing import NamedTuple

TAKEN = ("vfio-pci", "pci-stub")  # the kernel's drivers of a card that is lent to a virtual machine: it is not ours
OLDER = "older"
# First and last device id, generation. The PCI ID Repository (pci.ids of 2026-08-22): its names begin with the chip,
# GM and GP and so on. Ids between two known ones of a generation are taken for that generation too.
RANGES = (
    (0x0000, 0x133F, OLDER),  # Kepler and before: no driver that a vLLM image runs on knows them
    (0x1340, 0x15BF, "maxwell"),
    (0x15C0, 0x15FF, "pascal"),
    (0x1600, 0x16FF, "maxwell"),
    (0x1700, 0x173F, "pascal"),
    (0x1740, 0x17FF, "maxwell"),
    (0x1B00, 0x1D7F, "pascal"),
    (0x1D80, 0x1DFF, "volta"),
    (0x1E00, 0x1FFF, "turing"),
    (0x2080, 0x20FF, "ampere"),
    (0x2180, 0x21FF, "turing"),
    (0x2200, 0x22FF, "ampere"),
    (0x2300, 0x233F, "hopper"),
    (0x2340, 0x234F, "grace_hopper"),
    (0x2350, 0x23FF, "hopper"),
    (0x2400, 0x25FF, "ampere"),
    (0x2600, 0x28FF, "ada"),
    (0x2900, 0x2AFF, "blackwell"),
    (0x2B00, 0x2B7F, "blackwell_580"),  # Thor
    (0x2B80, 0x2DFF, "blackwell"),
    (0x2E00, 0x2EFF, "blackwell_580"),  # GB10
    (0x2F00, 0x2F7F, "blackwell"),
    (0x3180, 0x33FF, "blackwell_580"),  # B300 and what follows it
)
NEWER = "newer"  # than this list
FIRST_UNKNOWN = 0x2F80


class Needs(NamedTuple):
    """What a generation asks of a driver: which kernel modules can drive it, from which branch, up to which."""

    name: str
    open: bool
    proprietary: bool
    least: int = 525
    most: int | None = None


# Open or proprietary: docs.nvidia.com/datacenter/tesla/driver-installation-guide/kernel-modules.html (open: Turing and
# newer; Grace Hopper and Blackwell: open alone). Last branch of Maxwell, Pascal and Volta: 580, says NVIDIA's support
# plan for Unix drivers. First branches: the release notes of 525 (Hopper, Ada), 570 (B200, RTX 50), 580 (B300, GB10).
# Nothing below 525 is taken: CUDA 12, which vLLM images have, begins there.
GENERATIONS = {
    "maxwell": Needs("Maxwell", open=False, proprietary=True, most=580),
    "pascal": Needs("Pascal", open=False, proprietary=True, most=580),
    "volta": Needs("Volta", open=False, proprietary=True, most=580),
    "turing": Needs("Turing", open=True, proprietary=True),
    "ampere": Needs("Ampere", open=True, proprietary=True),
    "ada": Needs("Ada", open=True, proprietary=True),
    "hopper": Needs("Hopper", open=True, proprietary=True),
    "grace_hopper": Needs("Grace Hopper", open=True, proprietary=False, least=535),
    "blackwell": Needs("Blackwell", open=True, proprietary=False, least=570),
    "blackwell_580": Needs("Blackwell", open=True, proprietary=False, least=580),
    NEWER: Needs("a GPU newer than this version of onprem-llm knows", open=True, proprietary=False, least=590),
}
# The open modules drive every card that they name from 545 on; before, those of data centres alone, and a person had to
# ask for the others (NVreg_OpenRmEnableUnsupportedGpus; README of the driver 535, chapter on open kernel modules).
OPEN_FROM = 545
# The installation guide of release 620 has no proprietary modules any more.
PROPRIETARY_UNTIL = 615
# Boards whose NVSwitches are no NVIDIA PCI device: HGX B200 and B300 show them as InfiniBand devices. They want a
# Fabric Manager, and the NVLink subnet manager beside it (docs.nvidia.com, Fabric Manager user guide).
NVLINK5 = frozenset({0x2901, 0x2909, 0x3182})


def generation(device: int) -> str:
    """Return the generation of a PCI device id: a key of GENERATIONS, `older`, or `newer` where it is not listed."""
    for first, last, name in RANGES:
        if first <= device <= last:
            return name
    return NEWER if device >= FIRST_UNKNOWN else OLDER
