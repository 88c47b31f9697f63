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
        used = [(image, image, "cdi" if access.get("cdi_on") and texts(access.get("cdi")) else "gpus", free)]
    if not used:
        why = "no deployment has GPUs on this host, and no --image is given"
        return [], [*notes, _not_tried(host, why)]
    cdi = texts(access.get("cdi"))
    return [_trial(image, name, way, cards, cdi) for image, name, way, cards in used], notes


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


def _trial(image: str, name: str, way: str, cards: Sequence[Facts], cdi: Sequence[str]) -> dict[str, object]:
    devices = [_device(gpu, way, cdi) for gpu in cards]
    return {"image": image, "name": name, "access": way, "devices": devices, "gpus": len(cards)}


def _device(gpu: Facts, way: str, cdi: Sequence[str]) -> str:
    """Name a card as the way has it: by UUID; CDI by UUID where the specification has such a device."""
    uuid = text(gpu, "uuid") or ""
    if way != "cdi":
        return uuid or str(gpu.get("index"))
    name = f"nvidia.com/gpu={uuid}"
    return name if name in cdi else f"nvidia.com/gpu={gpu.get('index')}"


def _not_tried(host: str, why: str) -> Finding:
    return Finding(host, "gpu_check", CHECK, "ok", f"not tried: {why}", EXPECTED, "")
