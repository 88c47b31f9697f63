"""A site with a registry of its own, for the tests of images that hosts pass on."""

import hashlib
from dataclasses import replace
from typing import Any

import recorded_facts as made
from planning_lab import Hosts, model

from onprem_llm import fast_yaml
from onprem_llm.bundle.registry_view import ImageParts
from onprem_llm.planning.plan import plan
from onprem_llm.planning.types import ImageSource, Plan, RegistryStore, Step, Wanted, WantedDeployment
from onprem_llm.probe import parse_current
from onprem_llm.spec.site import Site, parse_site

REGISTRY_IMAGE = "onprem-llm/registry:1"
ADDRESS, LOOPBACK = "10.0.0.2:5000", "127.0.0.1:5000"
STORE = "/srv/onprem-llm/registry/data"
BIG = 3 * made.GIB
NEWER = "vllm/vllm-openai:v0.12.0"
THREE = model("replicas: 3\n")


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def digest(ref: str) -> str:
    return f"sha256:{sha(f'manifest of {ref}')}"


def path(ref: str) -> str:
    """Return repository@digest."""
    return f"docker.io/{ref.partition(':')[0]}@{digest(ref)}"


def pulled(ref: str, address: str = ADDRESS, **more: Any) -> ImageSource:
    return ImageSource(ref, pull=f"{address}/{path(ref)}", **more)


def store(*refs: str, size: int = BIG) -> RegistryStore:
    """Images with a layer each, of `size` bytes, and one of 7 bytes that all have."""
    blobs = {sha(f"layer of {ref}"): size for ref in refs} | {sha("shared"): 7}
    parts = {
        ref: ImageParts((sha(f"layer of {ref}"), sha("shared")), {f"links/{sha(ref)}": digest(ref)}) for ref in refs
    }
    links = {name: one for part in parts.values() for name, one in part.links.items()}
    return RegistryStore("/site/registry", {ref: digest(ref) for ref in refs}, blobs, links, parts)


ALL = store(made.VLLM_IMAGE, made.GATEWAY_IMAGE)


def site(**settings: Any) -> Site:
    return parse_site({"registry_dir": "registry", "open_webui": {"enabled": False}, **settings}, "test")


def wanted(
    facts: Hosts, text: str = THREE, content: RegistryStore = ALL, item: WantedDeployment | None = None, **changes: Any
) -> Wanted:
    ref = fast_yaml.read(text)["engine"]["image"]
    focus = item or made.deployment(text, image=pulled(ref))
    return replace(
        made.wanted(facts, focus), ui_image=None, gateway_image=pulled(made.GATEWAY_IMAGE), registry=content,
        registry_image=made.archive(REGISTRY_IMAGE), **changes,
    )  # fmt: skip


def planned(facts: Hosts, text: str = THREE, *, settings: Site | None = None, **changes: Any) -> Plan:
    return plan(settings or site(), wanted(facts, text, **changes), parse_current(facts))


def deployed(facts: Hosts, text: str = THREE, **changes: Any) -> Hosts:
    return made.applied(planned(facts, text, **changes), facts)


def again(facts: Hosts, name: str = "tiny", **change: Any) -> WantedDeployment:
    """As scale, restart and rollback hand it over: the image is the one that the book recorded, at today's address."""
    entry = parse_current(facts).book[name]
    (ref,) = entry.images
    return made.again(facts, name, image=pulled(ref), **change)


def steps(done: Plan) -> list[tuple[str, tuple[str, ...]]]:
    return [(step.kind, step.hosts) for step in done.steps]


def chain_of(done: Plan) -> Step | None:
    return next(
        (step for step in done.steps if step.kind == "fan_out" and "blobs" in next(iter(step.orders.values()))), None
    )


def names(done: Plan, project: str = "tiny") -> dict[str, str]:
    """Return host -> what compose.yaml calls the image of its replica."""
    found = {}
    for host, projects in done.files.items():
        for name, files in projects.items():
            if name.startswith(project):
                found[host] = fast_yaml.read(files["compose.yaml"])["services"]["vllm"]["image"]
    return found


def shown(done: Plan) -> list[tuple[str, str, str]]:
    return [(one.host, one.subject, one.action) for one in done.changes if one.action != "keep"]


def registries(done: Plan) -> Plan:
    return replace(done, steps=tuple(step for step in done.steps if step.kind == "registry"))


def lose_image(facts: Hosts, host: str, ref: str = made.VLLM_IMAGE) -> None:
    facts[host]["images"] = [image for image in facts[host]["images"] if ref not in image["tags"]]
    for name in [name for name in facts[host]["projects"] if name.startswith("tiny")]:
        del facts[host]["projects"][name]
