"""`onprem-llm facts`: measured lines beside hosts, what show makes of files. Exports: tests/ansible_runs."""

import json
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner
from tests.made_facts import host_facts
from tests.unit.checks.test_network_judge import Site

from onprem_llm.checks.report import Report
from onprem_llm.errors import InvalidError
from onprem_llm.facts import export as facts_export
from onprem_llm.main import cli
from onprem_llm.resources import PACKAGE
from onprem_llm.run_events import RunResult


def run(*arguments: object) -> str:
    done = CliRunner().invoke(cli, [str(one) for one in arguments])
    if done.exception:
        raise done.exception
    return done.stdout


def test_export_puts_the_measured_lines_of_its_hosts_beside_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inventory = tmp_path / "inventory.ini"
    inventory.write_text("a\nb\nelsewhere\n")
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
