"""`onprem-llm lock`, through the command line: what is in a lock, that it is the same again, what is refused."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from tests.hubs.conftest import Bench, HubServer, tiny
from tests.made_facts import host_facts

from onprem_llm.errors import InvalidError, OnpremError, UsageError
from onprem_llm.locking.blobs import Blobs
from onprem_llm.locking.fetching import fetcher
from onprem_llm.locking.origins import origins_of
from onprem_llm.main import cli
from onprem_llm.output import PlainProgress
from onprem_llm.spec.lock import Lock, lock_sha256

from .registry import Registry, running
from .site import Site, made
from .test_images import saved

IMAGES = [
    "ghcr.io/open-webui/open-webui:v0.6.5", "onprem-llm/gateway:1", "onprem-llm/registry:1", "vllm/vllm-openai:v0.11.0",
]  # fmt: skip


@pytest.fixture
def site(tmp_path: Path, registry: Registry, cache: Path) -> Site:
    return made(tmp_path / "site", registry)


def refused(site: Site, *models: Path, more: tuple[str, ...] = (), kind: type[OnpremError] = InvalidError) -> str:
    with pytest.raises(kind) as raised:
        site.lock(*models, more=more)
    assert raised.value.hint
    assert not site.out.exists()
    return f"{raised.value.message}\n{raised.value.details}\n{raised.value.hint}"


def fetched(lock: Lock) -> Blobs:
    """Return the cache once everything of a lock's images is in it."""
    blobs = Blobs()
    digests = {image.digest.removeprefix("sha256:"): image.ref for image in lock.images}
    fetch = fetcher(lock)
    fetch(digests, PlainProgress())
    layers = {}
    for image in lock.images:
        manifest = json.loads(blobs.path(image.digest).read_bytes())
        layers |= {one["digest"].removeprefix("sha256:"): image.ref for one in manifest["layers"]}
    fetch({sha: ref for sha, ref in layers.items() if not blobs.has(sha)}, PlainProgress())
    for sha in (*digests, *layers):
        assert hashlib.sha256(blobs.path(sha).read_bytes()).hexdigest() == sha
    return blobs


def test_a_lock_has_all_that_the_plan_needs(site: Site) -> None:
    model = site.model()
    lock = site.lock(model, more=("--expires", "2027-06-30"))
    assert [image.ref for image in lock.images] == IMAGES
    assert (lock.platform, lock.expires) == ("linux/amd64", "2027-06-30")
    (deployment,) = lock.deployments
    assert (deployment.file, deployment.text) == ("tiny.yaml", model.read_text())
    (weights,) = lock.weights
    assert (weights.source, weights.id, weights.commit, weights.revision) == ("path", "./Tiny", None, "")
    assert weights.name == deployment.weights
    assert weights.name.startswith("Tiny-")
    found = {file.path: (file.size, file.sha256) for file in weights.files}
    assert set(found) == {"config.json", "tokenizer.json", "model.safetensors"}
    for path, (size, sha256) in found.items():
        data = (site.folder / "Tiny" / path).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (size, sha256)


