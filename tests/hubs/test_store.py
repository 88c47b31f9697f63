"""What has been pulled: found again, verified, mended, listed, pruned; and what a deploy makes of it."""

import json
from pathlib import Path

import pytest
from tests.hubs.conftest import Bench
from tests.hubs.places import changed_branch, flip, model_yaml, run

from onprem_llm.errors import InvalidError, OnpremError, UsageError
from onprem_llm.spec.weights_folder import check_folder
from onprem_llm.spec.weights_identity import scan_folder
from onprem_llm.weights import local


def test_a_flipped_bit_is_found_and_only_that_file_is_fetched_again(bench: Bench) -> None:
    pulled = bench.pull()
    assert "As they were pulled" in run(bench, "verify")
    flip(pulled)
    with pytest.raises(OnpremError, match="1 of the files") as raised:
        run(bench, "verify")
    assert "model-1.safetensors: found sha256" in str(raised.value.details)
    assert "chunk 0" in str(raised.value.details)
    mended = bench.pull(verify=True)
    assert mended.fetched == len(bench.files["model-1.safetensors"])
    bench.check(mended)


@pytest.mark.parametrize("hurt", ["gone", "cut", "empty", "link"])
def test_a_damaged_folder_is_noticed_by_a_plain_pull(bench: Bench, hurt: str) -> None:
    pulled = bench.pull()
    place = pulled.entry.weights() / "model-2.safetensors"
    match hurt:
        case "gone":
            place.unlink()
        case "cut" | "empty":
            place.write_bytes(place.read_bytes()[: 100 if hurt == "cut" else 0])
        case "link":
            place.unlink()
            place.symlink_to("/etc/hostname")
    again = bench.pull()
    bench.check(again)
    assert again.fetched == len(bench.files["model-2.safetensors"])


