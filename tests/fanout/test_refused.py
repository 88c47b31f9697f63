"""What a host cannot go on with: it says so in its log, and in status.json where that can be written."""

import json
import os
import signal
import subprocess
import sys

import pytest
from tests.fanout.kit import PROGRAM, content


@pytest.mark.parametrize("other", ["f.partial", "f.partial/g"])
def test_a_name_under_which_another_file_grows_is_refused(chain, other):
    """Both would be written to one file, and what was checked there be lost."""
    run = chain(2, files={"f": content(1, 40_000)})
    run.common["files"].append({**run.common["files"][0], "path": other})
    run.start(1)
    said = run.fails(1)
    assert "the order names 'f.partial', under which 'f' grows; nothing was written" in said
    assert not list(run.data(1).iterdir())


@pytest.mark.parametrize("name", ["f", "f.partial"])
@pytest.mark.parametrize("kind", ["fifo", "folder"])
def test_what_is_no_plain_file_is_named_and_waited_for_by_nobody(chain, name, kind):
    run = chain(2, files={"f": content(1, 40_000)})
    path = run.data(1) / name
    os.mkfifo(path) if kind == "fifo" else path.mkdir()
    run.start(1)
    assert f"host1: {path} is no plain file: remove it" in run.fails(1)
    assert run.status(1)["state"] == "failed"


def test_status_json_has_what_ended_it_before_it_began(chain):
    run = chain(2)
    del run.common["piece"]
    run.start(1)
    said = run.fails(1)
    assert "the order is not whole: KeyError('piece')" in said
    assert "Traceback" not in said
    assert run.status(1) == {"state": "failed", "error": said.strip()}


def test_a_folder_without_an_order_is_told_in_it(tmp_path):
    ended = subprocess.run(
        [sys.executable, "-m", "fan_out", str(tmp_path)], capture_output=True, text=True, check=False, timeout=20,
        env={**os.environ, "PYTHONPATH": str(PROGRAM), "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    assert "order.json" in json.loads((tmp_path / "status.json").read_text())["error"]


def full(new):
    new.symlink_to("/dev/full")
    return "No space left on device"


def folder(new):
    new.mkdir()
    return "Is a directory"


@pytest.mark.parametrize("hinder", [full, folder])
def test_a_status_that_cannot_be_written_is_said_and_fails_and_the_files_come(chain, hinder):
    run = chain(3, linger=1)
    new = run.host(1) / "status.new"
    why = hinder(new)
    run.start()
    said = run.fails(1)
    assert "Traceback" not in said
    assert said.splitlines()[-1] == f"host1: {new} cannot be written: {why}; make room or remove what is there"
    assert said.count("cannot be written") == 2, "once when it began to be so, and as the last word"
    run.right(1)
    run.until_done(2)


def test_a_measurement_that_cannot_be_told_has_failed(chain):
    run = chain(2)
    new = run.host(1) / "status.new"
    why = full(new)
    run.start(more=["--measure"])
    run.until(lambda: run.status(0).get("state") == "measured")
    run.until(lambda: f"host1: {new} cannot be written: {why}" in run.log(1))
    assert "Traceback" not in run.log(1)
    assert ended(run, 1) == 1
    assert ended(run, 0) == 0


def ended(run, rank):
    run.running[rank].send_signal(signal.SIGTERM)
    return run.running.pop(rank).wait(10)


def test_a_line_that_could_not_be_measured_fails(chain, monkeypatch, capsys):
    from fan_out import measure
    from fan_out.__main__ import Run

    monkeypatch.setattr(measure, "WAIT", 0.3)
    monkeypatch.setattr(measure, "SERVE", 2)
    run = chain(2)
    (run.host(1) / "order.json").write_text(json.dumps(run.order(1)))
    (run.host(1) / "secret").write_text(run.secrets[1])
    assert Run(run.host(1)).measure() == 1
    assert run.status(1)["state"] == "failed"
    assert "host1: host0 at" in run.status(1)["error"]
    assert "host1: host0 at" in capsys.readouterr().err


@pytest.mark.parametrize("more", [[], ["--measure"]], ids=["bring", "measure"])
def test_a_port_that_is_taken_is_told_in_the_status(chain, more):
    old = chain(2, root="old", run="old").start(1)
    old.until(lambda: old.status(1))
    new = chain(2, root="new", run="new")
    new.addresses = old.addresses
    new.start(1, more=more)
    new.fails(1)
    assert "is another run at work there?" in new.status(1)["error"]
    assert new.status(1)["state"] == "failed"
