"""Where images come from when the site has a registry of its own."""

import hashlib
import json
from pathlib import Path

import pytest
import recorded_facts as made

from onprem_llm.book_state import BookEntry
from onprem_llm.bundle.images import REF
from onprem_llm.bundle.registry_view import blob_path, write_registry
from onprem_llm.errors import InvalidError
from onprem_llm.own_registry import read_own_registry
from onprem_llm.planning.types import ImageSource
from onprem_llm.spec.site import parse_site
from onprem_llm.wanted import Images

ADDRESS = "10.0.0.2:5000"
SITE = parse_site({"registry_dir": "registry", "images_dir": "images"}, "test")


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    blobs = tmp_path / "blobs"
    blobs.mkdir()

    def blob(data: bytes) -> dict[str, object]:
        sha256 = hashlib.sha256(data).hexdigest()
        (blobs / sha256).write_bytes(data)
        return {"digest": f"sha256:{sha256}", "size": len(data)}

    manifest = blob(json.dumps({"schemaVersion": 2, "config": blob(b"{}"), "layers": [blob(b"layer")]}).encode())
    index = {"manifests": [{**manifest, "annotations": {REF: made.VLLM_IMAGE}}]}
    write_registry(index, blobs, tmp_path / "registry")
    (tmp_path / "images").mkdir()
    return tmp_path / "inventory.ini"


def images(inventory: Path) -> Images:
    return Images(SITE, inventory, made.current(made.lab()))


def digest(inventory: Path) -> str:
    found = read_own_registry(inventory.parent / "registry", ADDRESS).source(made.VLLM_IMAGE)
    assert found is not None
    return str(found.pull).partition("@")[2]


def test_an_image_of_the_folder_is_pulled_from_the_gateway_host_by_digest(inventory: Path) -> None:
    place = f"{ADDRESS}/docker.io/vllm/vllm-openai@{digest(inventory)}"
    assert images(inventory).source(made.VLLM_IMAGE, None) == ImageSource(made.VLLM_IMAGE, pull=place)
    assert images(inventory).source("redis:7", None) == ImageSource("redis:7")


def test_its_own_image_is_never_pulled_from_it(inventory: Path) -> None:
    assert images(inventory).registry_image == ImageSource("onprem-llm/registry:1")


def test_a_recorded_place_is_asked_where_the_registry_is_now(inventory: Path) -> None:
    before = f"10.9.9.9:5000/docker.io/vllm/vllm-openai@{digest(inventory)}"
    entry = BookEntry(1, "", {made.VLLM_IMAGE: before}, None)
    found = images(inventory).recorded(made.VLLM_IMAGE, entry)
    assert found.pull == before.replace("10.9.9.9:5000", ADDRESS)
    other = before.replace(digest(inventory), "sha256:" + "0" * 64)
    assert images(inventory).recorded(made.VLLM_IMAGE, BookEntry(1, "", {made.VLLM_IMAGE: other}, None)).pull == other


def test_without_the_setting_nothing_is_read(tmp_path: Path) -> None:
    found = Images(parse_site({}, "test"), tmp_path / "inventory.ini", made.current(made.lab()))
    assert (found.registry, found.registry_image) == (None, None)


def test_no_folder_is_named_with_its_setting(tmp_path: Path) -> None:
    with pytest.raises(InvalidError, match=r"onprem_llm_site\.registry_dir: .*index\.json: no registry's folder"):
        read_own_registry(tmp_path, ADDRESS)


def test_a_blob_that_is_not_whole_is_named(inventory: Path) -> None:
    layer = inventory.parent / "registry" / blob_path(hashlib.sha256(b"layer").hexdigest())
    layer.unlink()
    layer.write_bytes(b"la")
    with pytest.raises(InvalidError, match="found no file of 5 bytes"):
        images(inventory)
