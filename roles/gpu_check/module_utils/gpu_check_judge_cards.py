# SPDX-License-Identifier: Apache-2.0
"""Judging GPUs that the driver shows: memory errors, partitions, what a card asks for, who is on it. Pure."""

from __future__ import annotations

from ansible.module_utils.gpu_check_findings import (
    ERROR,
    OK,
    WARNING,
    Facts,
    Finding,
    Gpu,
    about,
    finding,
    judged,
    named,
)
from ansible.module_utils.gpu_check_xids import RESET

MIB_OF_A_SCREEN = 1024  # what a desktop takes of a card that a screen hangs on
# Without these a card cannot be judged at all; a fan's sensor alone is a fan's matter.
MATTERS = ("uuid", "product_name", "total", "gpu_temp", "current_ecc", "power_draw", "instant_power_draw")
REPLACE = "Take the host out (onprem-llm host drain HOST) and have the card replaced."
RESET_FIRST = RESET[0].upper() + RESET[1:] + "."


def card_findings(facts: Facts) -> list[Finding]:
    """Return what is to be said of the GPUs themselves."""
    gpus = facts["gpus"]
    return [
        finding("gpus", OK, described(facts), "any number"),
        *_unlike(gpus),
        *_asking(gpus),
        *_unreadable(gpus),
        *_memory(gpus),
        *_partitions(gpus),
        *_modes(gpus),
        *_busy(facts),
    ]


def described(facts: Facts) -> str:
    """Return `2 x NVIDIA H100 80GB HBM3 (81559 MiB), 1 x …`, in the order in which they were found."""
    counted: dict[str, int] = {}
    for gpu in facts["gpus"]:
        text = f"{gpu['name']} ({_memory_text(gpu, facts['memory_total'])})"
        counted[text] = counted.get(text, 0) + 1
    return ", ".join(f"{count} x {text}" for text, count in counted.items())


def _memory_text(gpu: Gpu, host_memory: int | None) -> str:
    if gpu["mig_devices"]:
        sizes: dict[str, int] = {}
        for one in gpu["mig_devices"]:
            text = f"{one['memory']} MiB" if one["memory"] else "unknown"
            sizes[text] = sizes.get(text, 0) + 1
        return "MIG: " + ", ".join(f"{count} x {size}" for size, count in sizes.items())
    if gpu["memory_total"]:
        return f"{gpu['memory_total']} MiB"
    if host_memory is None:
        return "memory not said"
    return f"no memory of its own: it shares the host's {host_memory / 1024**3:.0f} GiB"


def _unlike(gpus: list[Gpu]) -> list[Finding]:
    kinds: dict[str, list[Gpu]] = {}
    for gpu in gpus:
        kinds.setdefault(
            f"{gpu['name']} {str(gpu['memory_total']) + ' MiB' if gpu['memory_total'] else ''}".strip(), []
        ).append(gpu)
    if len(kinds) < 2:
        return []
    text = "; ".join(f"{kind}: {named(those, gpus)}" for kind, those in kinds.items())
    remedy = (
        "A model over several GPUs is held to the smallest and slowest of them: keep one kind in a host, or deploy "
        "with resources.gpus: 1 there."
    )
    return [finding("gpus_alike", WARNING, text, "one kind of GPU in a host", remedy)]


def _asking(gpus: list[Gpu]) -> list[Finding]:
    text = about(gpus, lambda gpu: f"the driver asks for: {gpu['reset']}" if gpu["reset"] else None)
    return judged("gpu_reset", ERROR, text, "nothing asked for", RESET_FIRST)


def _unreadable(gpus: list[Gpu]) -> list[Finding]:
    text = about(gpus, lambda gpu: f"cannot read {', '.join(gpu['unreadable'][:4])}" if gpu["unreadable"] else None)
    bad = any(set(gpu["unreadable"]) & set(MATTERS) for gpu in gpus)
    remedy = (
        "The card is failing, or hangs: look at `journalctl -k | grep -i nvrm`; " + RESET + ". If it stays, replace it."
    )
    return judged("gpu_readings", ERROR if bad else WARNING, text, "values, not ERR! or Unknown Error", remedy)


