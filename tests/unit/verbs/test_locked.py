"""A deploy from a lock uses nothing else, and says what differs."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import recorded_facts as made
from click.testing import CliRunner

from onprem_llm.errors import InvalidError, UsageError
from onprem_llm.locked import Locked, read_locked
from onprem_llm.main import cli
from onprem_llm.planning.plan import plan
from onprem_llm.planning.plan_images import images_in
from onprem_llm.planning.ray_cluster import plan_up
from onprem_llm.planning.types import ImageSource, Plan, RegistryStore, Wanted
from onprem_llm.spec.deployment import Deployment, load_deployment
from onprem_llm.spec.site import Site
from onprem_llm.spec.weights_identity import scan_folder
from onprem_llm.wanted import wanted_with

MODEL = 'api_version: 1\nname: tiny\nmodel: ./Tiny\nengine: {image: "vllm/vllm-openai:v0.11.0"}\nresources: {gpus: 0}\n'
REFS = (made.VLLM_IMAGE, made.UI_IMAGE, made.GATEWAY_IMAGE)


def digest(ref: str) -> str:
    return "sha256:" + hashlib.sha256(f"manifest {ref}".encode()).hexdigest()


@pytest.fixture(autouse=True)
def _files(folder: Path) -> None:
    (folder / "model.yaml").write_text(MODEL)


def locked(folder: Path, refs: Sequence[str] = REFS, **change: Any) -> Locked:
    """Write the lock of model.yaml and its weights, as `onprem-llm lock` would."""
    found = scan_folder(folder / "Tiny", folder / "cache")
    files = [{"path": one.path, "size": one.size, "sha256": one.sha256} for one in found.files]
    value = {
        "schema_version": 1, "onprem_llm": "0.1.0", "platform": "linux/amd64",
        "deployments": [{"name": "tiny", "file": "model.yaml", "sha256": hashlib.sha256(MODEL.encode()).hexdigest(),
                         "text": MODEL, "weights": found.id}],
        "images": [{"ref": ref, "digest": digest(ref), "id": made.image_id(ref), "size": 1} for ref in refs],
        "weights": [{"source": "path", "id": "./Tiny", "revision": "", "commit": None, "name": found.id,
                     "files": files}],
        "packages": [], "wheels": [],
    }  # fmt: skip
    path = folder / "onprem-llm.lock"
    path.write_text(json.dumps(value | change))
    found = read_locked(path, folder / "model.yaml")
    assert found is not None
    return found


def wanted(folder: Path, lock: Locked, facts: dict[str, Any] | None = None, site: Site | None = None) -> Wanted:
    """Return what is wanted, as `deploy --locked` makes it."""
    model = folder / "model.yaml"
    deployment: Deployment = load_deployment(model)
    lock.check_text(deployment, model)
    current, settings = made.current(facts or made.lab()), site or Site()
    asked = wanted_with(deployment, model, settings, folder / "inventory.ini", current, "salt", lock)
    return lock.pinned(asked, settings, current)


def refused(folder: Path, lock: Locked, **more: Any) -> str:
    with pytest.raises(InvalidError) as raised:
        wanted(folder, lock, **more)
    assert raised.value.hint
    return raised.value.message


def test_images_are_those_of_the_lock(folder: Path) -> None:
    lock = locked(folder)
    asked = wanted(folder, lock)
    (item,) = asked.deployments
    assert item.image == ImageSource(made.VLLM_IMAGE, pull=f"vllm/vllm-openai@{digest(made.VLLM_IMAGE)}")
    assert asked.gateway_image == ImageSource(
        made.GATEWAY_IMAGE, pull=f"onprem-llm/gateway@{digest(made.GATEWAY_IMAGE)}"
    )
    assert asked.ui_image is not None
    assert asked.ui_image.pull == f"ghcr.io/open-webui/open-webui@{digest(made.UI_IMAGE)}"
    done = plan(Site(), asked, made.current(made.lab()))
    lock.check_plan(done, asked)
    assert {image.partition("@")[2] for image in images_in(done)} == {digest(ref) for ref in REFS}


def test_the_sites_registry_is_asked_by_digest(folder: Path) -> None:
    site = made.site(registry={"address": "registry.local:5000"})
    asked = wanted(folder, locked(folder), site=site)
    assert asked.ui_image is not None
    assert asked.ui_image.pull == f"registry.local:5000/open-webui/open-webui@{digest(made.UI_IMAGE)}"


def test_a_host_may_know_an_image_by_an_older_address_of_the_registry(folder: Path) -> None:
    facts, site = made.lab(), made.site(registry={"address": "registry.local:5000"})
    known = f"old.local:5000/vllm/vllm-openai@{digest(made.VLLM_IMAGE)}"
    for state in facts.values():
        image = {"id": made.image_id(made.VLLM_IMAGE), "tags": [made.VLLM_IMAGE], "digests": [known]}
        state["images"] = [image]
    lock = locked(folder)
    asked = wanted(folder, lock, facts, site)
    done = plan(site, asked, made.current(facts))
    assert known in set(images_in(done))
    lock.check_plan(done, asked)


def test_a_tag_that_moved_on_the_hosts_is_not_used(folder: Path) -> None:
    """A host has another image under the tag, pulled by another digest: the lock's is pulled."""
    facts = made.lab()
    other = {"id": "sha256:" + "9" * 64, "tags": [made.VLLM_IMAGE], "digests": [f"vllm/vllm-openai@sha256:{'8' * 64}"]}
    for host in facts.values():
        host["images"] = [other]
    (item,) = wanted(folder, locked(folder), facts=facts).deployments
    assert item.image == ImageSource(made.VLLM_IMAGE, pull=f"vllm/vllm-openai@{digest(made.VLLM_IMAGE)}")


