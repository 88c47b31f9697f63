"""Images of registries and of `docker save` archives, through the real skopeo and a real registry."""

import gzip
import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest
from tests.made_images import configuration

from onprem_llm.errors import InvalidError, OnpremError
from onprem_llm.locking.archive_images import ArchiveImages
from onprem_llm.locking.blobs import Blobs
from onprem_llm.locking.registry_images import RegistryAccess, RegistryImages

from .registry import Registry, layer

INDEX = "application/vnd.oci.image.index.v1+json"


def images(blobs: Blobs, platform: str = "linux/amd64", **access: object) -> RegistryImages:
    return RegistryImages(platform, RegistryAccess(**access), blobs)  # type: ignore[arg-type]


def refused(ref: str, blobs: Blobs, **access: object) -> str:
    with pytest.raises(InvalidError) as raised:
        images(blobs, **access).resolve(ref)
    return f"{raised.value.message}\n{raised.value.hint}"


def whole(blobs: Blobs, digest: str) -> None:
    """Every blob of an image is here, and is what its name says."""
    manifest = json.loads(blobs.path(digest).read_bytes())
    for one in (manifest["config"], *manifest["layers"]):
        data = blobs.path(one["digest"]).read_bytes()
        assert (f"sha256:{hashlib.sha256(data).hexdigest()}", len(data)) == (one["digest"], one["size"])


