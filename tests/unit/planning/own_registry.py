"""A site whose registry is one of its own, as plans of it are asked for."""

import hashlib
from dataclasses import replace
from typing import Any

import recorded_facts as made
from planning_lab import Hosts, model

from onprem_llm.planning.plan import plan
from onprem_llm.planning.types import ImageSource, Plan, RegistryStore, Step, Wanted
from onprem_llm.probe import parse_current
from onprem_llm.spec.site import Site, parse_site

SITE = parse_site({"registry_dir": "registry", "open_webui": {"enabled": False}}, "test")
REGISTRY_IMAGE = "onprem-llm/registry:1"
ADDRESS = "10.0.0.2:5000"
OWN = "/srv/onprem-llm/registry"
BLOB = hashlib.sha256(b"layer").hexdigest()


def digest(ref: str) -> str:
    return "sha256:" + hashlib.sha256(f"manifest of {ref}".encode()).hexdigest()


def pulled(ref: str, address: str = ADDRESS) -> ImageSource:
    return ImageSource(ref, pull=f"{address}/docker.io/{ref.partition(':')[0]}@{digest(ref)}")


def store(*refs: str, size: int = 5) -> RegistryStore:
    return RegistryStore("/site/registry", {ref: digest(ref) for ref in refs}, {BLOB: size}, {"a/link": digest("x")})


def wanted(facts: Hosts, address: str = ADDRESS, content: RegistryStore | None = None, text: str = "") -> Wanted:
    item = made.deployment(text or model(), image=pulled(made.VLLM_IMAGE, address))
    base = made.wanted(facts, item)
    return replace(
        base,
        ui_image=None,
        gateway_image=pulled(made.GATEWAY_IMAGE, address),
        registry=content or store(made.VLLM_IMAGE, made.GATEWAY_IMAGE),
        registry_image=made.archive(REGISTRY_IMAGE),
    )


def planned(facts: Hosts, site: Site = SITE, **changes: Any) -> Plan:
    return plan(site, wanted(facts, **changes), parse_current(facts))


def of_kind(done: Plan, kind: str) -> Step:
    return next(step for step in done.steps if step.kind == kind)
