"""A deploy of a model on a hub: from the store, or an error that says what to run."""

import shutil
from pathlib import Path

import pytest
import recorded_facts as made
from memory_hub import COMMIT, FILES, SOURCE, Place

from onprem_llm.errors import InvalidError
from onprem_llm.host_moves import Sources
from onprem_llm.output import PlainProgress
from onprem_llm.planning.revisions import canonical_text
from onprem_llm.planning.types import Plan, Step, Wanted
from onprem_llm.spec.deployment import load_deployment
from onprem_llm.spec.site import Site
from onprem_llm.wanted import wanted_with
from onprem_llm.weights.local import sources_of
from onprem_llm.weights.pull import Puller


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setenv("ONPREM_LLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("ONPREM_LLM_WEIGHTS", str(tmp_path / "store"))
    return Place(tmp_path)


def wanted(tmp_path: Path) -> Wanted:
    path = tmp_path / "model.yaml"
    path.write_text(made.MODEL.format(name="tiny", image=made.VLLM_IMAGE, gpus=1, model="H100", port=8000))
    lines = path.read_text().splitlines()
    source = "model: {source: huggingface, id: owner/Tiny}"
    path.write_text("\n".join(source if line.startswith("model:") else line for line in lines))
    current = made.current(made.lab())
    return wanted_with(load_deployment(path), path, Site(), Path("inventory.ini"), current, "salt")


def test_what_was_not_pulled_is_an_error_with_the_command(place: Place, tmp_path: Path) -> None:
    with pytest.raises(InvalidError, match="huggingface:owner/Tiny has not been pulled") as raised:
        wanted(tmp_path)
    assert raised.value.hint == f"onprem-llm weights pull {tmp_path / 'model.yaml'}"


def test_what_was_pulled_is_sent_from_the_store(place: Place, tmp_path: Path) -> None:
    pulled = place.pull()
    asked = wanted(tmp_path)
    (item,) = [one for one in asked.deployments if one.deployment.name == "tiny"]
    assert item.source == str(pulled.entry.weights())
    assert item.weights is not None
    assert item.weights.name == "Tiny"
    assert "model:\n  source: huggingface\n  id: owner/Tiny\n" in canonical_text(item.deployment, item.weights.id)


def test_replicas_that_move_get_their_weights_from_the_store(place: Place, tmp_path: Path) -> None:
    pulled = place.pull()
    identity = deployed(tmp_path)
    found = Sources(()).of(identity, SOURCE)
    assert found is not None
    assert found[0] == pulled.entry.weights()
    assert pulled.entry.commit == COMMIT


def deployed(tmp_path: Path) -> str:
    (item,) = [one for one in wanted(tmp_path).deployments if one.deployment.name == "tiny"]
    assert item.weights is not None
    return item.weights.id


def test_replicas_that_move_get_what_was_deployed_though_its_branch_has_moved(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = place.pull()
    identity = deployed(tmp_path)
    monkeypatch.setitem(FILES, "config.json", b'{"a": 1}')
    monkeypatch.setattr("memory_hub.COMMIT", "d" * 40)
    second = Puller(place.store, lambda name: place.hub, PlainProgress(), 1).pull(SOURCE)
    assert second.entry != first.entry
    found = Sources(()).of(identity, SOURCE)
    assert found is not None
    assert found[0] == first.entry.weights()
    # A damaged pull is none; a folder that was named comes first, whatever the store holds.
    copy = tmp_path / "Tiny"
    shutil.copytree(first.entry.weights(), copy)
    (first.entry.weights() / "a.safetensors").write_bytes(b"")
    second.entry.manifest_path.write_text("{")
    assert Sources(()).of(identity, SOURCE) is None
    named = Sources((copy,)).of(identity, SOURCE)
    assert named is not None
    assert named[0] == copy


def test_a_plan_that_sends_weights_says_from_where() -> None:
    order = {"weights": [{"id": "Tiny-1", "source": "/store/Tiny"}]}
    steps = (Step("stage", "", {"a": order, "b": {}}), Step("remove", "", {"a": {"weights": ["/srv/x"]}}))
    plan = Plan("", "a", "tiny", "deploy", 1, "", steps=steps)
    assert sources_of(plan) == [Path("/store/Tiny")]
