import hashlib
import http.server
import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from .conftest import Load


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def test_keys_are_made_once_and_spread(load: Load, tmp_path: Path) -> None:
    key = load("engine_keys/engine_key")
    folder = tmp_path / "secrets"
    params: dict[str, Any] = {"path": str(folder), "names": ["tiny"], "keys": None, "state": "present"}
    assert key.run(params, False)
    made = (folder / "tiny").read_text().strip()
    assert len(made) >= 43
    assert ((folder / "tiny").stat().st_mode & 0o777, folder.stat().st_mode & 0o777) == (0o600, 0o700)
    assert not key.run(params, False)
    assert not key.run({**params, "keys": {"tiny": made}}, False)
    assert key.run({**params, "keys": {"tiny": "other"}}, False)
    assert (folder / "tiny").read_text() == "other\n"
    (folder / "tiny").chmod(0o644)
    assert key.run(params, False)
    assert (folder / "tiny").stat().st_mode & 0o777 == 0o600
    assert key.run({**params, "state": "absent"}, False)
    assert not key.run({**params, "state": "absent"}, False)


def test_an_empty_key_and_a_path_as_a_name_are_refused(load: Load, tmp_path: Path) -> None:
    key = load("engine_keys/engine_key")
    (tmp_path / "tiny").write_text("")
    params: dict[str, Any] = {"path": str(tmp_path), "names": ["tiny"], "keys": None, "state": "present"}
    with pytest.raises(key.KeyFileError, match="is empty"):
        key.run(params, False)
    with pytest.raises(key.KeyFileError, match="cannot be the name"):
        key.run({**params, "names": ["../x"]}, False)


def test_a_key_that_another_run_made_meanwhile_stays(load: Load, tmp_path: Path) -> None:
    key = load("engine_keys/engine_key")
    assert key.write(tmp_path / "tiny", "first", replace=False)
    assert not key.write(tmp_path / "tiny", "second", replace=False)
    assert (tmp_path / "tiny").read_text() == "first\n"
    assert [one.name for one in tmp_path.iterdir()] == ["tiny"]


def test_the_book(load: Load, tmp_path: Path) -> None:
    book, probe = load("book/book_record"), load("host_probe/onprem_llm_probe_state")
    root = tmp_path / "book"
    root.mkdir()
    (root / "gateway").touch()
    about = {"images": {"r": "i"}, "placement": {}, "event": {}}
    entry = {"path": str(root), "deployment": "tiny", "revision": 1, "model_yaml": "name: tiny\n", **about}
    assert book.record(entry, False)
    assert not book.record(entry, False)
    assert book.record({**entry, "revision": 2, "model_yaml": "name: tiny # 2\n"}, False)
    found = probe.book(root)
    assert found["gateway"]
    assert found["deployments"]["tiny"]["revision"] == 2
    assert found["deployments"]["tiny"]["model_yaml"] == "name: tiny # 2\n"
    assert found["deployments"]["tiny"]["images"] == {"r": "i"}
    assert (root / "tiny" / "1.yaml").stat().st_mode & 0o777 == 0o600
    assert book.remove(entry, False)
    assert not book.remove(entry, False)
    assert probe.book(root)["deployments"] == {}
    assert probe.book(root)["removed"] == {"tiny": 2}


def test_a_torn_entry_of_the_book_is_told_and_hides_no_other(load: Load, tmp_path: Path) -> None:
    probe = load("host_probe/onprem_llm_probe_state")
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "current").write_text("7\n")
    found = probe.book(tmp_path)
    assert not found["gateway"]
    assert "torn" in found["errors"][0]
    assert probe.book(tmp_path / "none") is None


def test_owners_are_one_line(load: Load) -> None:
    lock = load("book/deploy_lock")
    assert lock.plain("root@c\npid 1\x00 (deploy  ü)") == "root@c pid 1 (deploy ü)"


def manifest(folder: Path) -> list[dict[str, Any]]:
    return [
        {"path": one.name, "size": one.stat().st_size, "sha256": digest(one.read_text())}
        for one in sorted(folder.iterdir())
    ]


@pytest.fixture
def item(tmp_path: Path) -> dict[str, Any]:
    folder = tmp_path / "tiny-1"
    folder.mkdir()
    (folder / "a").write_text("first")
    (folder / "b").write_text("second")
    return {"id": "tiny-1", "path": str(folder), "files": manifest(folder), "send": ["a", "b"]}


