"""The container toolkit out of what a bundle brought: real apt-get, that source alone, one version of all, held."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from tests.offline.apt_host import Host, Repository
from tests.unit.bootstrap.conftest import role_module  # noqa: F401 - a fixture
from tests.unit.nvidia_toolkit.conftest import toolkit  # noqa: F401 - a fixture


def test_it_comes_from_the_bundle_alone(
    host: Host,
    role_module: Callable[[str], ModuleType],  # noqa: F811
    toolkit: SimpleNamespace,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    brought = Repository(tmp_path / "site")
    (brought.folder / "pool").mkdir(parents=True)
    names = toolkit.packages.NAMES
    brought._index("\n".join(brought._package(name, "1.18.2-1", "") for name in names))
    host.place(brought.sign(), role_module("package_repository"))
    monkeypatch.setattr(toolkit.hands.record, "RECORD", tmp_path / "bootstrap.json")
    # A mirror of the site would be out of reach just the same: with a source of packages none is asked.
    mirrors = {"nvidia_container_toolkit": "http://127.0.0.1:9/libnvidia-container"}
    options = {"source": str(host.source), "mirrors": mirrors, "fingerprints": []}
    hands = toolkit.hands.Apt("x86_64", options)
    with toolkit.hands.apt.only(str(host.source)):
        hands.prepare()
        offered = hands.offered()
        assert offered == {name: ["1.18.2-1"] for name in names}
        hands.install(toolkit.packages.chosen(offered, None))
    hands.hold()
    assert toolkit.hands.record.load()["held"] == sorted(names)
    assert {name.partition(":")[0] for name in toolkit.hands.record.load()["packages"]} == set(names)
    assert host.mirror.asked == 0
