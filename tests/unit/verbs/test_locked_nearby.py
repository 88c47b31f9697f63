"""A deploy from a lock where hosts pass its image on, as on site and in a rehearsal of that site."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import recorded_facts as made
import test_locked
from test_locked import locked

from onprem_llm.bundle.images import REF
from onprem_llm.bundle.registry_view import write_registry
from onprem_llm.errors import InvalidError
from onprem_llm.locked import Locked
from onprem_llm.planning.plan import plan
from onprem_llm.planning.plan_images import images_in
from onprem_llm.planning.serial import from_json, to_json
from onprem_llm.planning.types import Plan
from onprem_llm.prove.site_inventory import inventory_data
from onprem_llm.spec.site import Site, parse_site

REGISTRY = "onprem-llm/registry:1"
MODEL = test_locked.MODEL + "replicas: 2\n"
GIVEN = {"fan_out": "always", "open_webui": {"enabled": False}}
OWN, LOOPBACK = "10.0.0.2:5000", "127.0.0.1:5000"


@pytest.fixture
def loaded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Lay a site out as `bundle load` does, with the registry's storage; return ref -> digest of what it serves."""
    monkeypatch.setattr(test_locked, "MODEL", MODEL)
    (folder / "model.yaml").write_text(MODEL)
    blobs = folder / "blobs"
    for path in (blobs, folder / "images"):
        path.mkdir()

    def blob(data: bytes) -> dict[str, Any]:
        sha256 = hashlib.sha256(data).hexdigest()
        (blobs / sha256).write_bytes(data)
        return {"digest": f"sha256:{sha256}", "size": len(data)}

    index: dict[str, Any] = {"manifests": []}
    for ref in (made.VLLM_IMAGE, made.GATEWAY_IMAGE):
        content = {"schemaVersion": 2, "config": blob(b"{}"), "layers": [blob(ref.encode())]}
        index["manifests"].append({**blob(json.dumps(content).encode()), "annotations": {REF: ref}})
    write_registry(index, blobs, folder / "registry")
    return {one["annotations"][REF]: one["digest"] for one in index["manifests"]}


def rehearsed(folder: Path, settings: Mapping[str, Any]) -> Site:
    """Return the settings that `prove` makes of the site's."""
    reach = {"lab-1": {"ansible_host": "10.213.0.2"}}
    data, _ = inventory_data({"lab-1": ()}, {"lab-1": {"onprem_llm_site": settings}}, reach, folder, "10.213.0.0/24")
    return parse_site(data["all"]["hosts"]["lab-1"]["onprem_llm_site"], "inventory.yml")


def planned(
    folder: Path, site: Site, digests: Mapping[str, str], facts: dict[str, Any], *, archived: bool = True
) -> tuple[Plan, Locked, Any]:
    refs = {**digests, REGISTRY: f"sha256:{'5' * 64}"}
    images = [{"ref": ref, "digest": one, "id": made.image_id(ref), "size": 1} for ref, one in refs.items()]
    lock = locked(folder, images=images)
    asked = test_locked.wanted(folder, lock, facts, site)
    if archived:
        asked = replace(asked, registry_image=made.archive(REGISTRY))
    return plan(site, asked, made.current(facts)), lock, asked


@pytest.mark.parametrize("rehearsal", [False, True], ids=["on site", "in a rehearsal"])
def test_names_on_loopback_are_the_locks_images(folder: Path, loaded: dict[str, str], rehearsal: bool) -> None:
    here = {"registry_dir": "registry", "images_dir": "images"}
    # In a rehearsal the registry of the site gives way to what the bundle brought; what hosts pass on does not.
    site = rehearsed(folder, GIVEN) if rehearsal else parse_site({**GIVEN, **here}, "test")
    facts = made.lab()
    done, lock, asked = planned(folder, site, loaded, facts)
    lock.check_plan(done, asked)
    place = f"docker.io/vllm/vllm-openai@{loaded[made.VLLM_IMAGE]}"
    assert {f"{OWN}/{place}", f"{LOOPBACK}/{place}"} <= set(images_in(done))
    assert [step.hosts for step in done.steps if step.kind == "fan_out" and "blobs" in step.orders["lab-2"]] == [
        ("lab-1", "lab-2")
    ]
    assert from_json(to_json(done), "plan.json") == done
    after = made.applied(done, facts)
    again, lock, asked = planned(folder, site, loaded, after)
    lock.check_plan(again, asked)
    assert again.is_noop


def test_a_registry_whose_own_image_nothing_brings_is_refused(folder: Path, loaded: dict[str, str]) -> None:
    site = parse_site({**GIVEN, "fan_out": "auto", "registry_dir": "registry", "images_dir": "images"}, "test")
    with pytest.raises(InvalidError, match=REGISTRY) as raised:
        planned(folder, site, loaded, made.lab(), archived=False)
    assert "images" in (raised.value.hint or "")


def test_another_image_under_a_name_on_loopback_is_refused(folder: Path, loaded: dict[str, str]) -> None:
    done, lock, asked = planned(folder, rehearsed(folder, GIVEN), loaded, made.lab())
    other = f"sha256:{'6' * 64}"
    files = json.loads(json.dumps(done.files["lab-2"]).replace(loaded[made.VLLM_IMAGE], other))
    with pytest.raises(InvalidError, match=rf"127\.0\.0\.1:5000/docker\.io/vllm/vllm-openai@{other}: .* not in"):
        lock.check_plan(replace(done, files={**done.files, "lab-2": files}), asked)