def test_what_was_loaded_on_every_host_is_taken_by_its_id(folder: Path) -> None:
    facts = made.lab()
    for host in facts.values():
        host["images"] = [{"id": made.image_id(made.VLLM_IMAGE), "tags": ["renamed:1"], "digests": []}]
    (item,) = wanted(folder, locked(folder), facts=facts).deployments
    assert item.image == ImageSource(made.VLLM_IMAGE, id=made.image_id(made.VLLM_IMAGE), exact=True)


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("loaded", [False, True], ids=["pulled", "loaded by hand"])
def test_a_second_deploy_changes_nothing(folder: Path, count: int, loaded: bool) -> None:
    """However the images came: the way they are named must not change once they are there."""
    lock, facts = locked(folder), dict(list(made.lab().items())[:count])
    for host in facts.values() if loaded else ():
        host["images"] = [{"id": made.image_id(ref), "tags": [ref], "digests": []} for ref in REFS]

    def planned() -> Plan:
        return plan(Site(), wanted(folder, lock, facts=facts), made.current(facts))

    first = planned()
    assert not first.is_noop
    facts = made.applied(first, facts)
    again = planned()
    assert {one.action for one in again.changes} == {"keep"}
    assert again.is_noop


def test_an_archive_must_hold_the_locked_image(folder: Path) -> None:
    lock, current = locked(folder), made.current(made.lab())
    asked = replace(wanted(folder, lock), ui_image=made.archive(made.UI_IMAGE))
    assert lock.pinned(asked, Site(), current).ui_image == made.archive(made.UI_IMAGE)
    other = replace(asked, ui_image=made.archive(made.UI_IMAGE, as_id="sha256:" + "7" * 64))
    with pytest.raises(InvalidError, match=r"/images/.*tar holds another ghcr\.io/.*found sha256:777.*expected"):
        lock.pinned(other, Site(), current)


def test_an_image_that_is_not_in_the_lock_is_refused(folder: Path) -> None:
    assert made.UI_IMAGE in refused(folder, locked(folder, REFS[:1] + REFS[2:]))


def test_an_image_that_only_the_plan_names_is_refused(folder: Path) -> None:
    lock = locked(folder)
    asked = wanted(folder, lock)
    done = plan(Site(), asked, made.current(made.lab()))
    files = {"lab-1": {"sidecar": {"compose.yaml": "services: {a: {image: 'sidecar:1'}}"}}}
    with pytest.raises(InvalidError, match="sidecar:1: this image is not in"):
        lock.check_plan(replace(done, files={**done.files, **files}), asked)


def test_another_model_yaml_is_refused_before_any_host_is_asked(folder: Path) -> None:
    lock = locked(folder)
    (folder / "model.yaml").write_text(MODEL + "# more\n")
    assert "model.yaml is not what was locked: found sha256" in refused(folder, lock)
    (folder / "model.yaml").write_text(MODEL.replace("name: tiny", "name: other"))
    assert "other is not in" in refused(folder, lock)


@pytest.mark.parametrize("change", ["altered", "missing", "more"])
def test_other_weights_are_refused_with_the_file(folder: Path, change: str) -> None:
    lock = locked(folder)
    file = folder / "Tiny" / {"altered": "config.json", "missing": "tokenizer.json", "more": "extra.json"}[change]
    if change == "missing":
        file.unlink()
    else:
        file.write_text('{"a": 1}')
    said = refused(folder, lock)
    assert f"{file} is not what was locked" in said
    assert {"altered": "8 bytes", "missing": "found nothing", "more": "expected nothing"}[change] in said


def test_weights_beside_the_lock_go_first(folder: Path) -> None:
    """As `bundle load` lays them out; what model.yaml names need not be there."""
    lock = locked(folder)
    name = lock.lock.weights[0].name
    loaded = folder / "weights" / name / "Tiny"
    loaded.parent.mkdir(parents=True)
    (folder / "Tiny").rename(loaded)
    (item,) = wanted(folder, lock).deployments
    assert (item.source, item.weights and item.weights.id) == (str(loaded), name)


