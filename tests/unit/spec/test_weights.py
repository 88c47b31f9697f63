"""Folders of weights: what is whole, and which weights they are."""

import json
import os
import struct
from pathlib import Path

import pytest
from tests.made_weights import safetensors

from onprem_llm.errors import InvalidError
from onprem_llm.spec.weights_folder import check_folder
from onprem_llm.spec.weights_identity import scan_folder

WHOLE = safetensors(b"12345678")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "Tiny Model"
    root.mkdir()
    (root / "config.json").write_text("{}")
    (root / "tokenizer.json").write_text("{}")
    (root / "model.safetensors").write_bytes(WHOLE)
    return root


def problems(folder: Path) -> str:
    with pytest.raises(InvalidError) as raised:
        check_folder(folder)
    return f"{raised.value.message}\n{raised.value.details}"


def test_a_whole_folder_passes(folder: Path) -> None:
    assert check_folder(folder) == ()


def test_no_tokenizer_is_a_warning(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    assert "no tokenizer" in check_folder(folder)[0]


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    assert "found nothing, expected a folder" in problems(tmp_path / "gone")


@pytest.mark.parametrize("cut", [1, 8, 60])
def test_a_truncated_file_is_named(folder: Path, cut: int) -> None:
    (folder / "model.safetensors").write_bytes(WHOLE[:-cut])
    assert "model.safetensors: truncated" in problems(folder)


@pytest.mark.parametrize(
    "content", [b"", b"\0\0", b"\xff" * 64, struct.pack("<Q", 2) + b"[]", struct.pack("<Q", 1) + b"x"]
)
def test_a_file_that_is_no_safetensors(folder: Path, content: bytes) -> None:
    (folder / "model.safetensors").write_bytes(content)
    assert "model.safetensors: " in problems(folder)


@pytest.mark.parametrize("header", [b"[" * 300_000, b'{"a":' * 300_000])
def test_a_header_that_is_nested_without_end(folder: Path, header: bytes) -> None:
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    assert "its safetensors header is not JSON" in problems(folder)
    (folder / "config.json").write_bytes(header)
    assert "config.json: expected a JSON object" in problems(folder)


def test_a_header_that_would_take_all_memory_is_not_read(folder: Path) -> None:
    with (folder / "model.safetensors").open("wb") as stream:
        stream.write(struct.pack("<Q", 20_000_001))
        stream.truncate(40_000_000)
    assert "its header would be 20.0 MB long" in problems(folder)


def test_a_file_that_is_too_long(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(WHOLE + b"x")
    assert "too long" in problems(folder)


def test_config_json_is_needed(folder: Path) -> None:
    (folder / "config.json").write_text("not json")
    assert "config.json: expected a JSON object" in problems(folder)
    (folder / "config.json").unlink()
    assert "config.json is missing" in problems(folder)


def test_shards_of_the_index_must_be_there(folder: Path) -> None:
    index = {"weight_map": {"w": "model.safetensors", "v": "model-2.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "model.safetensors.index.json names model-2.safetensors, which is missing" in problems(folder)


def test_pickles_alone_are_refused(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    assert "no weights" in problems(folder)
    (folder / "pytorch_model.bin").write_bytes(b"x")
    assert "only pickled weights (pytorch_model.bin)" in problems(folder)


def test_pickles_that_are_allowed_by_name(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    for name in ("a.bin", "b.bin"):
        (folder / name).write_bytes(b"x")
    assert check_folder(folder, ("a.bin", "b.bin")) == ()
    with pytest.raises(InvalidError) as raised:
        check_folder(folder, ("a.bin",))
    assert "only pickled weights (b.bin)" in str(raised.value.details)
    assert "model.allow" in str(raised.value.details)
    # What was deployed before was looked at then.
    assert check_folder(folder, None) == ()


def test_all_problems_are_shown_at_once(folder: Path) -> None:
    (folder / "config.json").unlink()
    (folder / "model.safetensors").write_bytes(b"")
    text = problems(folder)
    assert "config.json" in text
    assert "model.safetensors" in text


def test_the_id_is_name_and_content(folder: Path, tmp_path: Path) -> None:
    first = scan_folder(folder, tmp_path / "cache")
    assert first.id.startswith("Tiny-Model-")
    assert first.name == "Tiny-Model"
    assert [file.path for file in first.files] == ["config.json", "model.safetensors", "tokenizer.json"]
    assert first.bytes == sum(file.size for file in first.files)
    os.utime(folder / "config.json", (1, 1))
    assert scan_folder(folder, tmp_path / "cache").id == first.id
    (folder / "config.json").write_text('{"a": 1}')
    assert scan_folder(folder, tmp_path / "cache").id != first.id


def test_hidden_files_are_no_weights(folder: Path, tmp_path: Path) -> None:
    before = scan_folder(folder, tmp_path / "cache")
    (folder / ".cache").mkdir()
    (folder / ".cache/x").write_text("x")
    (folder / ".gitattributes").write_text("x")
    assert scan_folder(folder, tmp_path / "cache") == before


def test_links_are_followed_as_hubs_keep_them(folder: Path, tmp_path: Path) -> None:
    before = scan_folder(folder, tmp_path / "cache")
    blob = tmp_path / "blobs" / "abc"
    blob.parent.mkdir()
    (folder / "model.safetensors").rename(blob)
    (folder / "model.safetensors").symlink_to(blob)
    assert scan_folder(folder, tmp_path / "cache").id == before.id
    (folder / "self").symlink_to(folder)
    assert scan_folder(folder, tmp_path / "cache").id == before.id
    blob.unlink()
    with pytest.raises(InvalidError, match="which is not there"):
        scan_folder(folder, tmp_path / "cache")


def test_sums_are_cached_for_us_alone(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "cache"
    first = scan_folder(folder, cache)
    assert (cache / "sha256.json").stat().st_mode & 0o777 == 0o600
    monkeypatch.setattr("onprem_llm.spec.weights_identity._sha256", lambda file: pytest.fail(f"hashed {file} again"))
    assert scan_folder(folder, cache) == first


def test_a_broken_cache_is_made_anew(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache/sha256.json").write_text("[1")
    assert scan_folder(folder, tmp_path / "cache").files
