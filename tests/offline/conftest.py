"""What a bundle brings to a site with no way out."""

import os
from pathlib import Path

import pytest
from tests.made_images import Layout, image, tar_of
from tests.offline.apt_host import Host, Mirror, Repository


@pytest.fixture
def bundle(tmp_path: Path) -> Layout:
    """Three images with a layer in common, of both kinds that registries hold."""
    made = Layout(tmp_path / "bundle")
    shared = tar_of("shared", os.urandom(200_000))
    made.add("vllm/vllm-openai:v1", image(shared, tar_of("engine", os.urandom(3_000_000))))
    made.add("ghcr.io/open-webui/open-webui:v2", image(shared, tar_of("page", b"page"), kind="docker"))
    made.add("redis:7", image(shared, tar_of("redis", b"redis"), kind="docker"))
    made.write()
    return made


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """What the packages of a bundle became on the site: a repository that is signed."""
    return Repository(tmp_path / "site").fill().sign()


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    """A folder that stands for a host's root, with a mirror that answers nothing; apt here is its apt."""
    made = Host(tmp_path / "host", Mirror()).make()
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    return made