def test_weights_are_read_once(load: Load, item: dict[str, Any]) -> None:
    weights = load("weights/weights_stamp")
    assert weights.stamp(item, set()) == (True, 2)
    assert weights.stamp(item, set()) == (False, 0)
    weights.check(item)
    (Path(item["path"]) / "a").touch()
    with pytest.raises(weights.WeightsError, match="a is not as it was checked"):
        weights.check(item)
    assert weights.stamp(item, set()) == (True, 1)


def test_wrong_weights_are_named(load: Load, item: dict[str, Any]) -> None:
    weights = load("weights/weights_stamp")
    (Path(item["path"]) / "a").write_text("FIRST")
    (Path(item["path"]) / "b").unlink()
    with pytest.raises(weights.WeightsError, match=r"a: sha256 .* instead of .*; b: No such file") as error:
        weights.stamp(item, set())
    assert "deploy again" in str(error.value)
    with pytest.raises(weights.WeightsError, match="is the shared folder mounted"):
        weights.check(item)


WANTED = {"id": "sha256:1", "ref": "repo:1", "archive": "/a/x.tar", "pull": None}


@pytest.fixture
def engine(load: Load, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Stand in for the engine: reference -> id; `docker load` brings sha256:1."""
    known: dict[str, str] = {}

    def docker(*arguments: str, limit: int = 0) -> tuple[int, str]:
        if arguments[:2] == ("image", "inspect"):
            return (0, known[arguments[-1]]) if arguments[-1] in known else (1, "no such image")
        if arguments[0] == "tag":
            known[arguments[2]] = arguments[1]
        if arguments[0] == "load":
            known.update({"sha256:1": "sha256:1", "inside:1": "sha256:1"})
            return 0, "Loaded image: inside:1"
        return 0, ""

    load("images/image_tag")  # puts module_utils in place
    import ansible.module_utils.onprem_llm_docker as command
    import ansible.module_utils.onprem_llm_images as common

    for part in (command, common):
        monkeypatch.setattr(part, "docker", docker)
    return known


def test_an_image_that_is_there_gets_its_tag(load: Load, engine: dict[str, str]) -> None:
    tag = load("images/image_tag")
    engine["sha256:1"] = "sha256:1"
    assert tag.run([WANTED], False) == (True, [])
    assert engine["repo:1"] == "sha256:1"
    assert tag.run([WANTED], False) == (False, [])


def test_what_is_missing_is_returned_with_each_archive_once(load: Load, engine: dict[str, str]) -> None:
    tag = load("images/image_tag")
    images = [WANTED, {**WANTED, "id": "sha256:2"}, {**WANTED, "archive": None, "pull": "repo@sha256:3", "id": None}]
    changed, missing = tag.run(images, False)
    assert (changed, missing) == (False, images)
    assert tag.folders(missing, "/in") == [
        {"source": "/a", "path": "/in", "files": [{"path": "x.tar"}], "send": ["x.tar"]}
    ]
    with pytest.raises(tag.ImageError, match=r"repo:1 .* is not on this host"):
        tag.run([{**WANTED, "archive": None}], False)


def test_an_archive_with_another_image_is_refused(
    load: Load, engine: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch = load("images/image_fetch")
    (tmp_path / "x.tar").touch()
    fetch.fetch([WANTED], str(tmp_path))
    assert engine["repo:1"] == "sha256:1"
    assert not (tmp_path / "x.tar").exists()
    (tmp_path / "x.tar").touch()
    with pytest.raises(fetch.ImageError, match="holds inside:1 = sha256:1; expected sha256:9"):
        fetch.fetch([{**WANTED, "id": "sha256:9"}], str(tmp_path))
    assert not (tmp_path / "x.tar").exists()


@pytest.mark.parametrize(
    ("said", "advice"),
    [
        ("unexpected EOF", "journalctl --unit docker"),
        ("Cannot connect to the Docker daemon at unix:///var/run/docker.sock.", "journalctl --unit docker"),
        ("unauthorized: authentication required", "its address and credentials"),
    ],
)
def test_a_pull_that_fails_says_where_to_look(
    load: Load, monkeypatch: pytest.MonkeyPatch, said: str, advice: str
) -> None:
    fetch = load("images/image_fetch")
    monkeypatch.setattr(fetch, "docker", lambda *words, limit: (1, said))
    with pytest.raises(fetch.ImageError, match=f"docker pull r/x@sha256:1 failed: {re.escape(said)}; .*{advice}"):
        fetch.pull("r/x@sha256:1")


@pytest.mark.parametrize(
    ("reference", "registry"),
    [
        ("vllm/vllm-openai:v1", "https://index.docker.io/v1/"),
        ("docker.io/vllm/vllm-openai:v1", "https://index.docker.io/v1/"),
        ("registry.local:5000/vllm:v1", "registry.local:5000"),
        ("localhost/vllm:v1", "localhost"),
        ("ubuntu:24.04", "https://index.docker.io/v1/"),
    ],
)
def test_the_registry_of_a_reference(load: Load, reference: str, registry: str) -> None:
    assert load("images/image_resolve").registry_of(reference) == registry


class Answers(http.server.BaseHTTPRequestHandler):
    """Answers the statuses of the list, one a request."""

    statuses: list[int]
    seen: list[tuple[str, bytes]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.seen.append((self.headers["Authorization"], body))
        self.send_response(self.statuses.pop(0))
        self.end_headers()
        self.wfile.write(b"what it said")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[tuple[str, type[Answers]]]:
    kind = type("Kind", (Answers,), {"statuses": [], "seen": []})
    one = http.server.HTTPServer(("127.0.0.1", 0), kind)
    threading.Thread(target=one.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{one.server_port}", kind
    one.shutdown()
    one.server_close()


@pytest.fixture
def readiness(load: Load, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = load("readiness/readiness")
    monkeypatch.setattr(module, "PAUSE", 0.05)
    return module


def test_readiness_waits_then_succeeds(
    readiness: ModuleType, server: tuple[str, type[Answers]], tmp_path: Path
) -> None:
    url, kind = server
    kind.statuses.extend([503, 200])
    (tmp_path / "key").write_text("the-key\n")
    params = {
        "url": url,
        "path": "/v1",
        "method": "POST",
        "body": {"a": 1},
        "status": 200,
        "timeout": 5,
        "request_timeout": 5,
    }
    assert readiness.wait({**params, "key_file": str(tmp_path / "key")})[0] == 200
    assert kind.seen[-1] == ("Bearer the-key", json.dumps({"a": 1}).encode())


def test_readiness_says_what_was_answered(readiness: ModuleType, server: tuple[str, type[Answers]]) -> None:
    url, kind = server
    kind.statuses.append(401)
    params = {"url": url, "path": "/v1", "method": "POST", "body": {}, "status": 200, "timeout": 5,
              "request_timeout": 5, "key_file": None}  # fmt: skip
    with pytest.raises(readiness.NotReadyError, match="401: what it said"):
        readiness.wait(params)
    with pytest.raises(readiness.NotReadyError, match="no answer within 0 s; the last try: ConnectionRefusedError"):
        readiness.wait({**params, "url": "http://127.0.0.1:1", "timeout": 0})


IMAGE = "sha256:" + "ab" * 32


@pytest.mark.parametrize(
    ("tags", "answer", "why"),
    [
        (["a:1"], (0, "Deleted"), None),
        (["a:1", "theirs:1"], (0, "Deleted"), "it has more tags than ours: a:1, theirs:1"),
        (
            ["a:1"],
            (1, "conflict: unable to delete ab (cannot be forced) - image has dependent child images"),
            "image has dependent child images",
        ),
    ],
)
def test_images_of_others_stay(
    load: Load, monkeypatch: pytest.MonkeyPatch, tags: list[str], answer: tuple[int, str], why: str | None
) -> None:
    module = load("images/image_remove")
    calls = []

    def docker(*words: str, **_: object) -> tuple[int, str]:
        calls.append(words)
        return (0, f"{json.dumps(tags)}\nnull") if words[1] == "inspect" else answer

    monkeypatch.setattr(module, "docker", docker)
    monkeypatch.setattr(module, "image_id", lambda wanted: wanted)
    monkeypatch.setattr(module, "used", set)
    assert module.run([IMAGE], False) == (why is None, {IMAGE: why} if why else {})
    assert not [words for words in calls if "--force" in words]


def test_a_digest_of_a_pull_does_not_hold_an_image(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    module = load("images/image_remove")
    digests = ["registry:5000/a@sha256:12"]

    def docker(*words: str, **_: object) -> tuple[int, str]:
        if words[1] == "inspect":
            return 0, f'["a:1"]\n{json.dumps(digests)}'
        if words[2] in digests:
            digests.remove(words[2])
        return (1, "conflict: image is referenced in multiple repositories") if digests else (0, "Deleted")

    monkeypatch.setattr(module, "docker", docker)
    monkeypatch.setattr(module, "image_id", lambda wanted: wanted)
    monkeypatch.setattr(module, "used", set)
    assert module.run([IMAGE], False) == (True, {})
