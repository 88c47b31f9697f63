"""onprem-llm.lock: what is read, what is refused."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from onprem_llm.errors import InvalidError
from onprem_llm.spec.lock import Lock, lock_sha256, read_lock

TEXT = "api_version: 1\nname: tiny  # café\n"
SUM = hashlib.sha256(TEXT.encode()).hexdigest()
HEX = "a" * 64


def value() -> dict[str, Any]:
    return {
        "schema_version": 1,
        "onprem_llm": "0.1.0",
        "platform": "linux/amd64",
        "expires": "2027-01-31",
        "deployments": [{"name": "tiny", "file": "tiny.yaml", "sha256": SUM, "text": TEXT, "weights": "tiny-0123"}],
        "site": {"public_port": 8080},
        "images": [{"ref": "r.local:5000/a:1", "digest": f"sha256:{HEX}", "id": f"sha256:{HEX}", "size": 3}],
        "weights": [
            {
                "source": "huggingface", "id": "a/tiny", "revision": "main", "commit": "b" * 40, "name": "tiny-0123",
                "files": [{"path": "x/a.safetensors", "size": 1, "sha256": HEX}],
            }
        ],
        "packages": [
            {
                "os": "debian", "release": "13", "codename": "trixie", "architecture": "amd64",
                "kernels": ["6.12-amd64"],
                "files": [{"name": "libc6", "version": "2.41-12", "architecture": "amd64", "filename": "libc6_1.deb",
                           "size": 1, "sha256": HEX}],
            }
        ],
        "wheels": [{"python": "3.11", "platform": "linux/amd64",
                    "files": [{"filename": "click-8-py3-none-any.whl", "size": 1, "sha256": HEX}]}],
    }  # fmt: skip


def written(path: Path, content: object) -> Path:
    file = path / "onprem-llm.lock"
    file.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return file


def refused(path: Path, content: object) -> str:
    with pytest.raises(InvalidError) as raised:
        read_lock(written(path, content))
    assert raised.value.hint
    return f"{raised.value.message}\n{raised.value.details}\n{raised.value.hint}"


def changed(place: str, new: object) -> dict[str, Any]:
    """Return the lock with one value replaced; `place` is its path, as errors write it."""
    whole: Any = value()
    *parts, last = [int(part) if part.isdigit() else part for part in place.split(".")]
    inner = whole
    for part in parts:
        inner = inner[part]
    inner[last] = new
    return dict(whole)


def test_the_bytes_are_canonical_and_come_back(tmp_path: Path) -> None:
    lock = read_lock(written(tmp_path, value()))
    assert lock.data == (json.dumps(value(), sort_keys=True, indent=1, ensure_ascii=False) + "\n").encode()
    file = written(tmp_path, lock.data.decode())
    assert read_lock(file) == lock
    assert lock_sha256(file) == hashlib.sha256(lock.data).hexdigest()
    assert read_lock(file).data == lock.data


def test_what_is_in_it_is_found_by_name(tmp_path: Path) -> None:
    lock = read_lock(written(tmp_path, value()))
    found = lock.deployment("tiny"), lock.image("r.local:5000/a:1"), lock.weights_named("tiny-0123")
    assert None not in found
    assert (lock.deployment("tin"), lock.image("a"), lock.weights_named("tiny")) == (None, None, None)


def test_a_newer_schema_says_so_and_not_what_it_does_not_know(tmp_path: Path) -> None:
    said = refused(tmp_path, {**value(), "schema_version": 2, "new": 1})
    assert "made by a newer onprem-llm: found schema_version 2" in said
    assert "update onprem-llm" in said
    assert "new:" not in said


@pytest.mark.parametrize("content", ["", "[]", "{}", "nothing", '{"schema_version": "1"}', "[" * 200_000, "\x00"])
def test_what_is_no_lock_is_told_in_one_line(tmp_path: Path, content: str) -> None:
    said = refused(tmp_path, content)
    assert "onprem-llm.lock: this is not a lock of onprem-llm" in said
    assert "onprem-llm lock MODEL_YAML" in said


def test_no_file_and_a_folder_are_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidError, match="no such file"):
        read_lock(tmp_path / "absent")
    with pytest.raises(InvalidError, match="not a lock"):
        read_lock(tmp_path)


def test_a_key_that_stands_twice_is_refused(tmp_path: Path) -> None:
    text = json.dumps(value()).replace('"platform"', '"expires": null, "platform"', 1)
    assert "'expires' stands twice" in refused(tmp_path, text)


@pytest.mark.parametrize(
    ("place", "new", "said"),
    [
        ("image", [], "image: unknown key; did you mean images?"),
        ("images.0.diggest", 1, "images.0.diggest: unknown key; did you mean digest?"),
        ("images.0.digest", "sha256:" + "A" * 64, "expected sha256: and 64 hex digits"),
        ("images.0.digest", HEX, "images.0.digest: found 'aaaa"),
        ("images.0.ref", "-v", "images.0.ref: found '-v', expected an image"),
        ("images.0.size", -1, "images.0.size: found -1"),
        ("images.0.size", "3", "images.0.size: found the text '3'"),
        ("platform", "windows/amd64", "platform: found the text 'windows/amd64'"),
        ("expires", "31.1.2027", "expires: found '31.1.2027', expected a day such as 2027-01-31"),
        ("deployments.0.file", "../tiny.yaml", "deployments.0.file: found '../tiny.yaml', which leaves the folder"),
        ("deployments.0.file", "a/tiny.yaml", "expected a name without folders"),
        ("deployments.0.text", TEXT + "#", "the lock was edited"),
        ("deployments.0.weights", "other", "weights that are not in the lock: tiny: other"),
        ("weights.0.files.0.path", "/etc/passwd", "weights.0.files.0.path: found '/etc/passwd', which is absolute"),
        ("weights.0.files.0.path", "a/../../b", "leaves the folder"),
        ("weights.0.files.0.path", "a//b", "leaves the folder, or names it twice"),
        ("weights.0.files.0.path", "a\nb", "has control characters"),
        ("weights.0.name", "..", "weights.0.name: found '..'"),
        ("weights.0.commit", "main", "weights.0.commit: found 'main', expected 40 hex digits"),
        ("weights.0.commit", None, "weights of a hub have one"),
        ("weights.0.source", "path", "those of a folder have none"),
        ("packages.0.files.0.filename", "../x.deb", "packages.0.files.0.filename: found '../x.deb'"),
        ("packages.0.files.0.name", "-o=x", "packages.0.files.0.name: found '-o=x'"),
        ("packages.0.codename", "trixie\nTrusted: yes", "packages.0.codename: found 'trixie\\nTrusted: yes', expected"),
        ("packages.0.release", "../../x", "packages.0.release: found '../../x'"),
        ("packages.0.kernels", ["6.1 amd64"], "packages.0.kernels.0: found '6.1 amd64'"),
        ("wheels.0.python", "2.7", "wheels.0.python: found '2.7'"),
        ("wheels.0.files.0.filename", "..", "wheels.0.files.0.filename: found '..'"),
    ],
)
def test_wrong_entries_name_their_path(tmp_path: Path, place: str, new: object, said: str) -> None:
    assert said in refused(tmp_path, changed(place, new))


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("deployments", "a deployment twice: tiny"),
        ("images", "an image twice: r.local:5000/a:1"),
        ("weights", "weights twice: tiny-0123"),
        ("weights.0.files", "'x/a.safetensors' stands twice"),
        ("packages", "packages twice: debian 13 amd64"),
        ("packages.0.files", "'libc6_1.deb' stands twice"),
        ("wheels", "wheels twice: 3.11"),
        ("wheels.0.files", "'click-8-py3-none-any.whl' stands twice"),
    ],
)
def test_what_stands_twice_is_refused(tmp_path: Path, place: str, said: str) -> None:
    whole: Any = value()
    inner = whole
    for part in place.split("."):
        inner = inner[int(part)] if part.isdigit() else inner[part]
    inner.append(inner[0])
    assert said in refused(tmp_path, whole)


def test_two_versions_of_a_package_are_refused(tmp_path: Path) -> None:
    whole = value()
    files = whole["packages"][0]["files"]
    files.append({**files[0], "version": "2.42", "filename": "libc6_2.deb"})
    assert "a package twice: libc6:amd64" in refused(tmp_path, whole)


def test_a_file_that_is_another_ones_folder_is_refused(tmp_path: Path) -> None:
    whole = value()
    files = whole["weights"][0]["files"]
    files.append({**files[0], "path": "x"})
    assert "'x' is a file and a folder" in refused(tmp_path, whole)


def test_what_a_newer_tool_leaves_out_has_defaults() -> None:
    least = {key: item for key, item in value().items() if key not in {"expires", "site", "schema_version"}}
    assert Lock.model_validate(least).expires is None