def test_damage_needs_the_hub_before_anything_is_given_up(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    revision = "a" * 40 if bench.name == "huggingface" else ""
    pulled = bench.pull(revision)
    flip(pulled)
    (pulled.entry.weights() / "model-2.safetensors").write_bytes(b"")
    bench.server.always.update({"info": "status:503", "tree": "status:503"})
    with pytest.raises(OnpremError):
        bench.pull(revision, verify=True)
    assert pulled.entry.complete
    assert bench.store.find(pulled.source) == pulled.entry
    bench.server.always.clear()
    bench.check(bench.pull(revision, verify=True))


def test_a_file_that_is_not_of_the_model_is_named_and_removed_when_asked(bench: Bench) -> None:
    pulled = bench.pull("a" * 40 if bench.name == "huggingface" else "")
    extra = pulled.entry.weights() / "nohup.out"
    extra.write_text("x")
    if bench.name == "huggingface":
        bench.server.always["info"] = "status:503"  # a commit that is whole asks nobody
    (note,) = bench.pull(pulled.source.revision).notes
    assert note.startswith(f"{extra}: not of the model")
    assert extra.exists()
    assert pulled.entry.complete
    (note,) = bench.pull(pulled.source.revision, verify=True).notes
    assert note.startswith(f"{extra}: removed")
    bench.check(bench.pull(pulled.source.revision))


def test_a_commit_that_is_there_asks_nobody(huggingface: Bench) -> None:
    huggingface.pull("a" * 40)
    before = len(huggingface.server.asked)
    huggingface.check(huggingface.pull("a" * 40))
    assert len(huggingface.server.asked) == before


def test_the_same_pull_writes_the_same_manifest(bench: Bench, tmp_path: Path) -> None:
    first = bench.pull().entry.manifest_path.read_bytes()
    run(bench, "prune", "--all", "--yes")
    assert not list(bench.store.root.glob("*/*"))
    assert bench.pull().entry.manifest_path.read_bytes() == first


def test_a_choice_of_files_has_a_place_of_its_own(bench: Bench) -> None:
    some = bench.pull(include=("*.json", "model-2*"), exclude=("tokenizer*",))
    assert [file.path for file in some.manifest.files] == ["config.json", "model-2.safetensors"]
    whole = bench.pull()
    assert whole.entry != some.entry
    listed = json.loads(run(bench, "list", "--json"))["weights"]
    assert sorted(row["files"] for row in listed) == [2, 6]
    assert all(row["revisions"] for row in listed)


def test_patterns_do_not_change_a_model_yaml(bench: Bench) -> None:
    path, _ = model_yaml(bench)
    for option in ("--include", "--exclude", "--allow"):
        with pytest.raises(UsageError, match=f"do not change {path}"):
            run(bench, "pull", str(path), option, "x")
    assert not bench.server.asked


def test_what_deploy_would_refuse_is_not_fetched(bench: Bench) -> None:
    bench.files.update({"model.gguf": b"GGUF" * 1000})
    for path in ("config.json", "model-1.safetensors", "model-2.safetensors"):
        del bench.files[path]
    with pytest.raises(InvalidError, match=r"config\.json is not among") as raised:
        bench.pull()
    assert "GGUF" in str(raised.value.hint)
    assert not bench.server.files_asked


def test_a_deploy_uses_the_store(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONPREM_LLM_WEIGHTS", str(bench.store.root))
    path, deployment = model_yaml(bench)
    with pytest.raises(InvalidError, match="has not been pulled") as raised:
        local.weights_folder(deployment, path)
    assert raised.value.hint == f"onprem-llm weights pull {path}"
    run(bench, "pull", str(path))
    folder = local.weights_folder(deployment, path)
    scanned = scan_folder(folder, bench.root / "cache")
    assert scanned.name == "Tiny"
    local.check_pulled(deployment, scanned)
    # A tag that was never pulled is not the branch that was.
    with pytest.raises(InvalidError, match="has not been pulled"):
        local.weights_folder(model_yaml(bench, ", revision: v1")[1], path)


def test_a_deploy_does_not_send_what_was_changed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONPREM_LLM_WEIGHTS", str(bench.store.root))
    path, deployment = model_yaml(bench)
    pulled = bench.pull()
    flip(pulled)
    with pytest.raises(InvalidError, match=r"model-1\.safetensors: found sha256"):
        local.check_pulled(deployment, scan_folder(pulled.entry.weights(), bench.root / "cache"))
    (pulled.entry.weights() / "config.json").unlink()
    with pytest.raises(InvalidError, match=r"config\.json: found nothing"):
        local.weights_folder(deployment, path)


def test_the_sums_of_a_pull_are_not_made_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    pulled = bench.pull()
    monkeypatch.setattr("onprem_llm.spec.weights_identity._sha256", lambda file: pytest.fail("it was read again"))
    scan_folder(pulled.entry.weights(), bench.root / "cache")


def test_pickles_and_code_need_their_names(bench: Bench) -> None:
    for path in ("model-1.safetensors", "model-2.safetensors"):
        del bench.files[path]
    with pytest.raises(InvalidError, match=r"only weights are pickled.*pytorch_model\.bin"):
        bench.pull()
    assert not [one for one in bench.server.files_asked if "pytorch" in one.path]
    pulled = bench.pull(allow=("pytorch_model.bin",))
    assert "pytorch_model.bin" in {file.path for file in pulled.manifest.files}
    assert check_folder(pulled.entry.weights(), ("pytorch_model.bin",)) == ()


def test_code_that_a_configuration_wants_is_refused_before_the_weights_come(bench: Bench) -> None:
    bench.files["config.json"] = b'{"auto_map": {"AutoModel": "modeling_tiny.Tiny"}}'
    bench.files["modeling_tiny.py"] = b"import os"
    with pytest.raises(InvalidError, match=r"config\.json \(auto_map\).*modeling_tiny\.py"):
        bench.pull()
    assert not [one for one in bench.server.files_asked if "safetensors" in one.path]
    allowed = bench.pull(allow=("modeling_tiny.py",))
    assert "modeling_tiny.py" in {file.path for file in allowed.manifest.files}
    without = bench.pull(exclude=("*.py",))
    assert "modeling_tiny.py" not in {file.path for file in without.manifest.files}


def test_a_changed_branch_is_another_commit_and_large_files_are_not_fetched_again(bench: Bench) -> None:
    first = bench.pull()
    changed_branch(bench)
    second = bench.pull()
    bench.check(second)
    assert first.entry != second.entry
    assert first.entry.complete
    assert not [one for one in bench.server.files_asked if "safetensors" in one.path]
    assert bench.store.find(first.source) == second.entry
    # They share bytes, not a fate.
    run(bench, "prune", "--keep", f"{bench.name}:owner/Tiny@{bench.store.revisions(second.entry)[0]}", "--yes")
    assert not first.entry.folder.exists()
    bench.check(second)


def test_a_file_of_another_commit_that_was_damaged_is_fetched(bench: Bench) -> None:
    first = bench.pull()
    flip(first)
    damaged = (first.entry.weights() / "model-1.safetensors").read_bytes()
    changed_branch(bench)
    bench.check(bench.pull())
    assert [one for one in bench.server.files_asked if "model-1" in one.path]
    assert not [one for one in bench.server.files_asked if "model-2" in one.path]
    assert (first.entry.weights() / "model-1.safetensors").read_bytes() == damaged
