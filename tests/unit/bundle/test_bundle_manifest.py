"""manifest.json: canonical bytes, what belongs together, what is refused."""

import json
from collections.abc import Callable
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


def refused(text: bytes) -> str:
    with pytest.raises(InvalidError) as raised:
        read_manifest(text, "/media/manifest.json")
    assert raised.value.message.startswith("/media/manifest.json: ")
    assert raised.value.hint
    return f"{raised.value.message}\n{raised.value.details}\n{raised.value.hint}"


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
    assert said in refused(data(**change))


def test_parts_are_as_long_as_the_whole() -> None:
    blobs = manifest()["blobs"]
    blobs[0]["parts"] = [{"sha256": C, "size": 2}, {"sha256": C, "size": 3}]
    volumes = [{"name": "vol-001", "contents": [B, C]}]
    assert read_manifest(data(blobs=blobs, volumes=volumes), "here").blobs[0].parts[1].size == 3
    assert "parts: only in volumes" in refused(data(blobs=blobs))
    blobs[0]["parts"].pop()
    assert "not as long as the whole" in refused(data(blobs=blobs, volumes=volumes))


@pytest.mark.parametrize("name", ["x\x1b[2J", "../x", "/x", ""])
def test_names_for_people_hold_nothing_that_a_terminal_obeys(name: str) -> None:
    blobs = manifest()["blobs"]
    blobs[0]["names"] = [name]
    assert "blobs.0.names" in refused(data(blobs=blobs))


@pytest.mark.parametrize("bad", ["x\x1b[2J", "x\nsigned by  alice", "\u202ex"])
@pytest.mark.parametrize(
    ("place", "change"),
    [
        ("made_with", lambda bad: {"made_with": bad}),
        ("platform", lambda bad: {"platform": bad}),
        ("images.0.ref", lambda bad: {"images": [{"ref": bad, "digest": f"sha256:{B}"}]}),
        ("folders.0.about.", lambda bad: {"folders": [{**manifest()["folders"][0], "about": {"id": bad}}]}),
        ("folders.0.about.", lambda bad: {"folders": [{**manifest()["folders"][0], "about": {"id": [bad]}}]}),
        ("folders.0.about.", lambda bad: {"folders": [{**manifest()["folders"][0], "about": {bad: "x"}}]}),
        ("", lambda bad: {bad: 1}),
    ],
)
def test_what_nobody_signed_is_shown_without_what_a_terminal_obeys(
    place: str, change: Callable[[str], dict[str, Any]], bad: str
) -> None:
    said = refused(data(**change(bad)))
    assert place in said
    assert bad not in said
    assert all(line.isprintable() for line in said.splitlines())


def test_text_that_is_none_is_refused() -> None:
    assert "made_with" in refused(json.dumps(manifest(made_with="\ud800")).encode())


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"schema_version": true}', b'{"\x1b": 1}']
)
def test_no_manifest_at_all(text: bytes) -> None:
    assert "not the manifest of a bundle" in refused(text)


def test_a_newer_one_says_so_whatever_else_is_in_it() -> None:
    said = refused(b'{"schema_version": 2, "blobs": "elsewhere"}')
    assert "made by a newer onprem-llm: found schema_version 2, expected 1 at most" in said
    assert "a bundle carries the one that made it" in said
    assert "not the canonical ones" in refused(json.dumps(manifest()).encode())
