"""The site's settings as Ansible itself reads them, for plans of hosts that cannot be reached."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from tests.made_facts import facts_of, host_facts

from onprem_llm.connection import Connection
from onprem_llm.errors import InvalidError
from onprem_llm.locking.site_settings import site_of_inventory
from onprem_llm.main import cli
from onprem_llm.output import PlainProgress
from onprem_llm.spec.site import Site

MODEL = """api_version: 1
name: big
model: ./Tiny
engine: {image: "vllm/vllm-openai:v0.11.0"}
"""


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    """Two hosts of a network that is nobody's (RFC 5737): whoever asks them waits for long."""
    path = tmp_path / "inventory.ini"
    path.write_text("gpu1 ansible_host=192.0.2.1\ngpu2 ansible_host=192.0.2.2\n")
    return path


def read(inventory: Path) -> Site:
    return site_of_inventory(Connection(inventory), PlainProgress())


def test_an_inventory_without_settings_has_the_defaults(inventory: Path) -> None:
    assert read(inventory) == Site()


def test_settings_are_the_same_on_all_hosts(inventory: Path) -> None:
    (inventory.parent / "group_vars").mkdir()
    (inventory.parent / "group_vars" / "all.yml").write_text("onprem_llm_site: {public_port: 9000}\n")
    assert read(inventory).public_port == 9000
    (inventory.parent / "host_vars").mkdir()
    (inventory.parent / "host_vars" / "gpu2.yml").write_text("onprem_llm_site: {public_port: 9001}\n")
    with pytest.raises(InvalidError, match="onprem_llm_site is not the same on gpu1 and gpu2"):
        read(inventory)


def test_a_plan_from_facts_is_made_of_them(inventory: Path) -> None:
    folder = inventory.parent
    header = b'{"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}'
    (folder / "Tiny").mkdir()
    (folder / "Tiny" / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"x")
    for name in ("config.json", "tokenizer.json"):
        (folder / "Tiny" / name).write_text("{}")
    (folder / "model.yaml").write_text(MODEL)
    gpus = [{"name": "NVIDIA H100 80GB HBM3", "memory_bytes": 85520809984, "pci_id": "10de:2330"}]
    disks = [{"mount": "/", "filesystem": "ext4", "size_bytes": 10**12, "free_bytes": 10**12}]
    hosts = {name: host_facts(gpus=gpus, disks=disks) for name in ("gpu1", "gpu2")}
    (folder / "facts.json").write_bytes(facts_of(**hosts).data)
    words = [str(folder / "model.yaml"), "--facts", str(folder / "facts.json"), "-i", str(inventory), "--json"]
    done = CliRunner().invoke(cli, ["plan", *words])
    assert done.exception is None, done.output
    placed = {one["host"] for one in json.loads(done.stdout)["changes"] if one["subject"].startswith("big-")}
    assert placed <= {"gpu1", "gpu2"}
    assert len(placed) == 1
