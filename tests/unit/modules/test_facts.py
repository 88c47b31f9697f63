"""collect.sh and the probe's module: the same host gives the same facts, odd characters and all."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from onprem_llm.facts.export import facts_of
from onprem_llm.resources import PACKAGE
from onprem_llm.run_events import RunResult
from onprem_llm.spec.facts import Facts, HostFacts, merge_facts, read_facts

from .conftest import Load
from .facts_root import SHELLS, SMI, made_root

SCRIPT = PACKAGE / "facts" / "collect.sh"
IDS = ["-".join(shell) for shell in SHELLS]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    return made_root(tmp_path)


@pytest.fixture
def smi(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    tool = tmp_path / "bin" / "nvidia-smi"
    tool.parent.mkdir()
    tool.write_text(SMI)
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:/usr/bin:/bin")
    return tool


@pytest.fixture
def probe(load: Load) -> ModuleType:
    return load("host_probe/onprem_llm_probe_facts")


def collected(shell: Sequence[str], folder: Path, root: Path | None = None, name: str = "web-7") -> HostFacts:
    environment = {**os.environ, "ONPREM_LLM_COLLECT_ROOT": str(root or ""), "LC_ALL": "C.UTF-8"}
    done = subprocess.run([*shell, str(SCRIPT), name], env=environment, capture_output=True, check=True)
    assert done.stderr == b""
    (folder / "script.json").write_bytes(done.stdout)
    facts = read_facts(folder / "script.json")
    assert list(facts.hosts) == [name]
    return facts.hosts[name]


def probed(module: ModuleType, monkeypatch: pytest.MonkeyPatch, root: Path | None = None) -> HostFacts:
    if root is not None:
        monkeypatch.setattr(module, "ROOT", root)
    answer: dict[str, Any] = {"facts": json.loads(json.dumps(module.facts())), "problems": []}
    return facts_of(RunResult(("a",), {"a": {"facts": answer}}, {}, ())).hosts["a"]


@pytest.mark.parametrize("shell", SHELLS, ids=IDS)
def test_this_machine_is_the_same_both_ways(
    shell: list[str], probe: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    one, other = collected(shell, tmp_path), probed(probe, monkeypatch)
    assert one.lasting() == other.lasting()
    assert one.disks[0].mount == "/"
    free = shutil.disk_usage("/").free
    assert all(abs(facts.disks[0].free_bytes - free) < 2 * 10**9 for facts in (one, other))


@pytest.mark.parametrize("shell", SHELLS, ids=IDS)
def test_odd_characters_are_the_same_both_ways(
    shell: list[str], root: Path, probe: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = collected(shell, tmp_path, root), probed(probe, monkeypatch, root)
    assert one.model_copy(update={"python": None}).lasting() == other.model_copy(update={"python": None}).lasting()
    assert one.cpu.model == 'AMD \\ "EPYC"\x01 \x7f é  9'
    assert one.memory_bytes == 16384004 * 1024
    assert one.kernels.installed == ("6.12.48+deb13-amd64", "6.12.57+deb13-amd64")
    assert (one.os.id, one.os.version_id, one.os.codename) == ("debian", "13", "trixie")
    names = [(disk.mount.removeprefix(str(tmp_path)), disk.filesystem) for disk in one.disks]
    odd = '/data \\ "7"\tx\ny'
    assert names == [("/", "overlay"), (odd, "ext4"), ("/caf�", "xfs"), ("/nfs", "nfs4")]
    assert [(gpu.name, gpu.memory_bytes, gpu.pci_id) for gpu in one.gpus] == [("NVIDIA 10de:2330", None, "10de:2330")]
    assert one.nvswitches == 2


@pytest.mark.parametrize("shell", SHELLS, ids=IDS)
def test_the_driver_knows_more_of_gpus_than_the_bus(
    shell: list[str], root: Path, smi: Path, probe: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = collected(shell, tmp_path, root), probed(probe, monkeypatch, root)
    assert one.gpus == other.gpus
    assert [(gpu.name, gpu.memory_bytes, gpu.pci_id) for gpu in one.gpus] == [
        ('NVIDIA H100 "80GB", HBM3', 81559 * 1024**2, "10de:2330"),
        ("NVIDIA GB10", None, None),
    ]


VERSION = "proc/driver/nvidia/version"
CLOSED = (
    "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.14  Thu Feb 22 01:44:30 UTC 2024\nGCC version: 12.2.0\n"
)
OPEN = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build  (dvs-builder@U22-I3-H04)\n"


@pytest.mark.parametrize(
    ("text", "driver"),
    [
        (CLOSED, "550.54.14"), (OPEN, "580.95.05"), ("NVRM version: 590.44\n", "590.44"), (OPEN.strip(), "580.95.05"),
        ("NVRM * 1.2 550. 550..1 550.1.2.3 x550.1\n550.54.14\n", None), ("", None), (None, None),
    ],
)  # fmt: skip
def test_the_loaded_driver_is_said(
    text: str | None, driver: str | None, root: Path, probe: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if text is not None:
        (root / VERSION).parent.mkdir(parents=True)
        (root / VERSION).write_text(text)
    assert probed(probe, monkeypatch, root).driver == driver
    said = [collected(shell, tmp_path, root).driver for shell in SHELLS]
    assert dict(zip(IDS, said, strict=True)) == dict.fromkeys(IDS, driver)


@pytest.mark.parametrize("shell", SHELLS, ids=IDS)
def test_a_sick_driver_leaves_what_the_bus_says(
    shell: list[str], root: Path, smi: Path, probe: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    smi.write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed, 1, 2'\nexit 9\n")
    one, other = collected(shell, tmp_path, root), probed(probe, monkeypatch, root)
    assert one.gpus == other.gpus
    assert one.gpus[0].name == "NVIDIA 10de:2330"


@pytest.mark.parametrize("shell", SHELLS, ids=IDS)
def test_the_name_may_be_given(shell: list[str], tmp_path: Path) -> None:
    assert collected(shell, tmp_path, name='rack "7"\\b')
    done = subprocess.run([*shell, str(SCRIPT)], capture_output=True, check=True)
    assert list(json.loads(done.stdout)["hosts"]) == [os.uname().nodename]


def test_without_stat_and_nvidia_smi_df_says_the_sizes(root: Path, tmp_path: Path) -> None:
    """coreutils alone: `stat -f` may be another one's."""
    exact = collected(["sh"], tmp_path, root)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "stat").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "bin" / "stat").chmod(0o755)
    script = SCRIPT.read_text().replace("PATH=${PATH:-}", f"PATH={tmp_path}/bin:${{PATH:-}}")
    (tmp_path / "collect.sh").write_text(script)
    environment = {**os.environ, "ONPREM_LLM_COLLECT_ROOT": str(root)}
    done = subprocess.run(["sh", str(tmp_path / "collect.sh"), "a"], env=environment, capture_output=True, check=True)
    (tmp_path / "df.json").write_bytes(done.stdout)
    rough = read_facts(tmp_path / "df.json").hosts["a"]
    sizes = [(disk.size_bytes, disk.mount) for disk in rough.disks]
    assert sizes == [(disk.size_bytes // 1024 * 1024, disk.mount) for disk in exact.disks]


def test_it_needs_nothing_but_a_shell_and_coreutils(root: Path, tmp_path: Path) -> None:
    names = subprocess.run(["dpkg", "-L", "coreutils"], capture_output=True, text=True, check=False).stdout.split()
    if not names:
        pytest.skip("no dpkg here to ask what coreutils are")
    (tmp_path / "bin").mkdir()
    for name in [*names, "/bin/sh"]:
        if Path(name).parent.name in {"bin", "sbin"} and Path(name).is_file():
            (tmp_path / "bin" / Path(name).name).symlink_to(name)
    script = SCRIPT.read_text().replace("PATH=${PATH:-}:/usr/sbin:/sbin:/usr/bin:/bin:/usr/local/bin", "PATH=$PATH")
    (tmp_path / "collect.sh").write_text(script)
    environment = {"PATH": str(tmp_path / "bin"), "ONPREM_LLM_COLLECT_ROOT": str(root)}
    done = subprocess.run(
        [str(tmp_path / "bin/sh"), str(tmp_path / "collect.sh"), "a"], env=environment, capture_output=True, check=True
    )
    assert done.stderr == b""
    host = Facts.model_validate_json(done.stdout.decode("utf-8", "replace")).hosts["a"]
    assert host.python is None
    usual = collected(["sh"], tmp_path, root)
    assert host.lasting() == usual.model_copy(update={"python": None}).lasting()


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="no shellcheck here")
def test_shellcheck_finds_nothing() -> None:
    done = subprocess.run(["shellcheck", "-s", "sh", str(SCRIPT)], capture_output=True, text=True, check=False)
    assert done.stdout == ""


def test_the_export_and_the_script_merge(
    probe: ModuleType, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    script = collected(["sh"], tmp_path, root)
    (tmp_path / "one.json").write_bytes(Facts(hosts={"a": script}).data)
    (tmp_path / "two.json").write_bytes(Facts(hosts={"a": probed(probe, monkeypatch, root)}).data)
    assert merge_facts([tmp_path / "one.json", tmp_path / "two.json"]).hosts["a"] == script