def test_the_same_inputs_make_the_same_lock_elsewhere(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another folder, another cache, the models named the other way round."""
    first = site.lock(site.model("b"), site.model("a")).data
    shutil.copytree(site.folder, tmp_path / "elsewhere")
    monkeypatch.setenv("ONPREM_LLM_CACHE", str(tmp_path / "other cache"))
    other = Site(tmp_path / "elsewhere", site.registry)
    other.out.unlink()
    other.lock(other.folder / "a.yaml", other.folder / "b.yaml")
    assert other.out.read_bytes() == first
    assert lock_sha256(other.out) == hashlib.sha256(first).hexdigest()
    assert str(tmp_path).encode() not in first


def test_settings_change_which_images(site: Site) -> None:
    (site.folder / "all.yml").write_text(
        "onprem_llm_site:\n  open_webui: {enabled: false}\n  gateway: {image: 'r.local/gw:2', address: 10.9.9.9}\n"
        "  registry: {address: 'r.local:5000', username: u, password: {from_env: SECRET}}\n"
    )
    site.registry.image("gw", "2")
    lock = site.lock(site.model(), more=("--site", str(site.folder / "all.yml")))
    assert [image.ref for image in lock.images] == ["r.local/gw:2", "vllm/vllm-openai:v0.11.0"]
    assert lock.site == {"gateway": {"address": "10.9.9.9", "image": "r.local/gw:2"}, "open_webui": {"enabled": False}}


def test_an_inventory_says_the_settings_and_no_host_is_reached(site: Site) -> None:
    (site.folder / "inventory.ini").write_text("gpu1 ansible_host=192.0.2.1\ngpu2 ansible_host=192.0.2.2\n")
    (site.folder / "group_vars").mkdir()
    text = 'onprem_llm_site: {open_webui: {enabled: false}, images_dir: images, public_port: "{{ 8000 + 443 }}"}\n'
    (site.folder / "group_vars" / "all.yml").write_text(text.replace('"{{ 8000 + 443 }}"', "8443"))
    (site.folder / "images").mkdir()
    lock = site.lock(site.model(), more=("-i", str(site.folder / "inventory.ini")))
    assert [image.ref for image in lock.images] == IMAGES[1:]
    assert lock.site == {"open_webui": {"enabled": False}, "public_port": 8443}


def test_an_archive_goes_before_the_registry(site: Site) -> None:
    images = site.folder / "images"
    images.mkdir()
    saved(images / "gateway.tar", tag="onprem-llm/gateway:1")
    with_archive = site.lock(site.model(), more=("--images-dir", str(images)))
    without = site.lock(site.model())
    image, other = (lock.image("onprem-llm/gateway:1") for lock in (with_archive, without))
    assert image is not None
    assert other is not None
    assert image.id != other.id
    assert origins_of(with_archive).archives == {"onprem-llm/gateway:1": str(images / "gateway.tar")}


def test_all_bytes_can_be_had_again(site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    images = site.folder / "images"
    images.mkdir()
    saved(images / "gateway.tar", tag="onprem-llm/gateway:1")
    lock = site.lock(site.model(), more=("--images-dir", str(images)))
    blobs = fetched(lock)
    for path in blobs.root.iterdir():
        path.unlink()
    fetched(lock)
    assert origins_of(lock).weights == {lock.weights[0].name: str(site.folder / "Tiny")}


def test_weights_of_a_hub_are_locked_by_commit(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    model = site.model(model="{source: huggingface, id: owner/Tiny}")
    assert f"onprem-llm weights pull {model}" in refused(site, model)
    with HubServer({"owner/Tiny": tiny()}) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("ONPREM_LLM_WEIGHTS", str(tmp_path / "store"))
        pulled = Bench(server, tmp_path).pull()
    (weights,) = site.lock(model).weights
    assert (weights.source, weights.id, weights.revision) == ("huggingface", "owner/Tiny", "main")
    assert weights.commit == pulled.manifest.commit
    assert {one.path: one.sha256 for one in weights.files} == {one.path: one.sha256 for one in pulled.manifest.files}
    place = pulled.entry.weights() / "model-1.safetensors"
    site.out.unlink()
    data = bytearray(place.read_bytes())
    data[-1] ^= 1
    place.write_bytes(data)
    assert "model-1.safetensors: found sha256" in refused(site, model)


def test_what_cannot_be_locked_is_refused(site: Site) -> None:
    model = site.model()
    assert "both describe tiny" in refused(site, model, site.folder / "Tiny" / ".." / "tiny.yaml", kind=UsageError)
    (site.folder / "sub").mkdir()
    other = site.folder / "sub" / "tiny.yaml"
    other.write_text(model.read_text().replace("name: tiny", "name: other").replace("./Tiny", "../Tiny"))
    assert "tiny.yaml is the name of two files" in refused(site, model, other, kind=UsageError)
    assert "absent.yaml: cannot be read" in refused(site, site.folder / "absent.yaml")
    broken = site.folder / "broken.yaml"
    broken.write_text("name: x\n")
    assert "broken.yaml" in refused(site, broken)
    site.write_facts(gpu1=host_facts(), arm=host_facts(architecture="aarch64"))
    assert "linux/amd64: gpu1; linux/arm64: arm" in refused(site, model)


def test_an_image_that_nobody_has_is_named(site: Site) -> None:
    model = site.model()
    model.write_text(model.read_text().replace("v0.11.0", "v9"))
    said = refused(site, model)
    assert "image vllm/vllm-openai:v9 cannot be had" in said
    assert "docker save" in said


def test_a_registry_that_comes_back_is_no_other_lock(site: Site, tmp_path: Path, cache: Path) -> None:
    first = site.lock(site.model()).data
    with running(tmp_path / "again") as again:
        other = Site(site.folder, again)
        other.push()
        assert other.lock(site.folder / "tiny.yaml").data == first


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--expires", "tomorrow"), "--expires: found 'tomorrow'"),
        (("--python", "2.7"), "--python: found '2.7'"),
        (("--package-mirror", "debian"), "--package-mirror: found 'debian'"),
        (("--package-mirror", "suse=http://m"), "expected one of debian"),
        (("--package-mirror", "debian=file:///m"), "and an address"),
        (("--package-mirror", "debian=http://m/debian\nTrusted: yes"), "found 'debian=http://m/debian\\nTrusted: yes'"),
    ],
)
def test_wrong_options_are_told(site: Site, more: tuple[str, ...], said: str) -> None:
    assert said in refused(site, site.model(), more=more, kind=UsageError)


def test_a_mirrors_password_is_refused_and_not_repeated(site: Site) -> None:
    more = ("--package-mirror", "debian=https://me:hunter2@mirror.example/debian")
    text = refused(site, site.model(), more=more, kind=UsageError)
    assert "/etc/apt/auth.conf.d/mirror.conf" in text
    assert "hunter2" not in text


def test_how_bytes_were_had_is_for_us_alone(site: Site, cache: Path) -> None:
    (cache / "locking").mkdir(mode=0o755, parents=True)
    lock = site.lock(site.model())
    assert (cache / "locking").stat().st_mode & 0o777 == 0o700
    assert origins_of(lock).registry == site.registry.address


def test_json_says_the_parts(site: Site) -> None:
    done = CliRunner().invoke(cli, [*site.words(site.model()), "--json"], catch_exceptions=False)
    value = json.loads(done.stdout)
    assert value["lock_sha256"] == lock_sha256(site.out)
    assert [(one["what"], one["name"]) for one in value["parts"]] == [
        *(("image", ref) for ref in IMAGES),
        ("weights", "./Tiny"),
    ]
