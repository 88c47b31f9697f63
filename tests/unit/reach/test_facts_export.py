"""`onprem-llm facts`: a real export from this machine, and what show makes of files."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from tests.made_facts import host_facts
from tests.unit.checks.test_network_judge import Site

from onprem_llm import runner
from onprem_llm.checks.report import Report
from onprem_llm.connection import Connection
from onprem_llm.errors import InvalidError, UnreachableError
from onprem_llm.facts import export as facts_export
from onprem_llm.main import cli
from onprem_llm.resources import PACKAGE
from onprem_llm.run_events import RunResult


def run(*arguments: object) -> str:
    done = CliRunner().invoke(cli, [str(one) for one in arguments])
    if done.exception:
        raise done.exception
    return done.stdout


def written(folder: Path) -> Path:
    path = folder / "inventory.ini"
    here = f"ansible_connection=local ansible_become=false ansible_python_interpreter={sys.executable}"
    path.write_text(f"web-7 {here}\n[all:vars]\nansible_ssh_common_args='-o BatchMode=yes -o ConnectTimeout=2'\n")
    return path


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    return written(tmp_path)


def test_export_writes_what_the_script_says(inventory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = run("facts", "export", "-i", inventory, "-o", tmp_path / "facts.json")
    assert table.startswith("HOST ")
    assert "web-7" in table
    (tmp_path / "collect.sh").write_text(run("facts", "collect-script"))
    script = subprocess.run(["sh", str(tmp_path / "collect.sh"), "web-7"], capture_output=True, check=True).stdout
    said = json.loads(script)
    # The shell finds another python3 than the one that Ansible was told to use.
    said["hosts"]["web-7"]["python"] = json.loads((tmp_path / "facts.json").read_text())["hosts"]["web-7"]["python"]
    (tmp_path / "web-7.json").write_text(json.dumps(said))
    merged = run(
        "facts", "show", tmp_path / "facts.json", tmp_path / "web-7.json", "-o", tmp_path / "all.json", "--json"
    )
    assert list(json.loads(merged)["hosts"]) == ["web-7"]
    assert (tmp_path / "all.json").read_bytes() == (tmp_path / "facts.json").read_bytes()
    assert not list(tmp_path.glob(".*"))


def test_export_puts_the_measured_lines_of_its_hosts_beside_them(
    inventory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two = {name: {**host_facts(), "collected_with": "test"} for name in ("a", "b")}
    answer = RunResult(("a", "b"), {name: {"facts": {"facts": one}} for name, one in two.items()}, {}, ())
    monkeypatch.setattr(facts_export, "run", lambda *_, **__: answer)
    site = Site(("a", "b", "elsewhere"))
    site.link("b", "a")["blocked"] = [[7600, "no answer"]]
    (tmp_path / "monday.json").write_bytes(Report("2026-11-22T05:00:00Z", {}, {}, network=site.document()).as_bytes())
    run("facts", "export", "-i", inventory, "-o", tmp_path / "facts.json", "--network", tmp_path / "monday.json")
    network = json.loads((tmp_path / "facts.json").read_text())["network"]
    assert network["measured_at"] == "2026-11-22T05:00:00Z"
    assert [(line["source"], line["target"], line["problems"]) for line in network["lines"]] == [
        ("a", "b", []), ("b", "a", ["TCP ports are shut: 7600"]),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def with_silent(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunResult]:
    """An inventory with a host that does not answer, and what a real run says of it: asked once."""
    inventory = written(tmp_path_factory.mktemp("site"))
    with inventory.open("a") as stream:
        stream.write("[more]\nsilent ansible_host=127.0.0.1 ansible_port=1\n")
    return inventory, runner.run("probe.yml", Connection(inventory), variables={"onprem_llm_facts": True})


@pytest.fixture
def half_silent(with_silent: tuple[Path, RunResult], monkeypatch: pytest.MonkeyPatch) -> Path:
    inventory, said = with_silent

    def again(playbook: str, connection: Connection, *, variables: dict[str, object], **_: object) -> RunResult:
        assert (playbook, connection.inventory, variables) == ("probe.yml", inventory, {"onprem_llm_facts": True})
        return said

    monkeypatch.setattr(facts_export, "run", again)
    return inventory


def test_a_silent_host_writes_nothing(half_silent: Path, tmp_path: Path) -> None:
    out = tmp_path / "facts.json"
    with pytest.raises(UnreachableError, match="silent") as raised:
        run("facts", "export", "-i", half_silent, "-o", out)
    assert "collect-script" in (raised.value.hint or "")
    assert not out.exists()


def test_a_silent_host_is_left_out(half_silent: Path, tmp_path: Path) -> None:
    out = tmp_path / "facts.json"
    run("facts", "export", "-i", half_silent, "-o", out, "--skip-unreachable")
    assert list(json.loads(out.read_text())["hosts"]) == ["web-7"]


def test_the_script_is_printed_as_it_is() -> None:
    assert run("facts", "collect-script") == (PACKAGE / "facts" / "collect.sh").read_text()


def test_show_names_two_files_that_differ(tmp_path: Path) -> None:
    said = subprocess.run(["sh", str(PACKAGE / "facts/collect.sh"), "a"], capture_output=True, check=True).stdout
    (tmp_path / "one").write_bytes(said)
    changed = json.loads(said)
    changed["hosts"]["a"]["kernels"]["running"] = "9.9.9"
    (tmp_path / "two").write_text(json.dumps(changed))
    with pytest.raises(InvalidError, match="say different things of this host: kernels"):
        run("facts", "show", tmp_path / "one", tmp_path / "two")
