# SPDX-License-Identifier: Apache-2.0
"""What a host's GPUs, together, ask of a driver. Pure."""

from __future__ import annotations

from typing import Any, Iterable, Mapping, NamedTuple

from ansible.module_utils.onprem_llm_nvidia_chips import (
    GENERATIONS,
    NEWER,
    NVLINK5,
    OLDER,
    OPEN_FROM,
    PROPRIETARY_UNTIL,
    Needs,
    generation,
)


class DriverError(Exception):
    """No driver can be had: what was found, what was expected, what to do."""


class Asked(NamedTuple):
    """What every GPU of the host can live with: kinds of kernel modules, branches, a Fabric Manager."""

    names: str  # Ampere and Hopper
    open: bool
    proprietary: bool
    least: int
    most: int | None
    fabric: bool = False
    nvlink5: bool = False

    def kind(self, branch: int, wished: str = "auto") -> str | None:
        """Return which modules of a branch to take, open or proprietary; None where the branch has none that fit."""
        if branch < self.least or (self.most is not None and branch > self.most):
            return None
        kinds = [kind for kind, fits in (("open", self.open), ("proprietary", self.proprietary)) if fits]
        if branch > PROPRIETARY_UNTIL:
            kinds = [kind for kind in kinds if kind == "open"]
        if branch < OPEN_FROM and "proprietary" in kinds:
            kinds = ["proprietary"] if wished != "open" else kinds
        if wished != "auto":
            kinds = [kind for kind in kinds if kind == wished]
        return kinds[0] if kinds else None

    def branches(self) -> str:
        """Say which branches will do: `570 or newer`, `525 to 580`."""
        return f"{self.least} or newer" if self.most is None else f"{self.least} to {self.most}"


def asked(gpus: Iterable[dict[str, Any]], switches: int = 0) -> Asked:
    """Return what all GPUs of a host ask together. DriverError where nothing serves them all."""
    devices = [gpu["device"] for gpu in gpus]
    names = {device: generation(device) for device in devices}
    needs = sorted({GENERATIONS[name] for name in names.values()}, key=lambda one: (one.least, one.name))
    most = min((one.most for one in needs if one.most is not None), default=None)
    found = Asked(
        " and ".join(sorted({one.name for one in needs})),
        open=all(one.open for one in needs),
        proprietary=all(one.proprietary for one in needs),
        least=max(one.least for one in needs),
        most=most,
        fabric=switches > 0 or any(device in NVLINK5 for device in devices),
        nvlink5=any(device in NVLINK5 for device in devices),
    )
    if (not found.open and not found.proprietary) or (most is not None and found.least > most):
        raise DriverError(_mixed(needs))
    return found


def _mixed(needs: list[Needs]) -> str:
    older = " and ".join(one.name for one in needs if not one.open)
    newer = " and ".join(one.name for one in needs if not one.proprietary)
    return (
        f"found {older} and {newer} in one host, expected GPUs that one driver serves: the first wants proprietary "
        "kernel modules, the second open ones. Move one of them to another host and run bootstrap again"
    )


def is_old(gpu: Mapping[str, Any]) -> bool:
    """Say whether no driver that a vLLM image runs on knows a card: one for the console, say."""
    return generation(gpu["device"]) == OLDER


def is_unknown(gpus: Iterable[dict[str, Any]]) -> list[str]:
    """Return the ids of GPUs that are newer than our list, for a remark."""
    return sorted({f"10de:{gpu['device']:04x}" for gpu in gpus if generation(gpu["device"]) == NEWER})
