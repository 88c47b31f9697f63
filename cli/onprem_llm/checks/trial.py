"""Which image tries a host's GPUs, and how it is given them: as the deployments there have it. Pure."""

from collections.abc import Mapping, Sequence

from onprem_llm.findings import Finding
from onprem_llm.probe_values import mapping, mappings, number, text, texts

CHECK = "engine_image"
EXPECTED = "torch sees the GPUs and multiplies right"
FREE_MIB = 1024  # what CUDA and two matrices take of a card
Facts = Mapping[str, object]


def trials(host: str, facts: Facts, image: str | None) -> tuple[list[dict[str, object]], list[Finding]]:
    """Return the trials of a host in the order's form, and a finding that says why there is none, or not of a card."""
    gpus = mappings(facts.get("gpus"))
    if not gpus:
        return [], []
    access = mapping(facts.get("access"))
    if not access.get("engine"):
        return [], [_not_tried(host, "no container engine answers on this host")]
    free = [gpu for gpu in gpus if (memory := number(gpu, "memory_free")) is None or memory >= FREE_MIB]
    full = [str(gpu.get("index")) for gpu in gpus if gpu not in free]
    notes = [_not_tried(host, f"GPU {', '.join(full)}: less than 1 GiB is free")] if full else []
    if not free:
        return [], notes
    if any(mappings(gpu.get("mig_devices")) for gpu in gpus):
        free = []  # partitions have names of their own; torch sees the first of all that are given
    used = _of_deployments(access, free)
    if not used and image is not None:
        used = [(image, image, _ways(access)[0], free)]
    if not used:
        why = "no deployment has GPUs on this host, and no --image is given"
        return [], [*notes, _not_tried(host, why)]
    return [_trial(image, name, way, cards, access) for image, name, way, cards in used], notes


def _ways(access: Facts) -> list[str]:
    """Return the ways that this host may have, the one that a deployment takes by itself first."""
    broken = texts(access.get("cdi_missing")) and "nvidia" in texts(access.get("runtimes"))
    by_cdi = ["cdi"] if access.get("cdi_on") and texts(access.get("cdi")) else []
    return ["gpus", *by_cdi] if broken else [*by_cdi, "gpus"]


def _of_deployments(access: Facts, free: Sequence[Facts]) -> list[tuple[str, str, str, list[Facts]]]:
    """Return image, its name, way and cards of the containers that have GPUs; one entry for those that are alike."""
    found: dict[tuple[str, str, str], list[Facts]] = {}
    for container in mappings(access.get("containers")):
        labels = mapping(container.get("labels"))
        way, theirs = text(labels, "gpu_access"), (text(labels, "gpus") or "").split(",")
        if way not in {"cdi", "gpus", "runtime"} or not any(theirs):
            continue
        cards = [gpu for gpu in free if text(gpu, "uuid") in theirs]
        if cards or not free:
            image = text(container, "image") or ""
            into = found.setdefault((image, text(container, "image_name") or image, way), [])
            into += [gpu for gpu in cards if gpu not in into]
    used = [gpu for cards in found.values() for gpu in cards]
    for cards in list(found.values())[:1]:
        cards += [gpu for gpu in free if gpu not in used]  # cards that no deployment has, with the first one's image
    return [(*key, cards) for key, cards in found.items()]


def _trial(image: str, name: str, way: str, cards: Sequence[Facts], access: Facts) -> dict[str, object]:
    """Return a trial; `others`, the other ways, are for where containers do not get the GPUs by this one."""
    cdi = texts(access.get("cdi"))
    by = {one: [_device(gpu, one, cdi) for gpu in cards] for one in dict.fromkeys([way, *_ways(access)])}
    others = [{"access": one, "devices": devices} for one, devices in by.items() if one != way]
    return {
        "image": image, "name": name, "access": way, "devices": by[way], "gpus": len(cards), "others": others,
    }  # fmt: skip


def _device(gpu: Facts, way: str, cdi: Sequence[str]) -> str:
    """Name a card as the way has it: by UUID; CDI by index where the specification has no other names."""
    uuid = text(gpu, "uuid") or ""
    if way != "cdi":
        return uuid or str(gpu.get("index"))
    by_uuid = any(name.startswith("nvidia.com/gpu=GPU-") for name in cdi)
    return f"nvidia.com/gpu={uuid if by_uuid else gpu.get('index')}"


def _not_tried(host: str, why: str) -> Finding:
    return Finding(host, "gpu_check", CHECK, "ok", f"not tried: {why}", EXPECTED, "")
