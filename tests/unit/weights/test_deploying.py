"""A deploy of a model on a hub: from the store, or an error that says what to run."""

from pathlib import Path

import pytest
import recorded_facts as made
from memory_hub import COMMIT, SOURCE, Place

from onprem_llm.errors import InvalidError
from onprem_llm.host_moves import Sources
from onprem_llm.planning.revisions import canonical_text
from onprem_llm.planning.types import Wanted
from onprem_llm.spec.deployment import load_deployment
from onprem_llm.spec.site import Site
from onprem_llm.wanted import wanted_with


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
    asked = wanted(tmp_path)
    (item,) = [one for one in asked.deployments if one.deployment.name == "tiny"]
    assert item.weights is not None
    found = Sources(()).of(item.weights.id, SOURCE)
    assert found is not None
    assert found[0] == pulled.entry.weights()
    assert pulled.entry.commit == COMMIT
