"""Archives on the control host and names at a registry."""

import io
import json
import tarfile
from pathlib import Path

import pytest

from onprem_llm.errors import InvalidError
from onprem_llm.image_archives import find_archives
from onprem_llm.registry import at_registry, repository
from onprem_llm.spec.site import parse_site


def archive(path: Path, config: str, tag: str) -> None:
    manifest = json.dumps([{"Config": config, "RepoTags": [tag], "Layers": []}]).encode()
    with tarfile.open(path, "w") as tar:
        member = tarfile.TarInfo("manifest.json")
        member.size = len(manifest)
        tar.addfile(member, io.BytesIO(manifest))


def test_both_layouts_of_docker_save_are_read(tmp_path: Path) -> None:
    archive(tmp_path / "old.tar", "ab12.json", "a:1")
    archive(tmp_path / "new.tar", "blobs/sha256/cd34", "b:1")
    found = find_archives(tmp_path)
    assert {ref: source.id for ref, source in found.items()} == {"a:1": "sha256:ab12", "b:1": "sha256:cd34"}


def test_two_archives_that_disagree_are_refused(tmp_path: Path) -> None:
    archive(tmp_path / "one.tar", "ab12.json", "a:1")
    archive(tmp_path / "two.tar", "cd34.json", "a:1")
    with pytest.raises(InvalidError, match="two archives"):
        find_archives(tmp_path)


def test_what_is_no_archive_is_named(tmp_path: Path) -> None:
    (tmp_path / "weights.tar").write_bytes(b"no tar")
    with pytest.raises(InvalidError, match=r"weights\.tar"):
        find_archives(tmp_path)


@pytest.mark.parametrize(
    ("ref", "expected"),
    [
        ("vllm/vllm-openai:v0.11.0", "registry.local:5000/vllm/vllm-openai:v0.11.0"),
        ("ghcr.io/open-webui/open-webui:v1", "registry.local:5000/open-webui/open-webui:v1"),
        ("registry.local:5000/a/b:1", "registry.local:5000/a/b:1"),
    ],
)
def test_images_are_asked_for_at_the_sites_registry(ref: str, expected: str) -> None:
    site = parse_site({"registry": {"address": "registry.local:5000"}}, "test")
    assert at_registry(ref, site) == expected
    assert at_registry(ref, parse_site({}, "test")) == ref


def test_a_repository_has_no_tag() -> None:
    assert repository("registry.local:5000/a/b:1") == "registry.local:5000/a/b"
    assert repository("registry.local:5000/a/b") == "registry.local:5000/a/b"
