"""manifest.json: canonical bytes, what belongs together, what is refused."""

import json
from typing import Any

import pytest

from onprem_llm.bundle.manifest import Manifest, read_manifest
from onprem_llm.errors import InvalidError

A, B, C = "a" * 64, "b" * 64, "c" * 64


def manifest(**change: object) -> dict[str, Any]:
    return {
        "schema_version": 1, "lock_sha256": C, "made_with": "0.1.0", "platform": "linux/amd64", "expires": None,
        "base": None, "volume_size": None, "volumes": [],
        "files": [{"name": "index.json", "sha256": A, "size": 2}, {"name": "oci-layout", "sha256": B, "size": 3}],
        "blobs": [
            {"sha256": A, "size": 5, "role": "weights", "names": ["weights/m-0/m/x"], "carried": True, "parts": []},
            {"sha256": B, "size": 9, "role": "image-manifest", "names": ["images/é:1/manifest"], "carried": True,
             "parts": []},
        ],
        "images": [{"ref": "é:1", "digest": f"sha256:{B}"}],
        "folders": [{"kind": "weights", "name": "m-0", "about": {}, "files": [{"path": "m/x", "sha256": A}]}],
        **change,
    }  # fmt: skip


def data(**change: object) -> bytes:
    return json.dumps(manifest(**change), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


def test_bytes_are_the_same_whatever_the_order() -> None:
    value = json.loads(data())
    shuffled = Manifest.model_validate_json(json.dumps(dict(reversed(value.items()))))
    assert shuffled.data() == data() == read_manifest(data(), "here").data()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"blobs": list(reversed(manifest()["blobs"]))}, "sorted by sha256"),
        ({"blobs": [manifest()["blobs"][0]] * 2}, "each once"),
        ({"blobs": manifest()["blobs"][:1]}, "is named, and is no blob of it"),
        ({"files": manifest()["files"][:1]}, "expected oci-layout and index.json"),
        ({"files": [{"name": "../x", "sha256": A, "size": 2}]}, "files.0.name"),
        ({"images": manifest()["images"] * 2}, "stands twice"),
        ({"folders": manifest()["folders"] * 2}, "stands twice"),
        ({"expires": "tomorrow"}, "expires"),
        ({"lock_sha256": "x"}, "lock_sha256"),
        ({"surprise": 1}, "surprise"),
        ({"volumes": [{"name": "vol-002", "contents": [A, B]}]}, "expected vol-001"),
        ({"volumes": [{"name": "vol-001", "contents": [A]}]}, "every blob and part in one of them"),
        ({"volumes": [{"name": "vol-001", "contents": [A, B, C]}]}, "and nothing else"),
        ({"volumes": [{"name": "../../x", "contents": [A, B]}]}, "volumes.0.name"),
    ],
)
def test_what_does_not_belong_together(change: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidError) as error:
        read_manifest(data(**change), "/media/manifest.json")
    assert said in error.value.message
    assert error.value.message.startswith("/media/manifest.json: ")


def test_parts_are_as_long_as_the_whole() -> None:
    blobs = manifest()["blobs"]
    blobs[0]["parts"] = [{"sha256": C, "size": 2}, {"sha256": C, "size": 3}]
    volumes = [{"name": "vol-001", "contents": [B, C]}]
    assert read_manifest(data(blobs=blobs, volumes=volumes), "here").blobs[0].parts[1].size == 3
    with pytest.raises(InvalidError, match="parts: only in volumes"):
        read_manifest(data(blobs=blobs), "here")
    blobs[0]["parts"].pop()
    with pytest.raises(InvalidError, match="not as long as the whole"):
        read_manifest(data(blobs=blobs, volumes=volumes), "here")


@pytest.mark.parametrize("name", ["x\x1b[2J", "../x", "/x", ""])
def test_names_for_people_hold_nothing_that_a_terminal_obeys(name: str) -> None:
    blobs = manifest()["blobs"]
    blobs[0]["names"] = [name]
    with pytest.raises(InvalidError, match=r"blobs\.0\.names"):
        read_manifest(data(blobs=blobs), "here")


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"schema_version": true}'])
def test_no_manifest_at_all(text: bytes) -> None:
    with pytest.raises(InvalidError, match="not the manifest of a bundle"):
        read_manifest(text, "here")


def test_a_newer_one_says_so_whatever_else_is_in_it() -> None:
    with pytest.raises(InvalidError, match="made by a newer onprem-llm"):
        read_manifest(b'{"schema_version": 2, "blobs": "elsewhere"}', "here")
    with pytest.raises(InvalidError, match="not the canonical ones"):
        read_manifest(json.dumps(manifest()).encode(), "here")
