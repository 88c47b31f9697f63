"""Plans and images for hosts that are facts only."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from tests.made_facts import facts_of, host_facts

from onprem_llm.errors import InvalidError, UsageError
from onprem_llm.locking.plan_images import images_of
from onprem_llm.main import cli
from onprem_llm.rendering import compose
from onprem_llm.spec.deployment import parse_deployment
from onprem_llm.spec.site import Site, parse_site
from onprem_llm.spec.weights_identity import WeightsFile, WeightsManifest

pytestmark = pytest.mark.usefixtures("site_of_defaults")

MODEL = """api_version: 1
name: big
model: ./Tiny
engine: {image: "vllm/vllm-openai:v0.11.0", engine_args: {tensor_parallel_size: 4}}
resources: {gpus: 4, gpu_models: [H100]}
replicas: 2
env: {HF_TOKEN: {from_env: NOT_HERE}}
"""
WEIGHTS = WeightsManifest("Tiny-0123456789ab", "Tiny", (WeightsFile("a.safetensors", 1, "0" * 64, 1),), 1)
IMAGES = ("ghcr.io/open-webui/open-webui:v0.6.5", "onprem-llm/gateway:1", "vllm/vllm-openai:v0.11.0")


def host(gpus: int, name: str = "NVIDIA H100 80GB HBM3", free: int = 10**12) -> dict[str, Any]:
    return host_facts(
        gpus=[{"name": name, "memory_bytes": 85520809984, "pci_id": "10de:2330"}] * gpus,
        disks=[
            {"mount": "/", "filesystem": "ext4", "size_bytes": 10**12, "free_bytes": 10**12},
            {"mount": "/srv", "filesystem": "ext4", "size_bytes": 10**12, "free_bytes": free},
        ],
    )


@pytest.fixture(autouse=True)
def _files(folder: Path) -> None:
    (folder / "model.yaml").write_text(MODEL)
    (folder / "inventory.ini").write_text("gpu1 ansible_host=192.0.2.1\ngpu2 ansible_host=192.0.2.2\n")


def planned(folder: Path, *words: str, **hosts: dict[str, Any]) -> Result:
    (folder / "facts.json").write_bytes(facts_of(**hosts).data)
    names = ["plan", str(folder / "model.yaml"), "--facts", str(folder / "facts.json")]
    return CliRunner().invoke(cli, [*names, "-i", str(folder / "inventory.ini"), *words])


def test_a_plan_from_facts_places_replicas_and_reaches_nobody(folder: Path) -> None:
    done = planned(folder, "--json", gpu1=host(8), gpu2=host(4))
    assert done.exception is None, done.output
    value = json.loads(done.stdout)
    placed = {one["subject"]: one["host"] for one in value["changes"] if one["subject"].startswith("big-")}
    assert placed == {"big-0": "gpu2", "big-1": "gpu1"}
    assert any("planned from facts" in text for text in value["warnings"])


@pytest.mark.parametrize(
    ("hosts", "said"),
    [
        ({"gpu1": host(2)}, "no host can carry big-0: it needs 4 GPUs of H100"),
        ({"gpu1": host(8, "NVIDIA L4")}, "no host can carry big-0"),
        ({"gpu1": host(8, free=5)}, "not enough disk on gpu1"),
    ],
)
def test_hosts_that_cannot_carry_it_are_told(folder: Path, hosts: dict[str, Any], said: str) -> None:
    done = planned(folder, **hosts)
    assert isinstance(done.exception, InvalidError)
    assert said in done.exception.message


def test_such_a_plan_can_only_be_looked_at(folder: Path) -> None:
    assert isinstance(planned(folder, "--out", str(folder / "out"), gpu1=host(8)).exception, UsageError)


def test_images_need_no_gpus_in_the_facts() -> None:
    """Facts from before there was a driver; the names of hosts in model.yaml are nobody's here."""
    deployment = parse_deployment(MODEL + "listen: 192.0.2.9\n", "model.yaml")
    deployment = deployment.model_copy(
        update={"resources": deployment.resources.model_copy(update={"hosts": ("rack-3",)})}
    )
    assert images_of(deployment, WEIGHTS, Site(), facts_of(a=host(0, free=0))) == IMAGES


def test_images_do_not_depend_on_how_many_gpus_are_found() -> None:
    text = MODEL.replace("tensor_parallel_size: 4", "tensor_parallel_size: auto").replace("gpus: 4, ", "")
    assert images_of(parse_deployment(text, "model.yaml"), WEIGHTS, Site(), facts_of(a=host(0))) == IMAGES


@pytest.mark.parametrize(
    ("settings", "without"),
    [
        ({"open_webui": {"enabled": False}}, IMAGES[0]),
        ({"gateway": {"tls": {"mode": "files", "certificate": "/absent", "key": "/absent"}}}, None),
        ({"gateway": {"address": "10.0.0.9", "interface": "bond0"}}, None),
        ({"gateway": {"address": "fd00:1::9"}, "open_webui": {"listen": "192.0.2.7"}}, None),
    ],
)
def test_settings_of_a_site_that_is_far_away_do_not_get_in_the_way(
    settings: dict[str, object], without: str | None
) -> None:
    deployment = parse_deployment(MODEL, "model.yaml")
    found = images_of(deployment, WEIGHTS, parse_site(settings, "site"), facts_of(a=host(8), b=host(8)))
    assert found == tuple(image for image in IMAGES if image != without)


def test_a_sidecar_that_rendering_adds_is_not_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody tells the lock of it: it stands in a rendered compose.yaml."""
    as_it_is = compose.to_yaml

    def with_sidecar(value: Mapping[str, Any]) -> str:
        more = {"sidecar": {"image": "sidecar/of-all:7"}}
        return as_it_is({**value, "services": {**value["services"], **more}})

    monkeypatch.setattr(compose, "to_yaml", with_sidecar)
    found = images_of(parse_deployment(MODEL, "model.yaml"), WEIGHTS, Site(), facts_of(a=host(8)))
    assert found == (*IMAGES[:2], "sidecar/of-all:7", IMAGES[2])
