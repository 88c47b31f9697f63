"""Hosts like the inventory's: what can be made is made, everything else is named as a substitute."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.made_facts import host_facts

from onprem_llm.errors import InvalidError
from onprem_llm.prove import site_inventory
from onprem_llm.prove.likeness import Likeness, Machine, check_architecture, likeness
from onprem_llm.spec.facts import HostFacts

GIB = 1024**3
MACHINE = Machine(
    ("debian-13", "debian-12"),
    {"H100-80GB": ("NVIDIA H100 80GB HBM3", 81559), "T4-16GB": ("Tesla T4", 15360)},
    "x86_64",
    "6.1.0-9-amd64",
)


def host(release: str = "13", system: str = "debian", gpus: tuple[tuple[str, int | None], ...] = ()) -> HostFacts:
    found = host_facts(
        os={"id": system, "version_id": release, "codename": ""},
        gpus=[{"name": name, "memory_bytes": memory, "pci_id": None} for name, memory in gpus],
    )
    return HostFacts.model_validate(found)


def made(facts: dict[str, HostFacts], packaged: tuple[tuple[str, str], ...] = (("debian", "13"),)) -> Likeness:
    return likeness(["gpu1", "gpu_2.rack"], facts, packaged, MACHINE)


def told(like: Likeness, what: str) -> list[tuple[str | None, str, str]]:
    return [(one.host, one.on_site, one.here) for one in like.substitutes if one.what == what]


def test_hosts_have_the_inventorys_names_as_far_as_hosts_can_have_them() -> None:
    like = made({"gpu1": host(), "gpu_2.rack": host()})
    assert [(one.name, one.hostname) for one in like.hosts] == [("gpu1", "gpu1"), ("gpu_2.rack", "gpu-2-rack")]
    assert (like.os, like.ready) == ("debian-13", False)
    assert told(like, "system") == []


def test_no_two_hosts_call_themselves_the_same() -> None:
    long = "a" * 62
    names = ["gpu_1", "gpu-1", "GPU.1", "gpu-1-2", f"{long}_x", f"{long}.y"]
    hostnames = [one.hostname for one in likeness(names, {}, (), MACHINE).hosts]
    assert hostnames == ["gpu-1", "gpu-1-2", "GPU-1-3", "gpu-1-2-2", long, f"{'a' * 61}-2"]


def test_what_is_for_another_architecture_is_refused_by_name() -> None:
    check_architecture({"host gpu1": "x86_64"}, MACHINE)
    with pytest.raises(InvalidError, match="host gpu2 is aarch64, this machine is x86_64"):
        check_architecture({"host gpu1": "x86_64", "host gpu2": "aarch64"}, MACHINE)


def test_gpus_are_stand_ins_of_that_name_or_of_the_nearest_memory_and_are_named() -> None:
    like = made({
        "gpu1": host(gpus=(("NVIDIA H100 80GB HBM3", 80 * GIB),) * 8),
        "gpu_2.rack": host(gpus=(("NVIDIA GH200 480GB", 94 * GIB),)),
    })  # fmt: skip
    assert [one.gpus for one in like.hosts] == ["8xH100-80GB", "1xH100-80GB"]
    assert [(name, on_site) for name, on_site, _ in told(like, "GPUs")] == [
        ("gpu1", "8x NVIDIA H100 80GB HBM3"), ("gpu_2.rack", "1x NVIDIA GH200 480GB"),
    ]  # fmt: skip
    assert made({"gpu1": host(gpus=(("Unknown", 16 * GIB),))}).hosts[0].gpus == "1xT4-16GB"
    assert made({"gpu1": host(gpus=(("Unknown", None),))}).hosts[0].gpus == "1xT4-16GB"


def test_a_system_that_cannot_be_made_is_substituted_and_what_most_hosts_have_is_chosen() -> None:
    like = made({"gpu1": host("24.04", "ubuntu"), "gpu_2.rack": host("12")}, (("ubuntu", "24.04"), ("debian", "12")))
    assert (like.os, like.ready) == ("debian-12", False)
    assert told(like, "system") == [("gpu1", "ubuntu-24.04", "debian-12")]


def test_without_packages_for_the_substitute_its_hosts_have_them_already() -> None:
    facts = {name: host("24.04", "ubuntu") for name in ("gpu1", "gpu_2.rack")}
    like = made(facts, (("ubuntu", "24.04"),))
    assert (like.os, like.ready) == ("debian-13", True)


def test_what_is_not_known_is_said() -> None:
    like = made({}, (("debian", "12"),))
    assert like.os == "debian-12"
    assert [name for name, on_site, _ in told(like, "GPUs") if "not known" in on_site] == ["gpu1", "gpu_2.rack"]
    assert [name for name, on_site, _ in told(like, "system") if "not known" in on_site] == ["gpu1", "gpu_2.rack"]
    assert "6.1.0-9-amd64" in told(like, "kernel")[0][2]


def test_the_inventory_keeps_groups_and_settings_and_loses_how_hosts_are_reached(tmp_path: Path) -> None:
    (tmp_path / "packages").mkdir()
    given: dict[str, dict[str, Any]] = {
        "b": {
            "ansible_host": "10.0.0.9", "ansible_password": "secret", "colour": "red",
            "onprem_llm_site": {"public_port": 8443, "packages_dir": "/mnt/packages", "images_dir": "/mnt/images",
                                "package_mirrors": {"debian": "http://bob:s3cret@mirror/debian"},
                                "gateway": {"address": "10.0.0.100", "interface": "bond0", "timeout": 60}},
        },
        "a": {"onprem_llm_site": {"public_port": 8443}},
    }  # fmt: skip
    reach = {name: {"ansible_host": f"10.213.0.{number}"} for number, name in enumerate("ba", 11)}
    data, changed = site_inventory.inventory_data(
        {"b": ("gpu", "gateway"), "a": ("gpu",)}, given, reach, tmp_path, "10.213.0.0/24"
    )
    text = site_inventory.write(data, tmp_path).read_text()
    read = yaml.safe_load(text)["all"]
    # The first of them becomes the gateway.
    assert list(read["hosts"]) == ["b", "a"]
    assert read["hosts"]["b"] == {
        "colour": "red", "ansible_host": "10.213.0.11",
        "onprem_llm_site": {"public_port": 8443, "packages_dir": "packages",
                            "gateway": {"timeout": 60, "address": "10.213.0.200"}},
    }  # fmt: skip
    assert {name: list(group["hosts"]) for name, group in read["children"].items()} == {
        "gpu": ["b", "a"], "gateway": ["b"],
    }  # fmt: skip
    assert [(one.what, one.on_site, one.here) for one in changed] == [
        ("package_mirrors", "the site's", "the bundle's"),
        ("gateway.address", "10.0.0.100", "10.213.0.200"),
    ]
    assert "secret" not in text
    assert "s3cret" not in f"{text}{changed}"
