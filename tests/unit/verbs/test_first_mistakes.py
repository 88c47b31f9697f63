"""What a person gets wrong on the first day: names, files of another kind, hosts that are all off."""

from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from onprem_llm.bootstrapping import Report
from onprem_llm.commands import bootstrap, chat, logs, status
from onprem_llm.errors import ExitCode, InvalidError, UnreachableError
from onprem_llm.look import View
from onprem_llm.main import cli
from onprem_llm.probe import parse_current
from onprem_llm.run_events import HostFailure
from onprem_llm.spec.deployment import load_deployment
from onprem_llm.weights.asked import asked_sources

REFUSED = HostFailure("a", "Look at the host", "ssh: connect to host a port 22: Connection refused", unreachable=True)


@pytest.fixture
def inventory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An inventory whose one host does not answer."""
    (tmp_path / "inventory.ini").write_text("a\n")
    for verb in (logs, chat, status):
        monkeypatch.setattr(verb, "look", lambda *_: View(parse_current({}, ["a"]), (REFUSED,), "salt"))
    monkeypatch.setattr(status, "silent_gateways", lambda *_: ("a",))
    return str(tmp_path / "inventory.ini")


def run(*words: str) -> Any:
    return CliRunner().invoke(cli, words)


@pytest.mark.parametrize(("typed", "meant"), [("deply", "deploy"), ("statsu", "status"), ("rollbak", "rollback")])
def test_a_mistyped_command_is_like_one(typed: str, meant: str) -> None:
    with pytest.raises(click.UsageError, match=f"No such command '{typed}'. Did you mean .*{meant}"):
        cli.main([typed], standalone_mode=False)


def test_one_that_is_like_none_is_refused_as_ever() -> None:
    with pytest.raises(click.UsageError, match=r"No such command 'xyzzy'\.$"):
        cli.main(["xyzzy"], standalone_mode=False)


@pytest.mark.parametrize("words", [("logs",), ("logs", "tiny"), ("chat", "Hi")])
def test_where_no_host_answers_nothing_is_said_to_be_missing(inventory: str, words: tuple[str, ...]) -> None:
    error = run(*words, "-i", inventory).exception
    assert isinstance(error, UnreachableError)
    assert error.message == "no host answered"
    assert "Connection refused" in str(error.details)
    assert "is sshd running on a" in str(error.details)


def test_status_where_no_host_answers(inventory: str) -> None:
    done = run("status", "-i", inventory)
    assert done.stdout == "No host answered.\n"
    assert "The gateway host a did not answer, and no host that answered runs a gateway: clients get no" in done.stderr
    assert done.exception.exit_code == ExitCode.UNREACHABLE
    assert done.exception.message == "1 host did not answer; what runs there is unknown"


def test_bootstrap_where_no_host_answers(capsys: pytest.CaptureFixture[str]) -> None:
    bootstrap.show(Report(("a",), [REFUSED]), check=False, as_json=False, verbose=False)
    assert capsys.readouterr().out == "No host was prepared.\n"


def test_a_folder_of_weights_in_place_of_model_yaml(tmp_path: Path) -> None:
    with pytest.raises(InvalidError, match="this is a folder") as caught:
        load_deployment(tmp_path)
    assert "below `model:`" in str(caught.value.hint)


def test_a_hub_that_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidError, match="neither a file nor a hub 'hugingface'") as caught:
        asked_sources(["hugingface:Qwen/Qwen3-0.6B"])
    assert "huggingface, modelscope" in caught.value.message
    with pytest.raises(InvalidError, match="no such file"):
        asked_sources(["./models/a:b.yaml"])
