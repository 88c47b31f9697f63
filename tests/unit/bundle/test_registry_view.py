"""An OCI layout as a registry's storage: the paths, the names, what is refused."""

import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.made_images import Layout, image

from onprem_llm.bundle.images import REF, read_image
from onprem_llm.bundle.registry_view import blob_path, view_of, write_registry
from onprem_llm.errors import InvalidError, OnpremError
from onprem_llm.image_names import image_name


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "bundle")


def files_of(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_every_blob_lies_once_and_each_repository_links_what_it_has(layout: Layout, tmp_path: Path) -> None:
    first = layout.add("vllm/vllm-openai:v1", image(b"shared", b"one")).removeprefix("sha256:")
    second = layout.add("ghcr.io/open-webui/open-webui:v2", image(b"shared", b"two")).removeprefix("sha256:")
    target = tmp_path / "registry"

    assert write_registry(layout.index, layout.blobs, target) == 0

    root = "docker/registry/v2"
    vllm, page = f"{root}/repositories/docker.io/vllm/vllm-openai", f"{root}/repositories/ghcr.io/open-webui/open-webui"
    for base, sha256, tag in ((vllm, first, "v1"), (page, second, "v2")):
        for link in (
            f"_manifests/revisions/sha256/{sha256}/link",
            f"_manifests/tags/{tag}/current/link",
            f"_manifests/tags/{tag}/index/sha256/{sha256}/link",
        ):
            assert (target / base / link).read_bytes() == f"sha256:{sha256}".encode()
    shared = hashlib.sha256(b"shared").hexdigest()
    for base in (vllm, page):
        assert (target / base / f"_layers/sha256/{shared}/link").read_bytes() == f"sha256:{shared}".encode()
    assert (target / f"{root}/blobs/sha256/{shared[:2]}/{shared}/data").samefile(layout.blobs / shared)
    blobs = [path for path in files_of(target) if "/blobs/" in path]
    assert len(blobs) == len(list(layout.blobs.iterdir())) == 7
    # Of one repository, what another one has is not linked.
    two = hashlib.sha256(b"two").hexdigest()
    assert not (target / vllm / f"_layers/sha256/{two}").exists()


def test_the_same_index_makes_the_same_files_and_a_second_time_none(layout: Layout, tmp_path: Path) -> None:
    layout.add("b:1", image(b"x"))
    layout.add("a:1", image(b"y"))
    one, two = tmp_path / "one", tmp_path / "two"
    write_registry(layout.index, layout.blobs, one)
    layout.index["manifests"].reverse()
    write_registry(layout.index, layout.blobs, two)

    assert files_of(one) == files_of(two)
    assert (one / "index.json").read_bytes() == (two / "index.json").read_bytes()
    before = {path: (one / path).stat().st_ctime_ns for path in files_of(one)}
    write_registry(layout.index, layout.blobs, one)
    assert {path: (one / path).stat().st_ctime_ns for path in files_of(one)} == before


def test_a_later_load_adds_and_moves_a_tag_and_takes_nothing_away(layout: Layout, tmp_path: Path) -> None:
    target = tmp_path / "registry"
    old = layout.add("a:1", image(b"old")).removeprefix("sha256:")
    other = layout.add("b:1", image(b"other")).removeprefix("sha256:")
    write_registry(layout.index, layout.blobs, target)
    later = Layout(tmp_path / "later")
    new = later.add("a:1", image(b"new")).removeprefix("sha256:")

    write_registry(later.index, later.blobs, target)

    tags = target / "docker/registry/v2/repositories/docker.io/library/a/_manifests/tags/1"
    assert (tags / "current/link").read_text() == f"sha256:{new}"
    assert {path.name for path in (tags / "index/sha256").iterdir()} == {old, new}
    index = json.loads((target / "index.json").read_text())
    assert {one["annotations"][REF]: one["digest"] for one in index["manifests"]} == {
        "a:1": f"sha256:{new}",
        "b:1": f"sha256:{other}",
    }
    assert (target / blob_path(old)).is_file()


def test_blobs_are_copied_whole_where_they_cannot_be_linked(
    layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout.add("a:1", image(b"layer" * 1000))
    monkeypatch.setattr(Path, "hardlink_to", lambda *_: (_ for _ in ()).throw(OSError(18, "cross-device")))
    target = tmp_path / "registry"

    copied = write_registry(layout.index, layout.blobs, target)

    sizes = [path.stat().st_size for path in layout.blobs.iterdir()]
    assert copied == sum(sizes)
    for blob in layout.blobs.iterdir():
        assert (target / blob_path(blob.name)).read_bytes() == blob.read_bytes()
    assert write_registry(layout.index, layout.blobs, target) == 0


def test_a_blob_that_is_damaged_on_the_way_gets_no_name(
    layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout.add("a:1", image(b"right"))
    wrong = layout.blobs / hashlib.sha256(b"right").hexdigest()
    wrong.write_bytes(b"wrong")
    monkeypatch.setattr(Path, "hardlink_to", lambda *_: (_ for _ in ()).throw(OSError(18, "cross-device")))

    with pytest.raises(OnpremError, match="found sha256"):
        write_registry(layout.index, layout.blobs, tmp_path / "registry")

    assert not (tmp_path / "registry" / blob_path(wrong.name)).exists()
    assert not (tmp_path / "registry" / "index.json").exists()


@pytest.mark.parametrize("name", ["truncated", "missing"])
def test_a_blob_that_is_not_whole_is_refused(layout: Layout, tmp_path: Path, name: str) -> None:
    layout.add("a:1", image(b"layer"))
    blob = layout.blobs / hashlib.sha256(b"layer").hexdigest()
    if name == "missing":
        blob.unlink()
    else:
        blob.write_bytes(b"lay")
    with pytest.raises(InvalidError, match=blob.name):
        write_registry(layout.index, layout.blobs, tmp_path / "registry")
    assert not (tmp_path / "registry" / "index.json").exists()


@pytest.mark.parametrize(
    ("ref", "repository", "tag"),
    [
        ("redis", "docker.io/library/redis", "latest"),
        ("redis:7", "docker.io/library/redis", "7"),
        ("docker.io/redis:7", "docker.io/library/redis", "7"),
        ("index.docker.io/library/redis:7", "docker.io/library/redis", "7"),
        ("vllm/vllm-openai:v0.11.0", "docker.io/vllm/vllm-openai", "v0.11.0"),
        ("ghcr.io/open-webui/open-webui:v0.6.5", "ghcr.io/open-webui/open-webui", "v0.6.5"),
        ("localhost/own:1", "localhost/own", "1"),
        ("registry.local:5000/team/own:1", "registry.local_5000/team/own", "1"),
        ("Registry.Local/own:1", "registry.local/own", "1"),
        ("redis@sha256:" + "0" * 64, "docker.io/library/redis", None),
        ("redis:7@sha256:" + "0" * 64, "docker.io/library/redis", "7"),
    ],
)
def test_names_are_what_docker_makes_of_them(ref: str, repository: str, tag: str | None) -> None:
    name = image_name(ref)
    assert (name.repository, name.tag) == (repository, tag)


@pytest.mark.parametrize(
    "ref",
    [
        *("", ":1", "a/../b:1", "../a", "/etc/passwd", "a//b", "A:1", "a:", "a:.1", "a b", "a@sha256:12", "-a", "a\n"),
        "h:port/a",
        *(
            "a@md5:" + "0" * 32,
            "[::1]:5000/a",
            "x.y/" + "a" * 300,
            "a:" + "b" * 129,
            "h:port/a",
            "a/b\x00",
            "x.y:123456/a",
        ),
    ],
)
def test_names_that_docker_would_not_take_are_refused(layout: Layout, ref: str) -> None:
    layout.add(ref, image(b"x"))
    with pytest.raises(InvalidError, match="image " + re.escape(repr(ref))):
        view_of(layout.index, lambda sha256: (layout.blobs / sha256).read_bytes())


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda manifest: manifest.pop("layers"), "image of one platform"),
        (lambda manifest: manifest.pop("config"), "image of one platform"),
        (lambda manifest: manifest["layers"][0].update(digest="sha256:../../etc/passwd"), "found the digest"),
        (lambda manifest: manifest["layers"][0].update(digest="sha256:" + "A" * 64), "found the digest"),
        (lambda manifest: manifest["layers"][0].update(digest="sha256:" + "a" * 64 + "\n"), "found the digest"),
        (lambda manifest: manifest["layers"][0].update(size=-1), "the size -1"),
        (lambda manifest: manifest["layers"][0].update(size=True), "the size True"),
        (lambda manifest: manifest["layers"][0].update(size="3"), "the size '3'"),
        (lambda manifest: manifest["layers"][0].update(size=float("inf")), "the size inf"),
        (lambda manifest: manifest["layers"].append("x"), "found the digest None"),
        (lambda manifest: manifest.update(mediaType="application/x-other"), "application/x-other"),
        (lambda manifest: manifest.update(mediaType={}), "found a manifest of the kind {}, version 2"),
        (lambda manifest: manifest.update(schemaVersion=1), "image of one platform"),
        (lambda manifest: manifest.update(large="x" * 4 * 1024 * 1024), "no registry takes"),
    ],
)
def test_what_is_no_image_is_refused(layout: Layout, spoil: Any, says: str) -> None:
    made = image(b"x")
    manifest = json.loads(made.manifest)
    spoil(manifest)
    layout.add("a:1", replace(made, manifest=json.dumps(manifest).encode()))
    with pytest.raises(InvalidError, match=says) as raised:
        view_of(layout.index, lambda sha256: (layout.blobs / sha256).read_bytes())
    assert "load the bundle again" in (raised.value.hint or "")
    # Where the bundle is made, and where its own image is taken out of it, it is refused alike.
    data = json.dumps(manifest).encode()
    digest = hashlib.sha256(data).hexdigest()
    with pytest.raises(InvalidError, match=says) as raised:
        read_image("a:1", f"sha256:{digest}", layout.blobs / digest)
    assert "make the lock again" in (raised.value.hint or "")


def test_a_manifest_of_another_digest_is_refused(layout: Layout) -> None:
    digest = layout.add("a:1", image(b"x")).removeprefix("sha256:")
    (layout.blobs / digest).rename(layout.blobs / ("f" * 64))
    with pytest.raises(InvalidError, match=f"found sha256:{digest}, expected the manifest of a:1"):
        read_image("a:1", f"sha256:{'f' * 64}", layout.blobs / ("f" * 64))


def test_a_ref_means_one_image(layout: Layout) -> None:
    layout.add("a:1", image(b"x"))
    layout.add("a:1", image(b"y"))
    with pytest.raises(InvalidError, match="image a:1: the index names it twice"):
        view_of(layout.index, lambda sha256: (layout.blobs / sha256).read_bytes())