@pytest.mark.parametrize(
    ("ref", "plain"),
    [
        ("localhost/a:1", True),
        ("localhost:5000/a:1", True),
        ("127.0.0.1:5000/a:1", True),
        ("127.8.0.1/a:1", True),
        ("[::1]:5000/a:1", True),
        ("localhost.evil.example/a:1", False),
        ("127.evil.example/a:1", False),
        ("127.0.0.1.nip.io:5000/a:1", False),
        ("localhost@sha256:" + "a" * 64, False),  # an image of that name, on docker's registry
        ("10.0.0.1:5000/a:1", False),
    ],
)
def test_only_a_registry_on_this_machine_may_do_without_tls(
    ref: str, plain: bool, blobs: Blobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What skopeo is told, by one in its place that refuses everything: these registries are not there."""
    skopeo = tmp_path / "bin/skopeo"
    skopeo.parent.mkdir()
    skopeo.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/said\nexit 1\n')
    skopeo.chmod(0o755)
    monkeypatch.setenv("PATH", str(skopeo.parent), prepend=":")
    with pytest.raises(InvalidError):
        images(blobs, authfile=tmp_path / "auth.json").resolve(ref)
    said = (tmp_path / "said").read_text().split()
    assert said[-1] == f"docker://{ref}"
    assert ("--tls-verify=false" in said) is plain


@pytest.mark.parametrize("docker", [False, True], ids=["oci", "docker"])
def test_a_list_gives_the_one_manifest_of_the_platform(registry: Registry, blobs: Blobs, docker: bool) -> None:
    name = f"lists/{'docker' if docker else 'oci'}"
    registry.index(name, "1", "arm64/v8", "amd64", docker=docker)
    ref = f"{registry.address}/{name}:1"
    amd, arm = images(blobs).resolve(ref), images(blobs, "linux/arm64").resolve(ref)
    assert amd.digest != arm.digest
    config = json.loads(blobs.path(amd.id).read_bytes())
    assert config["architecture"] == "amd64"
    manifest = json.loads(blobs.path(amd.digest).read_bytes())
    blob = [manifest["config"], *manifest["layers"]]
    assert amd.size == blobs.path(amd.digest).stat().st_size + sum(one["size"] for one in blob)
    assert images(blobs).resolve(ref) == amd


@pytest.mark.parametrize("docker", [False, True], ids=["oci", "docker"])
@pytest.mark.parametrize("packed", [False, True], ids=["plain layers", "gzip"])
def test_every_blob_comes_as_it_is(registry: Registry, blobs: Blobs, docker: bool, packed: bool) -> None:
    name = f"single/{docker}-{packed}".lower()
    pushed = registry.image(name, "1", docker=docker, packed=packed)
    found = images(blobs).resolve(f"{registry.address}/{name}:1")
    assert found.digest == pushed["digest"]
    images(blobs).fetch(found)
    whole(blobs, found.digest)
    asked = registry.requests("GET", f"/v2/{name}/blobs")
    images(blobs).fetch(found)
    assert registry.requests("GET", f"/v2/{name}/blobs") == asked


def test_what_is_here_is_not_fetched_again(registry: Registry, blobs: Blobs) -> None:
    registry.image("again/one", "1")
    found = images(blobs).resolve(f"{registry.address}/again/one:1")
    images(blobs).fetch(found)
    kept = json.loads(blobs.path(found.digest).read_bytes())["layers"][0]["digest"]
    blobs.path(found.id).unlink()
    asked = registry.requests("GET", kept)
    images(blobs).fetch(found)
    whole(blobs, found.digest)
    assert registry.requests("GET", kept) == asked


def test_a_digest_is_taken_at_its_word(registry: Registry, blobs: Blobs) -> None:
    pushed = registry.image("pinned/one", "1")
    ref = f"{registry.address}/pinned/one:1@{pushed['digest']}"
    assert images(blobs).resolve(ref).digest == pushed["digest"]
    assert "manifest unknown" in refused(f"{registry.address}/pinned/one@sha256:{'0' * 64}", blobs)


def test_another_registry_may_be_asked(registry: Registry, blobs: Blobs) -> None:
    registry.image("vllm/vllm-openai", "v1")
    found = images(blobs, address=registry.address).resolve("ghcr.io/vllm/vllm-openai:v1")
    assert found.ref == "ghcr.io/vllm/vllm-openai:v1"


def test_what_is_not_there_says_what_to_do(registry: Registry, blobs: Blobs) -> None:
    registry.image("arm/only", "1", architecture="arm64")
    registry.index("arm/list", "1", "arm64")
    said = refused(f"{registry.address}/arm/only:1", blobs)
    assert "is for linux/arm64, expected linux/amd64" in said
    assert "is not there for linux/amd64; it is for linux/arm64" in refused(f"{registry.address}/arm/list:1", blobs)
    assert "docker save" in refused(f"{registry.address}/arm/only:2", blobs)
    assert "reaches the registry" in refused("127.0.0.1:1/a:1", blobs)
    said = refused("onprem-llm/gateway:9", blobs, address=registry.address)
    assert "sh images/build.sh gateway in a checkout" in said
    assert "--images-dir" in said


def test_what_a_registry_sends_must_be_what_it_promised(registry: Registry, blobs: Blobs) -> None:
    """A flipped bit in the configuration, in the manifest out of a list, and in a layer, which is never kept."""
    for name in ("config", "layer"):
        registry.image(f"damaged/{name}", "1")
    config = images(blobs).resolve(f"{registry.address}/damaged/config:1")
    layered = images(blobs).resolve(f"{registry.address}/damaged/layer:1")
    layer_digest = json.loads(blobs.path(layered.digest).read_bytes())["layers"][0]["digest"]
    index = registry.index("damaged/list", "1", "amd64")
    inner = json.loads(registry.call("GET", f"/v2/damaged/list/manifests/{index['digest']}", None, Accept=INDEX).read())
    for digest in (config.id, layer_digest, inner["manifests"][1]["digest"]):
        registry.damage(digest)
    assert "damaged/config:1 cannot be had" in refused(config.ref, Blobs(blobs.root.parent / "a"))
    assert "damaged/list:1" in refused(f"{registry.address}/damaged/list:1", Blobs(blobs.root.parent / "b"))
    with pytest.raises(InvalidError, match="damaged/layer:1 cannot be had"):
        images(blobs).fetch(layered)
    assert not blobs.has(layer_digest)


def test_credentials_are_in_a_file(closed_registry: Registry, blobs: Blobs, tmp_path: Path) -> None:
    closed_registry.image("a", "1")
    ref = f"{closed_registry.address}/a:1"
    assert "--authfile" in refused(ref, blobs)
    file = tmp_path / "auth.json"
    file.write_text(json.dumps({"auths": {closed_registry.address: {"auth": "YWxpY2U6c2VjcmV0"}}}))
    found = images(blobs, authfile=file).resolve(ref)
    images(blobs, authfile=file).fetch(found)
    whole(blobs, found.digest)


def test_without_skopeo_it_is_said(blobs: Blobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(OnpremError, match="skopeo is not on this machine"):
        images(blobs).resolve("a:1")


def saved(
    path: Path,
    *,
    config: bytes | None = None,
    pack: bool = False,
    modern: bool = False,
    tag: str = "a:1",
    text: str = "saved",
) -> Path:
    """Write an archive as `docker save` does: two images that share a layer, the second as a link to it."""
    tar = layer(text)
    config = config or configuration(tar)
    data = gzip.compress(tar, mtime=0) if pack else tar
    digest = hashlib.sha256(config).hexdigest()
    config_name = f"blobs/sha256/{digest}" if modern else f"{digest}.json"
    layer_name = f"blobs/sha256/{hashlib.sha256(data).hexdigest()}" if modern else "aa/layer.tar"
    listed = [{"Config": config_name, "RepoTags": [tag], "Layers": [layer_name]},
              {"Config": config_name, "RepoTags": ["b:1"], "Layers": ["bb/layer.tar"]}]  # fmt: skip
    with tarfile.open(path, "w") as archive:
        for name, content in (
            (config_name, config),
            (layer_name, data),
            ("manifest.json", json.dumps(listed).encode()),
        ):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        link = tarfile.TarInfo("bb/layer.tar")
        link.type, link.linkname = tarfile.SYMTYPE, "../aa/layer.tar"
        archive.addfile(link)
    return path


@pytest.mark.parametrize("modern", [False, True], ids=["docker 24", "docker 25"])
@pytest.mark.parametrize("pack", [False, True], ids=["plain", "gzip"])
def test_an_archive_becomes_blobs_the_same_each_time(
    tmp_path: Path, blobs: Blobs, modern: bool, pack: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = saved(tmp_path / "a.tar", modern=modern, pack=pack)
    found = ArchiveImages("linux/amd64", blobs).resolve("a:1", archive)
    whole(blobs, found.digest)
    assert found.id == f"sha256:{hashlib.sha256(configuration(layer('saved'))).hexdigest()}"
    other = Blobs(tmp_path / "other")
    assert ArchiveImages("linux/amd64", other).resolve("a:1", archive) == found
    assert ArchiveImages("linux/amd64", blobs).resolve("a:1", archive) == found


def test_a_layer_may_be_a_link_inside_the_archive(tmp_path: Path, blobs: Blobs) -> None:
    archive, reader = saved(tmp_path / "a.tar"), ArchiveImages("linux/amd64", blobs)
    assert reader.resolve("b:1", archive).digest == reader.resolve("a:1", archive).digest


def test_a_saved_image_and_its_pushed_self_are_one_image(tmp_path: Path, blobs: Blobs, registry: Registry) -> None:
    """skopeo reads what we made, and a registry keeps it with the same digest."""
    found = ArchiveImages("linux/amd64", blobs).resolve("a:1", saved(tmp_path / "a.tar"))
    manifest = json.loads(blobs.path(found.digest).read_bytes())
    for one in (manifest["config"], *manifest["layers"]):
        registry.blob("saved/a", blobs.path(one["digest"]).read_bytes())
    kind = {"Content-Type": str(manifest["mediaType"])}
    registry.call("PUT", "/v2/saved/a/manifests/1", blobs.path(found.digest).read_bytes(), **kind)
    pushed = images(Blobs(tmp_path / "fresh")).resolve(f"{registry.address}/saved/a:1")
    assert (pushed.digest, pushed.id, pushed.size) == (found.digest, found.id, found.size)


def test_a_damaged_archive_is_named(tmp_path: Path, blobs: Blobs) -> None:
    reader = ArchiveImages("linux/amd64", blobs)
    good = saved(tmp_path / "good.tar").read_bytes()
    flipped = bytearray(good)
    flipped[good.index(b"saved" * 20)] ^= 1
    (tmp_path / "flipped.tar").write_bytes(flipped)
    (tmp_path / "cut.tar").write_bytes(good[: len(good) // 3])
    (tmp_path / "empty.tar").write_bytes(b"")
    arm = saved(tmp_path / "arm.tar", config=configuration(layer("saved"), architecture="arm64"))
    hostile = configuration(layer("saved")).replace(b"sha256:", b"../../")
    saved(tmp_path / "hostile.tar", config=hostile)
    for name, said in {
        "flipped": "expected sha256:", "cut": "cannot be read out of it", "empty": "cannot be read out of it",
        "hostile": "expected sha256: and 64 hex digits",
    }.items():  # fmt: skip
        with pytest.raises(InvalidError, match=rf"{name}\.tar: a:1 cannot be read out of it") as raised:
            reader.resolve("a:1", tmp_path / f"{name}.tar")
        assert said in raised.value.message
    with pytest.raises(InvalidError, match="linux/arm64"):
        reader.resolve("a:1", arm)
    with pytest.raises(InvalidError, match="does not name it"):
        reader.resolve("c:1", tmp_path / "good.tar")
    assert not [path for path in blobs.root.iterdir() if path.name.startswith(".")]
