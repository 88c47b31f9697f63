"""Whose lines are shown, and how: the programs run on this machine."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from recorded_facts import Facts, lab

from onprem_llm.commands import logs
from onprem_llm.errors import OnpremError
from onprem_llm.look import View
from onprem_llm.main import cli
from onprem_llm.probe import parse_current
from onprem_llm.ssh import Route

# Followed programs wait for each other: on a loaded machine one may begin long after the others.
ALL_THREE = "touch {folder}/{name}; while [ $(ls {folder} | wc -l) -lt 3 ]; do sleep 0.1; done; sleep 0.2;"

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="programs are started as root")


def project(name: str, deployment: str | None = None) -> Facts:
    labels = {"onprem-llm.deployment": deployment, "onprem-llm.replica": name[-1]} if deployment else {}
    return {"path": f"/srv/{name}", "files": {}, "containers": [{"service": "s", "labels": labels}]}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Return a function that runs `logs` on two hosts; /srv/NAME's log is two lines that name it."""
    facts = lab()
    facts["lab-1"]["projects"] = {name: project(name, "tiny") for name in ("tiny-10", "tiny-1")}
    facts["lab-2"]["projects"] = {"tiny-0": project("tiny-0", "tiny"), "gateway": project("gateway")}
    facts["lab-1"]["projects"]["gateway"] = project("gateway")
    facts["lab-1"]["projects"]["tiny-10"]["containers"][0]["labels"]["onprem-llm.replica"] = "10"
    (tmp_path / "inventory.ini").write_text("a\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(logs, "look", lambda *_: View(parse_current(facts), (), "salt"))
    (began := tmp_path / "began").mkdir()
    local = {name: Route(name, True, name, None, None, None, ()) for name in facts}
    monkeypatch.setattr(logs, "routes", lambda _, hosts: {host: local[host] for host in hosts})

    def argv(place: logs.Place, follow: bool, tail: int) -> list[str]:
        where = f"{place.project.name}@{place.host.name}"
        last = "echo why >&2; exit 3" if place.project.name == "tiny-1" else ""
        between = ALL_THREE.format(folder=began, name=where) if follow else ""
        return ["sh", "-c", f"printf '\\033[2K{where} one\\n'; {between} printf '{where} two'; {last}"]

    monkeypatch.setattr(logs, "_argv", argv)
    return lambda *arguments: CliRunner().invoke(cli, ["logs", *arguments], standalone_mode=False)


def test_one_replica_has_no_beginning_of_lines(run: Callable[..., Result]) -> None:
    done = run("tiny", "--replica", "0")
    assert done.exception is None
    assert done.stdout == "tiny-0@lab-2 one\ntiny-0@lab-2 two\n"


def test_all_replicas_one_after_the_other_in_their_order_and_one_that_fails_hides_no_other(
    run: Callable[..., Result],
) -> None:
    done = run("tiny")
    assert done.stdout.splitlines() == [
        "tiny-0  | tiny-0@lab-2 one", "tiny-0  | tiny-0@lab-2 two",
        "tiny-1  | tiny-1@lab-1 one", "tiny-1  | tiny-1@lab-1 two",
        "tiny-10 | tiny-10@lab-1 one", "tiny-10 | tiny-10@lab-1 two",
    ]  # fmt: skip
    assert isinstance(done.exception, OnpremError)
    assert "why" in str(done.exception.details)


def test_followed_lines_come_as_they_are_written_and_whole(run: Callable[..., Result]) -> None:
    done = run("tiny", "-f")
    lines = done.stdout.splitlines()
    assert len(lines) == 6
    assert [line.split()[-1] for line in lines] == ["one"] * 3 + ["two"] * 3
    assert all(line.split(" | ")[1].startswith(line.split()[0] + "@") for line in lines)


def test_two_gateways_are_told_by_their_hosts(run: Callable[..., Result]) -> None:
    lines = run("gateway").stdout.splitlines()
    assert lines[0] == "lab-1 | gateway@lab-1 one"
    assert lines[2] == "lab-2 | gateway@lab-2 one"


def test_a_replica_that_is_not_there_names_those_that_are(run: Callable[..., Result]) -> None:
    done = run("tiny", "--replica", "7")
    assert "has no replica 7; it has: tiny-0, tiny-1, tiny-10" in str(done.exception)
    assert "there is: gateway" in str(run("nope").exception)
