"""What goes when room is made, what stays, and how much room that is."""

import json

import pytest
from tests.hubs.conftest import Bench
from tests.hubs.places import changed_branch, flip, model_yaml, run

from onprem_llm.errors import InvalidError, OnpremError, RefusedError
from onprem_llm.weights import local


def test_prune_keeps_what_is_named_and_what_is_cut_off_of_it(bench: Bench) -> None:
    path, _ = model_yaml(bench)
    kept = bench.pull()
    other = bench.pull(include=("*.json", "model-2*"))
    run(bench, "prune", "--yes")
    assert kept.entry.complete
    assert other.entry.complete
    assert "cut off" not in run(bench, "prune", "--dry-run", "--all")
    assert "Nothing to remove" in run(bench, "prune", "--keep", str(path), "--yes")
    run(bench, "prune", "--keep", str(path), "--old", "--yes")
    assert kept.entry.complete
    assert not other.entry.folder.exists()
    assert bench.store.find(kept.source) == kept.entry


def test_prune_removes_what_was_cut_off(bench: Bench) -> None:
    bench.server.always["model-1.safetensors"] = "status:404"
    with pytest.raises(OnpremError):
        bench.pull()
    assert "cut off" in run(bench, "list")
    assert "cut off before its end" in run(bench, "prune", "--yes")
    assert not list(bench.store.root.glob("*/*"))


def test_prune_keeps_an_earlier_commit_that_may_be_what_runs(huggingface: Bench) -> None:
    path, _ = model_yaml(huggingface)
    first = huggingface.pull()
    changed_branch(huggingface)
    second = huggingface.pull()
    run(huggingface, "prune", "--keep", str(path), "--yes")
    assert first.entry.complete
    assert second.entry.complete
    run(huggingface, "prune", "--keep", str(path), "--old", "--yes")
    assert not first.entry.folder.exists()
    huggingface.check(second)


def test_what_is_linked_is_counted_once(huggingface: Bench) -> None:
    first = huggingface.pull()
    changed_branch(huggingface)
    second = huggingface.pull()
    whole = json.loads(run(huggingface, "list", "--json"))
    on_disk = {p.stat().st_ino: p.stat().st_size for e in (first, second) for p in e.entry.weights().rglob("*.*")}
    assert whole["bytes_on_disk"] == sum(on_disk.values())
    both = sum(row["bytes"] for row in whole["weights"])
    assert whole["bytes_on_disk"] < both * 0.6
    # To remove one of them frees what it alone has.
    said = json.loads(run(huggingface, "prune", "--json", "--dry-run", "--all"))
    assert said["bytes_freed"] < both * 0.6
    one = json.loads(
        run(huggingface, "prune", "--json", "--dry-run", "--old", "--keep", str(model_yaml(huggingface)[0]))
    )
    assert one["bytes_freed"] < 100_000


def test_what_is_being_sent_is_neither_pruned_nor_mended(huggingface: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONPREM_LLM_WEIGHTS", str(huggingface.store.root))
    monkeypatch.setattr("onprem_llm.weights.lock.TRIES", 2)
    pulled = huggingface.pull()
    folder = pulled.entry.weights()
    flip(pulled)
    with local.sending([folder, folder]), local.sending([folder, huggingface.root / "elsewhere"]):
        assert "Nothing to remove" in run(huggingface, "prune", "--all", "--yes")
        with pytest.raises(RefusedError, match="is at it now"):
            huggingface.pull(verify=True)
        assert pulled.entry.complete
    huggingface.check(huggingface.pull(verify=True))


def test_keep_of_what_was_never_pulled_is_an_error(bench: Bench) -> None:
    bench.pull()
    with pytest.raises(InvalidError, match="owner/Other"):
        run(bench, "prune", "--yes", "--keep", f"{bench.name}:owner/Other")
