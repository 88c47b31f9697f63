"""`onprem-llm facts export` from this machine, and beside a host that does not answer."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from onprem_llm import runner
from onprem_llm.connection import Connection
from onprem_llm.errors import UnreachableError
from onprem_llm.facts import export as facts_export
from onprem_llm.main import cli
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


def test_export_writes_what_the_script_says(tmp_path: Path) -> None:
    inventory = written(tmp_path)
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