def _memory(gpus: list[Gpu]) -> list[Finding]:
    """Judge ECC: what the card could not mend, what it has marked and what it can no longer mark."""

    def rows(gpu: Gpu, key: str) -> bool:
        return bool((gpu["remapped"] or {}).get(key))

    found: list[Finding] = []
    text = about(
        gpus, lambda gpu: f"{gpu['ecc_volatile']} since the driver was loaded" if gpu["ecc_volatile"] else None
    )
    found += judged("gpu_memory", ERROR, text and f"uncorrected memory errors: {text}", "none", RESET_FIRST)
    text = about(gpus, lambda gpu: "row remapping has failed" if rows(gpu, "failed") else None)
    found += judged("gpu_memory", ERROR, text, "bad rows are replaced by spare ones", REPLACE)
    text = about(
        gpus, lambda gpu: "too many uncorrected SRAM errors (threshold exceeded)" if gpu["sram_threshold"] else None
    )
    found += judged("gpu_memory", ERROR, text, "below NVIDIA's threshold", REPLACE)
    text = about(gpus, lambda gpu: "a row is to be remapped" if rows(gpu, "pending") else _pages(gpu))
    found += judged("gpu_memory", WARNING, text, "nothing pending", "It is done at the next reset: " + RESET + ".")
    text = about(gpus, lambda gpu: f"{gpu['ecc']} now, {gpu['ecc_pending']} after a reboot" if _changes(gpu) else None)
    found += judged(
        "gpu_ecc", WARNING, text, "ECC as it will stay", "Reboot the host, or set it back: nvidia-smi -e 1|0."
    )
    return found or [finding("gpu_memory", OK, _history(gpus), "no uncorrected errors")]


def _pages(gpu: Gpu) -> str | None:
    return "a page is to be retired" if (gpu["retired"] or {}).get("pending") else None


def _changes(gpu: Gpu) -> bool:
    return bool(gpu["ecc"] and gpu["ecc_pending"] and gpu["ecc"] != gpu["ecc_pending"])


def _history(gpus: list[Gpu]) -> str:
    """Say whether there is ECC, and what the cards have been through before."""
    states = {gpu["ecc"] for gpu in gpus}
    ecc = (
        {"Enabled": "ECC on", "Disabled": "ECC off"}.get(str(next(iter(states))), "no ECC")
        if len(states) == 1
        else "ECC on some"
    )
    past = about(gpus, lambda gpu: f"{gpu['ecc_aggregate']} in its life" if gpu["ecc_aggregate"] else None)
    return f"{ecc}, no uncorrected errors" if not past else f"{ecc}; uncorrected errors, dealt with: {past}"


def _partitions(gpus: list[Gpu]) -> list[Finding]:
    def changing(gpu: Gpu) -> str | None:
        current, pending = gpu["mig"], gpu["mig_pending"]
        return f"MIG {current} now, {pending} after a reset" if current and pending and current != pending else None

    found = judged("mig", WARNING, about(gpus, changing), "MIG as it will stay", RESET_FIRST)
    text = about(gpus, lambda gpu: "MIG is on, without an instance" if _empty(gpu) else None)
    remedy = (
        "Programs see no GPU: nvidia-smi mig -cgi PROFILES -C makes instances; nvidia-smi -i N -mig 0 switches MIG off."
    )
    found += judged("mig", WARNING, text, "instances, or MIG off", remedy)
    if any(gpu["mig_devices"] for gpu in gpus) and not found:
        found = [finding("mig", OK, about(gpus, _instances), "any")]
    return found


def _empty(gpu: Gpu) -> bool:
    return gpu["mig"] == "Enabled" and not gpu["mig_devices"]


def _instances(gpu: Gpu) -> str | None:
    count = len(gpu["mig_devices"])
    return f"{count} MIG instance{'s' if count > 1 else ''}" if count else None


def _modes(gpus: list[Gpu]) -> list[Finding]:
    text = about(gpus, lambda gpu: "persistence mode off" if gpu["persistence"] == "Disabled" else None)
    remedy = "systemctl enable --now nvidia-persistenced: without it the driver forgets its state when no program runs."
    found = judged("persistence", WARNING, text, "on", remedy)
    text = about(gpus, lambda gpu: "compute mode Prohibited" if gpu["compute_mode"] == "Prohibited" else None)
    found += judged("compute_mode", ERROR, text, "Default", "nvidia-smi -i N -c DEFAULT")
    text = about(gpus, lambda gpu: gpu["license"] if "unlicensed" in (gpu["license"] or "").lower() else None)
    remedy = "Give the guest a license (/etc/nvidia/gridd.conf, nvidia-gridd): an unlicensed vGPU is slowed down."
    return found + judged("vgpu_license", WARNING, text, "Licensed", remedy)


def _busy(facts: Facts) -> list[Finding]:
    """Return programs on the cards that are not of our projects."""

    def others(gpu: Gpu) -> str | None:
        texts = []
        for one in gpu["processes"]:
            owner = facts["owners"].get(str(one["pid"]), "")
            small = one["type"] == "G" and (one["memory"] or 0) < MIB_OF_A_SCREEN
            if owner.startswith("+") or small:
                continue
            memory = f", {one['memory']} MiB" if one["memory"] is not None else ""
            texts.append(f"{one['name']} (pid {one['pid']}{memory}{', container ' + owner if owner else ''})")
        return ", ".join(texts[:4]) + (f" and {len(texts) - 4} more" if len(texts) > 4 else "") if texts else None

    remedy = "Ask its owner and stop it, or count with less memory: `onprem-llm plan` leaves out what is in use."
    return judged("other_programs", WARNING, about(facts["gpus"], others), "onprem-llm's projects alone", remedy)