def test_another_folder_name_is_another_name_on_the_hosts(folder: Path) -> None:
    lock = locked(folder)
    (folder / "Tiny").rename(folder / "Other")
    (folder / "Tiny").symlink_to("Other")
    assert "its weights are called Other-" in refused(folder, lock)


def test_the_lock_is_named_or_lies_beside_model_yaml(folder: Path) -> None:
    locked(folder)
    for words in (["--locked"], ["--locked", str(folder / "onprem-llm.lock")], ["--locked", "-i", "absent.ini"]):
        done = CliRunner().invoke(cli, ["plan", str(folder / "model.yaml"), *words])
        assert isinstance(done.exception, InvalidError)
        assert "no such inventory" in done.exception.message
    (folder / "onprem-llm.lock").unlink()
    (folder / "inventory.ini").write_text("here ansible_connection=local\n")
    words = ["plan", str(folder / "model.yaml"), "-i", str(folder / "inventory.ini"), "--locked"]
    done = CliRunner().invoke(cli, words)
    assert isinstance(done.exception, InvalidError)
    assert done.exception.message == f"{folder / 'onprem-llm.lock'}: no such file, expected a lock of onprem-llm"


def test_the_sites_own_registry_serves_the_locked_images(folder: Path) -> None:
    lock = locked(folder, (*REFS, "onprem-llm/registry:1"))
    place, site = "10.0.0.2:5000/ghcr.io/open-webui/open-webui", made.site(registry_dir="registry")
    own = replace(
        wanted(folder, lock),
        registry=RegistryStore("/site/registry", {made.UI_IMAGE: digest(made.UI_IMAGE)}, {}, {}),
        registry_image=made.archive("onprem-llm/registry:1"),
        ui_image=ImageSource(made.UI_IMAGE, pull=f"{place}@{digest(made.UI_IMAGE)}"),
    )
    current = made.current(made.lab())
    pinned = lock.pinned(own, site, current)
    assert pinned.registry_image == made.archive("onprem-llm/registry:1")
    assert pinned.ui_image == own.ui_image
    other = replace(own, registry=RegistryStore("/site/registry", {made.UI_IMAGE: digest("other")}, {}, {}))
    with pytest.raises(InvalidError, match=f"registry serves another {made.UI_IMAGE}.*found {digest('other')}"):
        lock.pinned(other, site, current)
    with pytest.raises(InvalidError, match="onprem-llm/registry:1: this image is not in"):
        locked(folder).pinned(own, site, current)


@pytest.mark.parametrize("verb", ["deploy", "plan"])
def test_a_model_yaml_that_locked_took_for_the_lock_is_named(folder: Path, verb: str) -> None:
    (folder / "inventory.ini").write_text("gpu1\n")
    words = [verb, "-i", str(folder / "inventory.ini"), "--locked"]
    with pytest.raises(UsageError) as refused:
        CliRunner().invoke(cli, [*words, "model.yaml"], catch_exceptions=False)
    hint = f"--locked has taken model.yaml for its lock: onprem-llm {verb} model.yaml --locked"
    assert refused.value.hint == hint
    with pytest.raises(UsageError) as refused:
        CliRunner().invoke(cli, words, catch_exceptions=False)
    assert refused.value.hint == f"onprem-llm {verb} --help"


def on_ray(folder: Path, image: str) -> Wanted:
    """Ask for a deployment on a cluster whose nodes run an image of that id under the name that was locked."""
    text = f"{MODEL}backend: ray\n"
    (folder / "model.yaml").write_text(text)
    there = locked(folder).lock.deployments[0].model_dump(mode="json")
    lock = locked(folder, deployments=[there | {"text": text, "sha256": hashlib.sha256(text.encode()).hexdigest()}])
    facts, site = made.lab(gpus=0), made.site(ray={"image": made.VLLM_IMAGE})
    for state, group in zip(facts.values(), ("ray_head", "ray_worker"), strict=False):
        state["groups"], state["interfaces"] = [group], {state["addresses"][0]: "eth0"}
    current = made.current(facts)
    assert current.gateway is not None
    up = plan_up(site, current, current.gateway, made.archive(made.VLLM_IMAGE, as_id=image)).plan
    return wanted(folder, lock, facts=made.applied(up, facts), site=site)


def test_a_cluster_runs_what_was_locked(folder: Path) -> None:
    assert on_ray(folder, made.image_id(made.VLLM_IMAGE)).focus == "tiny"
    other = made.image_id("another")
    with pytest.raises(InvalidError, match=f"its Ray node runs {other[:19]}, expected {made.VLLM_IMAGE}") as raised:
        on_ray(folder, other)
    assert "cluster up" in str(raised.value.hint)
