"""`probe`: a recorder is believed only after it saw what we sent ourselves."""

import json
import subprocess
from collections.abc import Sequence

import pytest

from onprem_llm.errors import OnpremError
from onprem_llm.lab import closed
from onprem_llm.lab.attempts import group
from onprem_llm.lab.state import Host

from .conftest import Net

HOST = Host("prove-1", "10.219.7.11", None)


@pytest.fixture
def host(net: Net, monkeypatch: pytest.MonkeyPatch) -> Host:
    """A host whose commands run in the namespace; systemd is not there."""

    def exec_root(name: str, argv: Sequence[str]) -> subprocess.CompletedProcess[str]:
        if argv[0] in {"systemctl", "journalctl"}:
            state = "failed" if net.recorder.poll() is not None else "active"
            return subprocess.CompletedProcess(argv, 0, f"{state}\n", "")
        return subprocess.run(net.argv("host", *argv), capture_output=True, text=True, check=False, timeout=60)

    monkeypatch.setattr(closed.engine, "exec_root", exec_root)
    monkeypatch.setattr(closed, "FOLDER", str(net.folder))
    return HOST


def test_what_we_send_is_seen_and_is_no_attempt(net: Net, host: Host) -> None:
    closed.probe(host)
    found = closed.recorded(host)
    assert found.problem is None
    assert len(found.attempts) == 1
    assert group({"gpu1": found.attempts}) == []


def test_a_recorder_that_is_gone_is_noticed(net: Net, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(closed, "PROBE_S", 2.0)
    net.recorder.kill()
    net.recorder.wait()
    with pytest.raises(OnpremError, match="did not see what we sent"):
        closed.probe(host)
    assert "does not run" in str(closed.recorded(host).problem)


@pytest.mark.parametrize(("field", "value", "said"), [("lost", 3, "too slow for 3"), ("starts", 2, "started 2 times")])
def test_a_recorder_that_missed_something_is_not_believed(
    net: Net, host: Host, field: str, value: int, said: str
) -> None:
    closed.probe(host)
    net.recorder.kill()
    net.recorder.wait()
    state = {**net.state(), field: value}
    (net.folder / "state.json").write_text(json.dumps(state))
    assert said in str(closed.recorded(host).problem)
