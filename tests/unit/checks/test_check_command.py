"""`onprem-llm check`: what it prints, saves and ends with; the runs against hosts are stood in for."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from onprem_llm import checking
from onprem_llm.errors import ExitCode, OnpremError
from onprem_llm.main import cli
from onprem_llm.run_events import HostFailure, RunResult

GPU = {"index": 0, "uuid": "GPU-a", "bus_id": "0000:18:00.0", "name": "NVIDIA H100", "memory_free": 80000}


def found(check: str, level: str = "ok", text: str = "as it should be") -> dict[str, str]:
    remedy = "" if level == "ok" else f"Mend {check}."
    return {"role": "gpu_check", "check": check, "level": level, "found": text, "expected": "well", "remedy": remedy}


class Hosts:
    """What hosts answer to a playbook; remembers what was run with which order."""

    def __init__(self) -> None:
        self.answers: dict[str, dict[str, Any]] = {}
        self.trials: dict[str, Any] = {}
        self.failures: tuple[HostFailure, ...] = ()
        self.runs: list[tuple[str, Sequence[str] | None, Any]] = []

    def has(self, host: str, *findings: dict[str, str], gpus: Sequence[Mapping[str, Any]] = (GPU,)) -> None:
        access = {"engine": True, "cdi_on": True, "cdi": ["nvidia.com/gpu=GPU-a"], "containers": []}
        facts = {"now": 1, "gpus": list(gpus), "access": access, "driver": {}, "links": {}, "xids": []}
        self.answers[host] = {"findings": [found("gpus"), *findings], "gpu_check": facts}

    def run(self, playbook: str, connection: object, **options: Any) -> RunResult:
        variables = options.get("variables") or {}
        order = json.loads(Path(variables["onprem_llm_order_file"]).read_text()) if variables else None
        self.runs.append((playbook, options.get("hosts"), order))
        if playbook == "check.yml":
            names = (*self.answers, *(one.host for one in self.failures))
            return RunResult(names, self.answers, {}, self.failures)
        hosts = options["hosts"]
        returned = {host: {"trials": [self.trials[host]]} for host in hosts if host in self.trials}
        return RunResult(tuple(hosts), returned, {}, ())


@pytest.fixture
def hosts(monkeypatch: pytest.MonkeyPatch) -> Hosts:
    made = Hosts()
    monkeypatch.setattr(checking, "run", made.run)
    return made


@pytest.fixture
def inventory(tmp_path: Path) -> str:
    (tmp_path / "inventory.ini").write_text("a\nb\n")
    return str(tmp_path / "inventory.ini")


def check(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["check", *arguments])


def code(result: Result) -> int:
    """Return the exit code as main.py makes it of an error."""
    return int(result.exception.exit_code) if isinstance(result.exception, OnpremError) else result.exit_code


def test_all_is_well(hosts: Hosts, inventory: str) -> None:
    hosts.has("a", found("xid"))
    hosts.has("b", found("xid"))
    result = check(inventory)
    assert code(result) == ExitCode.OK
    assert "a, b  gpus" in result.stdout
    assert "xid" not in result.stdout
    assert "2 more checks passed; --verbose shows them." in result.stdout
    assert "2 hosts: 2 well." in result.stdout
    assert "xid" in check(inventory, "--verbose").stdout


def test_an_error_is_an_exit_code_and_a_remedy(hosts: Hosts, inventory: str) -> None:
    hosts.has("a", found("xid", "error", "Xid 79"), found("pcie", "warning", "8 lanes"))
    hosts.has("b", found("pcie", "warning", "8 lanes"))
    result = check(inventory)
    assert code(result) == ExitCode.FAILED
    assert "1 of 2 hosts have errors: a" in str(result.exception)
    assert "  xid (a): Mend xid." in result.stdout
    assert "  pcie (a, b): Mend pcie." in result.stdout
    assert "2 hosts: 1 with errors, 1 with warnings." in result.stdout


def test_a_warning_is_no_failure(hosts: Hosts, inventory: str) -> None:
    hosts.has("a", found("pcie", "warning"))
    assert code(check(inventory)) == ExitCode.OK


def test_a_host_that_does_not_answer(hosts: Hosts, inventory: str) -> None:
    hosts.has("a")
    hosts.failures = (HostFailure("b", "t", "No route to host", unreachable=True),)
    result = check(inventory)
    assert code(result) == ExitCode.UNREACHABLE
    assert "1 host: 1 well." in result.stdout
    assert code(check(inventory, "--skip-unreachable")) == ExitCode.OK


def test_nobody_answers(hosts: Hosts, inventory: str, tmp_path: Path) -> None:
    hosts.failures = (HostFailure("b", "t", "No route to host", unreachable=True),)
    earlier = tmp_path / "monday.json"
    earlier.write_text("an earlier report")
    result = check(inventory, "--save", str(earlier))
    assert code(result) == ExitCode.UNREACHABLE
    assert result.stdout == ""  # the error says it, once
    assert "1 host could not be looked at: b" in str(result.exception)
    assert earlier.read_text() == "an earlier report"


def test_nobody_answers_and_nobody_has_to(hosts: Hosts, inventory: str) -> None:
    hosts.failures = (HostFailure("b", "t", "No route to host", unreachable=True),)
    result = check(inventory, "--skip-unreachable")
    assert code(result) == ExitCode.OK
    assert (result.stdout, result.stderr.count("No host answered.")) == ("", 1)


def test_the_trial_is_a_run_of_its_own_on_hosts_that_have_an_image(hosts: Hosts, inventory: str) -> None:
    hosts.has("a")
    hosts.has("b", gpus=())
    hosts.trials["a"] = found("engine_image", "error", "vllm:1: GPU 0 multiplied wrongly")
    result = check(inventory, "--image", "vllm:1")
    order = {"image": "vllm:1", "name": "vllm:1", "access": "cdi", "devices": ["nvidia.com/gpu=GPU-a"], "gpus": 1}
    order["others"] = [{"access": "gpus", "devices": ["GPU-a"]}]
    assert hosts.runs == [("check.yml", None, None), ("try_gpus.yml", ["a"], {"a": {"trials": [order]}})]
    assert code(result) == ExitCode.FAILED
    assert "GPU 0 multiplied wrongly" in result.stdout


def test_without_a_trial_one_run_is_all(hosts: Hosts, inventory: str) -> None:
    hosts.has("a")
    result = check(inventory, "--no-trial")
    assert [playbook for playbook, _, _ in hosts.runs] == ["check.yml"]
    assert "engine_image" not in result.stdout
    assert code(check(inventory, "--no-trial", "--image", "x")) == ExitCode.USAGE


def test_why_nothing_was_tried_is_said(hosts: Hosts, inventory: str) -> None:
    hosts.has("a")
    assert "not tried: no deployment has GPUs on this host" in check(inventory).stdout
    assert [playbook for playbook, _, _ in hosts.runs] == ["check.yml"]


def test_saved_and_compared(hosts: Hosts, inventory: str, tmp_path: Path) -> None:
    saved = str(tmp_path / "one.json")
    hosts.has("a", gpus=(GPU, {**GPU, "index": 1, "uuid": "GPU-b", "bus_id": "0000:2a:00.0"}))
    assert code(check(inventory, "--save", saved)) == ExitCode.OK
    assert "nothing changed" in check(inventory, "--against", saved).stdout
    hosts.has("a")
    result = check(inventory, "--against", saved, "--save", saved)
    assert "half of the GPUs are missing: 1 of 2 GPUs; gone: NVIDIA H100 at 0000:2a:00.0" in result.stdout
    assert "1 of 1 hosts have errors: a" in str(result.exception)
    # It was read before it was written.
    assert "nothing changed" in check(inventory, "--against", saved).stdout


def test_a_file_that_is_none_is_refused_before_a_host_is_asked(hosts: Hosts, inventory: str, tmp_path: Path) -> None:
    (tmp_path / "no.json").write_text("{}")
    result = check(inventory, "--against", str(tmp_path / "no.json"))
    assert (code(result), hosts.runs) == (ExitCode.VALIDATION, [])


def test_json(hosts: Hosts, inventory: str, tmp_path: Path) -> None:
    hosts.has("a", found("xid", "error"))
    saved = tmp_path / "one.json"
    check(inventory, "--save", str(saved))
    result = check(inventory, "--json", "--against", str(saved))
    document = json.loads(result.stdout)
    assert (document["kind"], document["schema"], document["changes"]) == ("onprem-llm-check", 1, {})
    assert [one["check"] for one in document["hosts"]["a"]["findings"]] == ["gpus", "xid", "engine_image"]
    assert document["hosts"]["a"]["facts"]["gpus"][0]["uuid"] == "GPU-a"
    assert code(result) == ExitCode.FAILED
    assert "changes" not in json.loads(saved.read_text())
