"""A driver out of what a bundle brought: real apt-get, that source alone, nobody else asked, held, taken as it is."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from tests.offline.apt_host import Host, Repository
from tests.unit.bootstrap.conftest import role_module  # noqa: F401 - a fixture
from tests.unit.nvidia_driver.conftest import driver  # noqa: F401 - a fixture
from tests.unit.nvidia_driver.made_hosts import BARE, H100, NEWEST

VERSION = "550.163.01-2"
PACKAGES = ("nvidia-kernel-dkms", "nvidia-smi", "libcuda1", "libnvidia-nvvm4", "nvidia-persistenced")

FACTS: dict[str, Any] = {**BARE, "running": NEWEST, "gpus": [{"address": "", "device": H100, "driver": None}]}


@pytest.fixture
def brought(tmp_path: Path) -> Repository:
    """Stand-ins under the real names, signed, as a bundle brings them."""
    made = Repository(tmp_path / "site")
    (made.folder / "pool").mkdir(parents=True)
    packages = [made._package(name, VERSION, "") for name in PACKAGES]
    packages.append(made._package(f"linux-headers-{NEWEST}", "6.12.117-1", ""))
    made._index("\n".join(packages))
    return made.sign()


def test_a_driver_comes_from_the_bundle_alone(
    brought: Repository,
    host: Host,
    role_module: Callable[[str], ModuleType],  # noqa: F811
    driver: SimpleNamespace,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    host.place(brought, role_module("package_repository"))
    monkeypatch.setattr(driver.apt.record, "RECORD", tmp_path / "bootstrap.json")
    facts = FACTS
    # A mirror of the site would be out of reach just the same: with a source of packages none is asked.
    hands = driver.apt.Apt(facts, {"debian": "http://127.0.0.1:9/debian"}, str(host.source))
    with driver.apt.apt.only(str(host.source)):
        assert hands.prepare() is False
        offered = hands.offered()
        assert offered == {**dict.fromkeys(PACKAGES, VERSION), f"linux-headers-{NEWEST}": "6.12.117-1"}
        asked = driver.needs.asked(facts["gpus"])
        choice = driver.packages.chosen(facts, asked, driver.packages.Wishes(), offered)
        for _, names in choice.groups:
            if names:
                hands.install(names)
    assert set(hands.installed()) == {*PACKAGES, f"linux-headers-{NEWEST}"}
    assert hands.unheld() == sorted(PACKAGES)
    hands.hold()
    assert hands.unheld() == []
    assert driver.apt.record.load()["held"] == sorted(PACKAGES)
    assert host.mirror.asked == 0


def test_what_is_held_is_removed_all_the_same_where_another_takes_its_place(
    brought: Repository,
    host: Host,
    role_module: Callable[[str], ModuleType],  # noqa: F811
    driver: SimpleNamespace,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    host.place(brought, role_module("package_repository"))
    monkeypatch.setattr(driver.apt.record, "RECORD", tmp_path / "bootstrap.json")
    hands = driver.apt.Apt(FACTS, {}, str(host.source))
    with driver.apt.apt.only(str(host.source)):
        hands.prepare()
        hands.install(["nvidia-kernel-dkms"])
        hands.hold()
        assert hands.there() == ["nvidia-kernel-dkms"]
        hands.remove(["nvidia-kernel-dkms"])
    assert hands.there() == []
