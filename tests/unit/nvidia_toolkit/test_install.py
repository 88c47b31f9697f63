"""Bringing a host to the toolkit: which hosts want one, and what becomes of those that get none."""

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

LIBRARY = Path(__file__).resolve().parents[3] / "roles/nvidia_container_toolkit/library/nvidia_container_toolkit.py"
OPTIONS = {"version": None, "mirrors": {}, "source": None, "fingerprints": [], "paths": [], "proxy": None}
MIRROR = {"nvidia_container_toolkit": "https://mirror.local/nct"}
H100, GT_710 = "0x2330", "0x128b"
NAMES = (
    "nvidia-container-toolkit", "nvidia-container-toolkit-base", "libnvidia-container-tools", "libnvidia-container1",
)  # fmt: skip


@pytest.fixture
def module(toolkit, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module, on a host that notes nothing."""
    spec = importlib.util.spec_from_file_location("nvidia_container_toolkit", LIBRARY)
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    for name in ("note_absent", "note_file", "note_held", "begin_packages", "end_packages"):
        monkeypatch.setattr(found.record, name, lambda *_: None)
    return found


@pytest.fixture
def host(toolkit, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Have one card on the bus: host(device, os, version of its toolkit, driver of the card)."""

    def one(device: str, os_id: str = "debian", version: str | None = None, driver: str | None = None) -> None:
        card = tmp_path / "sys/bus/pci/devices/0000:01:00.0"
        card.mkdir(parents=True)
        for name, text in (("vendor", "0x10de"), ("class", "0x030000"), ("device", device)):
            (card / name).write_text(f"{text}\n")
        if driver:
            (tmp_path / driver).mkdir()
            (card / "driver").symlink_to(tmp_path / driver)
        (tmp_path / "etc").mkdir()
        (tmp_path / "etc/os-release").write_text(f"ID={os_id}\n")
        monkeypatch.setattr(toolkit.look, "ROOT", tmp_path)
        monkeypatch.setattr(toolkit.look, "toolkit", lambda: version)
        monkeypatch.setattr(toolkit.look.shutil, "which", lambda name, **_: f"/usr/bin/{name}" if version else None)

    return one


def sources(toolkit, monkeypatch: pytest.MonkeyPatch, *versions: str) -> None:
    """Have apt's sources offer these versions."""
    monkeypatch.setattr(toolkit.hands.apt, "refresh", lambda _: None)
    rows = [f"{name} | {version}-1 | https://mirror.local  Packages" for name in NAMES for version in versions]
    monkeypatch.setattr(toolkit.hands, "run", lambda *_: (0, "\n".join(rows)))


def only(answer: dict[str, Any]) -> dict[str, str]:
    [found] = answer["onprem_llm"]["findings"]
    return dict(found)


@pytest.mark.parametrize("version", [None, "1.14.6"])
def test_a_host_whose_sources_have_none_goes_on_with_a_warning(module, toolkit, host, monkeypatch, version):
    """Nobody asked for a toolkit, and without one bootstrap did its work: such a host may be the gateway."""
    host(H100, version=version)
    sources(toolkit, monkeypatch)
    answer = module.answer(OPTIONS, False)
    assert (answer["failure"], answer["usable"], answer["changed"]) == ("", False, False)
    found = answer["onprem_llm"]["findings"][0]
    assert (found["level"], found["found"]) == ("warning", "no nvidia-container-toolkit in the host's package sources")
    assert "package_mirrors.nvidia_container_toolkit" in found["remedy"]


@pytest.mark.parametrize("asked", [{"version": "1.18.2"}, {"mirrors": MIRROR}])
def test_what_somebody_asked_for_and_is_not_to_be_had_is_an_error(module, toolkit, host, monkeypatch, asked):
    host(H100)
    sources(toolkit, monkeypatch)
    monkeypatch.setattr(toolkit.hands.package_key, "present", lambda _: None)
    monkeypatch.setattr(toolkit.hands.package_source, "write_apt", lambda *_: True)
    answer = module.answer({**OPTIONS, **asked}, False)
    assert "found no nvidia-container-toolkit in the host's package sources" in answer["failure"]
    assert only(answer)["level"] == "error"


def test_a_mirror_is_not_asked_for_where_a_bundle_stands_in_its_place(module, toolkit, host, monkeypatch):
    host(H100)
    sources(toolkit, monkeypatch)
    answer = module.answer({**OPTIONS, "mirrors": MIRROR, "source": "/etc/apt/bundle.sources"}, False)
    assert (answer["failure"], only(answer)["level"]) == ("", "warning")


@pytest.mark.parametrize(("device", "driver"), [(GT_710, None), (GT_710, "nouveau"), (H100, "vfio-pci")])
def test_a_card_that_no_engine_can_use_wants_no_toolkit(module, toolkit, host, monkeypatch, device, driver):
    """As for the driver's role: a card for the console, or one that is lent to a virtual machine."""
    host(device, driver=driver)
    sources(toolkit, monkeypatch, "1.18.2")
    answer = module.answer(OPTIONS, False)
    assert (answer["failure"], answer["usable"], answer["changed"]) == ("", False, False)
    assert (only(answer)["level"], "no NVIDIA GPU to serve on" in only(answer)["found"]) == ("ok", True)


def test_a_toolkit_that_serves_is_used_where_another_was_not_to_be_had(module, toolkit, host, monkeypatch):
    host(H100, version="1.17.8")
    sources(toolkit, monkeypatch, "1.17.8")
    answer = module.answer({**OPTIONS, "version": "1.18.2"}, False)
    assert (answer["failure"], answer["usable"]) == ("", True)
    assert [one["level"] for one in answer["onprem_llm"]["findings"]] == ["warning", "ok"]


def test_dnf_asks_a_bundles_repository_alone(module, toolkit, host, monkeypatch):
    host(H100, "rocky")
    asked: list[list[str]] = []

    def run(argv: list[str], *_: Any) -> tuple[int, str]:
        asked.append(argv)
        return 0, "\n".join(f"{name} 1.18.2-1" for name in NAMES) if "repoquery" in argv else ""

    def look() -> str | None:
        return "1.18.2" if any("install" in argv for argv in asked) else None

    monkeypatch.setattr(toolkit.hands, "run", run)
    monkeypatch.setattr(toolkit.hands.dnf, "run", run)
    monkeypatch.setattr(toolkit.look, "toolkit", look)
    monkeypatch.setattr(toolkit.look.shutil, "which", lambda name, **_: f"/usr/bin/{name}")
    answer = module.answer({**OPTIONS, "source": "/etc/yum.repos.d/onprem-llm-packages.repo", "mirrors": MIRROR}, False)
    assert (answer["failure"], answer["usable"]) == ("", True), answer
    bundle = {"--disablerepo=*", "--enablerepo=onprem-llm-packages"}
    fetching = [set(argv) for argv in asked if {"repoquery", "install"} & set(argv)]
    assert len(fetching) == 2
    assert all(bundle <= argv for argv in fetching)


def test_the_hook_that_came_with_1_16_is_not_missed_before(toolkit, monkeypatch):
    """One that is whole and not older than 1.15 is left alone; 1.15 has its hooks in nvidia-ctk."""
    there = ("nvidia-container-runtime", "nvidia-container-runtime-hook")
    monkeypatch.setattr(toolkit.look.shutil, "which", lambda name, **_: name if name in there else None)
    for version, lacks in (("1.15.0", []), ("1.16.0", ["nvidia-cdi-hook"])):
        monkeypatch.setattr(toolkit.look, "toolkit", lambda version=version: version)
        facts = toolkit.look.facts()
        assert facts["lacks"] == lacks
        assert toolkit.plan.wants_packages(facts, None) is bool(lacks)


def test_where_dnf_cannot_install_the_locks_are_what_they_were(toolkit, monkeypatch):
    asked: list[list[str]] = []
    locks = "\n".join(f"{name}-0:1.17.4-1.*" for name in NAMES)

    def run(argv: list[str], *_: Any) -> tuple[int, str]:
        asked.append(argv)
        return (1, "no such package") if "install" in argv else (0, locks if "list" in argv else "")

    monkeypatch.setattr(toolkit.hands, "run", run)
    monkeypatch.setattr(toolkit.hands.dnf, "run", run)
    monkeypatch.setattr(toolkit.hands.record, "begin_packages", lambda *_: None)
    choice = toolkit.packages.Choice("1.17.8", [(name, "1.17.8-1") for name in NAMES])
    with pytest.raises(toolkit.hands.PackageError, match="no such package"):
        toolkit.hands.Dnf("x86_64", OPTIONS).install(choice)
    changed = [argv[3:] for argv in asked if "versionlock" in argv and "list" not in argv]
    assert changed == [["delete", *sorted(NAMES)], ["add", *sorted(NAMES)]]


def test_a_specification_by_hand_is_noted_before_it_is_written_anew(module, toolkit, host, monkeypatch, tmp_path):
    host(H100, version="1.18.2")
    noted: list[Path] = []
    monkeypatch.setattr(module.record, "note_file", noted.append)
    assert module.answer(OPTIONS, True)["usable"]
    assert noted == []
    assert module.answer(OPTIONS, False)["usable"]
    assert noted == [tmp_path / "etc/cdi/nvidia.yaml"]
