"""facts.json: what is read, what is refused, what two looks at one host may differ in."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.made_facts import host_facts

from onprem_llm.errors import InvalidError
from onprem_llm.spec.facts import Facts, merge_facts, read_facts


def host(**change: object) -> dict[str, Any]:
    full: dict[str, object] = {
        "kernels": {"running": "6.12.1-amd64", "installed": ["6.12.1-amd64", "6.12.9-amd64"]},
        "cpu": {"model": 'AMD EPYC "7"', "cores": 4},
        "memory_bytes": 1,
        "gpus": [{"name": "NVIDIA H100", "memory_bytes": 85520809984, "pci_id": "10de:2330"}],
        "disks": [{"mount": "/", "filesystem": "ext4", "size_bytes": 9, "free_bytes": 5}],
        "collected_with": "collect.sh 1",
    }
    return host_facts(**full | change)


def written(path: Path, name: str = "facts.json", **hosts: object) -> Path:
    file = path / name
    file.write_text(json.dumps({"schema_version": 1, "hosts": hosts}), encoding="utf-8")
    return file


def problem(*files: Path) -> str:
    with pytest.raises(InvalidError) as raised:
        merge_facts(files)
    assert raised.value.hint
    return f"{raised.value.message}\n{raised.value.details}"


def test_the_bytes_are_canonical_and_come_back(tmp_path: Path) -> None:
    facts = read_facts(written(tmp_path, b=host(), a=host(gpus=[])))
    assert facts.data.startswith(b'{\n "hosts": {\n  "a": {\n   "architecture"')
    (tmp_path / "again.json").write_bytes(facts.data)
    again = read_facts(tmp_path / "again.json")
    assert again == facts
    assert again.data == facts.data


def test_what_a_host_is_called_elsewhere(tmp_path: Path) -> None:
    facts = read_facts(written(tmp_path, a=host(), b=host(architecture="aarch64")))
    assert facts.platforms == ("linux/amd64", "linux/arm64")
    assert facts.hosts["a"].kernels.all == ("6.12.1-amd64", "6.12.9-amd64")
    assert facts.hosts["a"].release == ("debian", "13")


def test_files_are_put_together(tmp_path: Path) -> None:
    merged = merge_facts([written(tmp_path, "1", b=host()), written(tmp_path, "2", a=host(python=None))])
    assert list(merged.hosts) == ["a", "b"]
    assert isinstance(merged, Facts)


def test_two_looks_at_an_unchanged_host_agree(tmp_path: Path) -> None:
    disks = [{**host()["disks"][0], "free_bytes": 4}]
    later = written(tmp_path, "2", a=host(disks=disks, collected_with="onprem-llm 9"))
    assert merge_facts([written(tmp_path, "1", a=host()), later]).hosts["a"].collected_with == "collect.sh 1"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kernels": {"running": "6.12.9-amd64", "installed": []}}, "kernels: {'running': '6.12.1-amd64'"),
        ({"memory_bytes": 2}, "memory_bytes: 1 and 2"),
        ({"gpus": []}, "gpus: "),
    ],
)
def test_two_files_that_differ_are_refused_with_both_names(
    tmp_path: Path, change: dict[str, object], said: str
) -> None:
    text = problem(written(tmp_path, "one.json", a=host()), written(tmp_path, "two.json", a=host(**change)))
    assert f"a: {tmp_path}/one.json and {tmp_path}/two.json say different things" in text
    assert said in text


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"uptime": 1}, "hosts.a.uptime: unknown key"),
        ({"architecture": "armv7l"}, "hosts.a.architecture: found the text 'armv7l', expected 'x86_64' or 'aarch64'"),
        ({"kernels": {"running": "6.1; reboot", "installed": []}}, "hosts.a.kernels.running: found"),
        ({"os": {"id": "../x", "version_id": "13", "codename": ""}}, "hosts.a.os.id: found '../x'"),
        (
            {"os": {"id": "debian", "version_id": "13/../../../outside/x", "codename": "trixie"}},
            "hosts.a.os.version_id: found '13/../../../outside/x', expected letters, digits and .+:~_- only, or n",
        ),
        (
            {"os": {"id": "debian", "version_id": "13", "codename": "trixie\nTrusted: yes"}},
            "hosts.a.os.codename: found 'trixie\\nTrusted: yes', expected letters",
        ),
        ({"memory_bytes": -1}, "hosts.a.memory_bytes: found -1"),
        ({"gpus": [{"name": "x", "memory_bytes": None, "pci_id": "0x2330"}]}, "hosts.a.gpus.0.pci_id: found"),
        ({"cpu": {"model": "x", "cores": 0}}, "hosts.a.cpu.cores: found 0"),
    ],
)
def test_wrong_facts_name_their_path(tmp_path: Path, change: dict[str, object], said: str) -> None:
    assert said in problem(written(tmp_path, a=host(**change)))


def test_a_system_without_a_release_is_read(tmp_path: Path) -> None:
    rolling = {"id": "arch", "version_id": "", "codename": ""}
    assert read_facts(written(tmp_path, a=host(os=rolling))).hosts["a"].release == ("arch", "")


def test_names_that_would_break_a_table_are_refused(tmp_path: Path) -> None:
    assert "found the name 'a\\x1b[2J'" in problem(written(tmp_path, **{"a\x1b[2J": host()}))
    assert "hosts.'a\\x1b'.uptime: unknown key" in problem(written(tmp_path, **{"a\x1b": host(uptime=1)}))
    assert "found the name ''" in problem(written(tmp_path, **{"": host()}))


def test_newer_facts_and_no_facts_are_told(tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_text('{"schema_version": 2}')
    assert "made by a newer onprem-llm" in problem(file)
    file.write_text("")
    assert "f: this is not a file of facts" in problem(file)
    assert "no such file" in problem(tmp_path / "g")
    assert "no host is in the facts" in problem(written(tmp_path))


def test_a_byte_that_is_no_text_hides_nothing(tmp_path: Path) -> None:
    file = written(tmp_path, a=host())
    file.write_bytes(file.read_bytes().replace(b'"mount": "/"', b'"mount": "/m\xff"'))
    assert read_facts(file).hosts["a"].disks[0].mount == "/m�"
