"""What status makes of what hosts and gateways say; the facts are written as the probe writes them."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from recorded_facts import Facts, host, lab

from onprem_llm import silent_gateways
from onprem_llm.commands import status
from onprem_llm.commands.status import Seen, see, tables
from onprem_llm.connection import Connection
from onprem_llm.errors import OnpremError, UsageError
from onprem_llm.look import View
from onprem_llm.main import cli
from onprem_llm.probe import parse_current
from onprem_llm.run_events import HostFailure
from onprem_llm.ssh import Route

NOW = datetime.now(UTC).timestamp()
MODEL = """\
api_version: 1
name: tiny
model: model
engine: {image: "vllm:1"}
replicas: 3
routing: session
"""


def container(project: str, name: str, listen: str, **changes: Any) -> Facts:
    labels = {"deployment": name, "replica": project[-1], "revision": "2", "listen": listen}
    return {
        "service": "vllm", "id": project, "name": f"{project}-vllm-1", "image": "sha256:1", "state": "running",
        "health": "healthy", "started_at": "2026-11-21T10:00:00Z", "restarts": 0,
        "labels": {f"onprem-llm.{key}": value for key, value in labels.items()}, **changes,
    }  # fmt: skip


def project(one: Facts) -> Facts:
    return {"path": f"/srv/{one['name']}", "files": {}, "containers": [one]}


def server(**changes: Any) -> Facts:
    return {
        "address": "10.0.0.2",
        "port": 8000,
        "admin": "ready",
        "up": True,
        "check": "L7OK",
        "sessions": 2,
        **changes,
    }


def book(mark: str = "gateway", text: str = MODEL) -> Facts:
    placement = {f"tiny-{n}": {"host": f"lab-{n % 2 + 1}", "revision": 2} for n in range(3)}
    entry = {"revision": 2, "model_yaml": text, "images": {}, "recorded_at": "t", "placement": placement}
    return {"gateway": mark == "gateway", "second": mark == "second", "deployments": {"tiny": entry}}


@pytest.fixture
def facts() -> dict[str, Facts]:
    """Two hosts: tiny-0 and the gateway on lab-1, tiny-1 on lab-2; tiny-2 is not there."""
    found = lab()
    one, two = found["lab-1"], found["lab-2"]
    one["projects"] = {
        "tiny-0": project(container("tiny-0", "tiny", "10.0.0.2:8000")),
        "gateway": project({**container("gateway", "", "0.0.0.0:8080"), "labels": {}}),
    }
    two["projects"] = {"tiny-1": project(container("tiny-1", "tiny", "10.0.0.3:8000"))}
    one["gateway"] = {"running": True, "error": None, "servers": {"tiny/tiny-0": server(), "tiny/tiny-1": server()}}
    one["book"] = book()
    one["healer"] = two["healer"] = True
    return found


def seen(facts: dict[str, Facts], silent: tuple[str, ...] = ()) -> Seen:
    failures = tuple(HostFailure(name, "t", "no route", unreachable=True) for name in silent)
    return see(View(parse_current(facts, silent), failures, "salt"), Connection(Path("/i/inventory.ini")))


def rotation(of: Seen) -> dict[str, str | None]:
    return {row.project: row.rotation for row in of.replicas}


def test_a_deployment_is_shown_as_clients_meet_it(facts: dict[str, Facts]) -> None:
    found = seen(facts)
    (tiny,) = found.deployments
    assert (tiny.name, tiny.revision, tiny.ready, tiny.wanted) == ("tiny", 2, 2, 3)
    assert (tiny.requests, tiny.routing, tiny.address) == (4, "session", "https://10.0.0.2:8080/v1")
    assert [(row.project, row.state, row.host) for row in found.replicas if row.state != "running"] == [
        ("tiny-2", "missing", "lab-1")
    ]
    assert found.notes == []
    text = tables(found)
    assert "2/3" in text.splitlines()[1]
    assert text.splitlines()[3].startswith("REPLICA")


@pytest.mark.parametrize(
    ("change", "shown", "ready"),
    [
        ({"admin": "drain"}, "drain", 1),
        ({"admin": "drain", "up": False}, "drain", 1),
        ({"up": False}, "down", 1),
        ({"admin": "maint"}, "down", 1),
        ({}, "in", 2),
    ],
)
def test_what_the_gateway_does_with_a_replica(facts: dict[str, Facts], change: Facts, shown: str, ready: int) -> None:
    facts["lab-1"]["gateway"]["servers"]["tiny/tiny-1"] = server(**change)
    found = seen(facts)
    assert rotation(found)["tiny-1"] == shown
    assert found.deployments[0].ready == ready


def test_a_replica_that_the_gateway_does_not_know_is_out(facts: dict[str, Facts]) -> None:
    del facts["lab-1"]["gateway"]["servers"]["tiny/tiny-1"]
    found = seen(facts)
    assert rotation(found) == {"tiny-0": "in", "gateway": None, "tiny-1": "out", "tiny-2": None}
    assert (found.deployments[0].ready, found.deployments[0].requests) == (1, 2)


def test_why_a_replica_is_kept_out_is_said(facts: dict[str, Facts]) -> None:
    facts["lab-1"]["gateway"]["servers"]["tiny/tiny-1"] = server(up=False, check="L7RSP/200")
    (note,) = seen(facts).notes
    assert note == "tiny-1: the gateway on lab-1 keeps it out, its check says L7RSP/200: onprem-llm logs tiny"


def test_an_unhealthy_replica_is_not_ready_whatever_the_gateway_says(facts: dict[str, Facts]) -> None:
    facts["lab-2"]["projects"]["tiny-1"]["containers"][0]["health"] = "unhealthy"
    assert seen(facts).deployments[0].ready == 1


def test_a_gateway_that_is_down_and_none_else(facts: dict[str, Facts]) -> None:
    facts["lab-1"]["gateway"] = {"running": False, "error": "exited with code 1", "servers": {}}
    found = seen(facts)
    (note,) = found.notes
    assert "The gateway on lab-1 does not run (exited with code 1): clients get no answer" in note
    assert found.deployments[0].requests is None
    assert found.deployments[0].ready == 2


def second(facts: dict[str, Facts]) -> None:
    facts["lab-2"]["projects"]["gateway"] = project({**container("gateway", "", "0.0.0.0:8080"), "labels": {}})
    facts["lab-2"]["gateway"] = facts["lab-1"]["gateway"]
    facts["lab-2"]["book"] = book("second")


def test_the_other_gateway_goes_on_serving(facts: dict[str, Facts]) -> None:
    second(facts)
    facts["lab-1"]["gateway"] = {"running": False, "error": "exited", "servers": {}}
    found = seen(facts)
    assert "lab-2 goes on serving (curl -ks https://10.0.0.3:8080/healthz)" in found.notes[0]
    assert found.deployments[0].address == "https://10.0.0.3:8080/v1"


def test_the_gateway_host_is_silent_and_the_copy_of_the_book_is_used(facts: dict[str, Facts]) -> None:
    second(facts)
    del facts["lab-1"]
    found = seen(facts, ("lab-1",))
    assert "The gateway host lab-1 did not answer: lab-2 goes on serving" in found.notes[0]
    assert [(row.project, row.state) for row in found.replicas if row.deployment] == [
        ("tiny-1", "running"), ("tiny-0", "unknown"), ("tiny-2", "unknown"),
    ]  # fmt: skip
    assert (found.deployments[0].ready, found.deployments[0].wanted) == (1, 3)


@pytest.mark.parametrize("known_by", ["group", "peers"])
def test_the_second_gateway_host_is_silent(
    facts: dict[str, Facts], monkeypatch: pytest.MonkeyPatch, known_by: str
) -> None:
    groups = {"lab-1": ("gateway",), "lab-2": ("gateway",)} if known_by == "group" else {}
    ways = {name: Route(name, False, name, None, None, None, (), groups=groups.get(name, ())) for name in facts}
    monkeypatch.setattr(silent_gateways, "routes", lambda _: ways)
    facts["lab-1"]["gateway"]["peers"] = ["10.0.0.3"] if known_by == "peers" else []
    del facts["lab-2"]
    (note,) = seen(facts, ("lab-2",)).notes
    assert note == (
        "The gateway host lab-2 did not answer: lab-1 goes on serving (curl -ks https://10.0.0.2:8080/healthz)"
    )
    facts["lab-1"]["gateway"] |= {"running": False, "error": "exited"}
    assert (
        "The gateway host lab-2 did not answer, and no host that answered runs a gateway"
        in seen(facts, ("lab-2",)).notes[0]
    )
    facts["lab-1"]["book"]["hosts"] = {"lab-2": {"state": "lost", "by": None, "at": None}}
    assert "did not answer" not in "\n".join(seen(facts, ("lab-2",)).notes)


def test_a_silent_host_that_is_no_gateway_host_is_not_called_one(
    facts: dict[str, Facts], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(silent_gateways, "routes", lambda _: {})
    del facts["lab-2"]
    assert seen(facts, ("lab-2",)).notes == []


def test_which_silent_host_is_the_gateway_host_may_not_be_known(
    facts: dict[str, Facts], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(silent_gateways, "routes", lambda _: {})
    facts["lab-1"]["gateway"]["peers"] = ["10.0.0.3"]
    del facts["lab-2"]
    assert (
        "The gateway host (one of lab-2, lab-3) did not answer: lab-1 goes" in seen(facts, ("lab-2", "lab-3")).notes[0]
    )


def test_without_any_book_what_runs_is_shown(facts: dict[str, Facts]) -> None:
    del facts["lab-1"]
    found = seen(facts, ("lab-1",))
    (tiny,) = found.deployments
    assert (tiny.revision, tiny.ready, tiny.wanted, tiny.address) == (2, 1, None, None)
    assert "1/?" in tables(found)
    assert "no host that answered runs a gateway" in found.notes[0]


def test_gateways_that_differ_are_shown_and_counted_together(facts: dict[str, Facts]) -> None:
    second(facts)
    facts["lab-2"]["gateway"] = {"running": True, "servers": {"tiny/tiny-0": server(up=False, sessions=1)}}
    found = seen(facts)
    assert rotation(found)["tiny-0"] == "in/down"
    assert found.deployments[0].requests == 5
    assert found.deployments[0].ready == 0


def test_a_copy_of_the_book_that_differs_is_reported(facts: dict[str, Facts]) -> None:
    second(facts)
    facts["lab-2"]["book"] = book("second", MODEL.replace("3", "2"))
    assert "The book on lab-2 differs from lab-1's, which counts" in seen(facts).notes[0]


def test_a_copy_without_the_keys_is_reported(facts: dict[str, Facts]) -> None:
    second(facts)
    facts["lab-1"]["keys"] = facts["lab-2"]["keys"] = {"tiny": "1", "engine.key": "its own"}
    assert not [note for note in seen(facts).notes if "The book on" in note]
    facts["lab-2"]["keys"] = {}
    assert "or lacks its keys: the next deploy brings it in line" in seen(facts).notes[0]


def test_certificates_are_told_thirty_days_before(facts: dict[str, Facts]) -> None:
    day = 86400
    facts["lab-1"]["certificates"] = {
        "ca": {"not_after": int(NOW + 31 * day)},
        "gateway": {"not_after": int(NOW + 29.1 * day), "names": ["lab-1"]},
        "engine": {"not_after": int(NOW - day)},
        "registry": {"not_after": int(NOW + 8 * day)},
    }
    notes = seen(facts).notes
    assert [note.split(" 20")[0] for note in notes] == [
        "lab-1: the gateway's certificate ends in 29 days, on",
        "lab-1: the engine's certificate ended on",
        "lab-1: the registry's certificate ends in 8 days, on",
    ]
    assert all(note.endswith("onprem-llm tls renew") for note in notes)


def test_what_tls_renew_does_not_renew_is_told_otherwise(facts: dict[str, Facts]) -> None:
    ending = {"not_after": int(NOW + 20 * 86400), "names": ["lab-1"]}
    facts["lab-1"]["certificates"] = {"ca": ending, "gateway": ending, "engine": ending}
    files = {"mode": "files", "certificate": "/c", "key": "/k"}
    for one in facts.values():
        one["site"] = {"gateway": {"tls": files}}
    root, gateway, engine = [note for note in seen(facts).notes if "certificate" in note]
    assert root.endswith("docs/security.md says how it is replaced")
    assert "replace the files that gateway.tls names" in gateway
    assert engine.endswith("onprem-llm tls renew")


def test_an_engine_with_the_certificate_from_before_is_told(facts: dict[str, Facts]) -> None:
    (container,) = facts["lab-1"]["projects"]["tiny-0"]["containers"]
    container["labels"]["onprem-llm.tls"] = "on"
    container["started_at"] = "2026-11-21T00:00:00.123456789Z"
    certificate = {"not_after": int(NOW + 800 * 86400), "names": ["engine.lab-1"], "written": 1_795_219_200}
    facts["lab-1"]["certificates"] = {"engine": certificate}
    assert not [note for note in seen(facts).notes if "certificate" in note]
    certificate["written"] += 1
    (note,) = [note for note in seen(facts).notes if "certificate" in note]
    assert "tiny-0 goes on with the certificate from before it was renewed: onprem-llm restart tiny" in note


def test_what_guards_a_host_and_is_not_in_force_is_told(facts: dict[str, Facts]) -> None:
    facts["lab-1"]["firewall"] = {"ports": [8000], "sources": [], "active": False}
    facts["lab-2"]["healer"] = False
    facts["lab-1"]["book"]["hosts"] = {"lab-2": {"state": "drained", "by": "ann@a", "at": "t"}}
    facts["lab-1"]["gateway"]["pending_reload"] = True
    notes = "\n".join(seen(facts).notes)
    assert "The gateway on lab-1 has not read its newest files" in notes
    assert "lab-1: the rules that guard the engines' ports are not in force" in notes
    assert "lab-2: nothing restarts a replica that hangs there" in notes
    assert "lab-2 is drained, by ann@a, since t" in notes


def test_settings_that_cannot_be_read_hide_nothing(facts: dict[str, Facts]) -> None:
    facts["lab-1"]["site"] = facts["lab-2"]["site"] = {"no_such": 1}
    found = seen(facts)
    assert "settings cannot be read" in found.notes[0]
    assert (found.deployments[0].ready, found.deployments[0].address) == (2, None)


def test_a_book_of_a_newer_version_hides_nothing(facts: dict[str, Facts]) -> None:
    facts["lab-1"]["book"] = book(text="api_version: 9\n")
    assert (seen(facts).deployments[0].wanted, seen(facts).deployments[0].ready) == (None, 2)


def test_nothing_is_deployed() -> None:
    assert tables(seen({"a": host("a", 1)})) == "Nothing is deployed on these hosts."


def test_json_has_all_of_it(facts: dict[str, Facts], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(silent_gateways, "routes", lambda _: {})
    document = json.loads(json.dumps(seen(facts, ("lab-3",)).as_json()))
    assert document["gateway"] == "lab-1"
    assert document["gateways"] == [
        {"host": "lab-1", "running": True, "error": None, "url": "https://10.0.0.2:8080", "pending_reload": False}
    ]
    assert document["deployments"][0]["recorded_at"] == "t"
    assert document["replicas"][0]["rotation"] == "in"
    assert [(one["name"], one["answered"], one["error"]) for one in document["hosts"]] == [
        ("lab-1", True, None), ("lab-2", True, None), ("lab-3", False, "no route"),
    ]  # fmt: skip


@pytest.fixture
def answers(facts: dict[str, Facts], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Return a function that runs `status` on these facts."""
    (tmp_path / "inventory.ini").write_text("a\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(silent_gateways, "routes", lambda _: {})

    def run(*arguments: str, silent: tuple[str, ...] = ()) -> Any:
        failures = tuple(HostFailure(name, "t", "no route", unreachable=True) for name in silent)
        monkeypatch.setattr(status, "look", lambda *_: View(parse_current(facts, silent), failures, "salt"))
        return CliRunner().invoke(cli, ["status", *arguments], standalone_mode=False)

    return run


def test_a_silent_host_is_an_error_after_everything_else_was_shown(answers: Callable[..., Any]) -> None:
    assert answers().exception is None
    done = answers(silent=("lab-3",))
    assert "tiny-1" in done.stdout
    assert isinstance(done.exception, OnpremError)
    assert done.exception.exit_code == 4


def test_watch_needs_a_terminal(answers: Callable[..., Any]) -> None:
    for arguments in (["--watch"], ["--watch", "5"], ["--watch", "--json"]):
        assert isinstance(answers(*arguments).exception, UsageError)


def test_a_look_that_fails_does_not_end_the_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> View:
        raise OnpremError("gave up", hint="again")

    monkeypatch.setattr(status, "look", fail)
    assert "gave up\nagain" in status._frame(Connection(Path("/i")), 2.0)


BY_CLOCK = '- {at: "0 7 * * mon-fri", replicas: 3}\n- {at: "0 19 * * mon-fri", replicas: 1}\n'


def schedule(off: list[str], **changes: Any) -> Facts:
    coming = {"at": "2026-11-23T07:00", "replicas": 3}
    decided = {"replicas": 3 - len(off), "slots": 3, "off": off, "since": "2026-11-20T19:00", "next": coming}
    order = ["tiny-0", "tiny-1", "tiny-2"]
    return {"tiny": {"files": {}, "armed": True, "order": order, "decided": decided, **changes}}


def test_what_the_clock_has_stopped_is_off_and_not_missed(facts: dict[str, Facts]) -> None:
    text = MODEL.replace("replicas: 3\n", f"schedule:\n{BY_CLOCK}")
    assert text != MODEL
    facts["lab-1"]["book"] = book(text=text)
    for one in facts.values():
        one["schedules"] = schedule(["tiny-1", "tiny-2"])
    facts["lab-2"]["projects"]["tiny-1"]["containers"][0].update(state="exited", health=None, exit_code=0)
    facts["lab-1"]["gateway"]["servers"]["tiny/tiny-1"].update(up=False, check="L4CON")
    found = seen(facts)
    (tiny,) = found.deployments
    assert (tiny.ready, tiny.wanted, tiny.schedule) == (1, 1, "1 of 3 now, 3 at Mon 07:00")
    assert found.notes == ["tiny is scheduled: 1 of 3 now, 3 at Mon 07:00"]
    assert "off (schedule)" in tables(found)
    assert [row.project for row in found.replicas if row.scheduled_off] == ["tiny-1"]


def test_a_gateway_without_a_part_in_a_schedule_is_named(facts: dict[str, Facts]) -> None:
    facts["lab-2"]["schedules"] = schedule([])
    assert any("does not drain replicas of tiny" in note and note.startswith("lab-1: ") for note in seen(facts).notes)


def test_hosts_that_do_not_follow_a_schedule_are_named(facts: dict[str, Facts]) -> None:
    facts["lab-1"]["schedules"] = schedule(["tiny-1", "tiny-2"])
    facts["lab-2"]["schedules"] = schedule([], armed=False)
    notes = seen(facts).notes
    assert any("not at one" in note and "lab-2: 3 of 3 now" in note for note in notes)
    assert any(note.startswith("lab-2: the schedule of tiny is not followed there") for note in notes)
