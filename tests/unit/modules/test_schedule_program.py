"""The program that follows a schedule on a host: the table against the clock, replicas, the gateway, the hold."""

import http.client
import importlib.util
import json
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

import pytest

from onprem_llm.rendering.schedule import Slot, schedule_files
from onprem_llm.spec.cron import parse_cron
from onprem_llm.spec.deployment import parse_deployment

ROOT = Path(__file__).resolve().parents[3]
PARTS = ("schedule_table", "schedule_slots", "schedule_gateway", "onprem_llm_haproxy")
BERLIN = ZoneInfo("Europe/Berlin")
MODEL = """\
api_version: 1
name: tiny
model: ./models/tiny
engine: {image: "vllm/vllm-openai:v0.11.0"}
update: {drain_timeout: 60}
timeouts: {start: 100}
timezone: Europe/Berlin
schedule:
"""
WORKDAYS = '- {at: "0 7 * * mon-fri", replicas: 3}\n- {at: "0 19 * * mon-fri", replicas: 1}\n'
ORDER = ("tiny-0", "tiny-1", "tiny-2")


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ModuleType]:
    """Load the program as it lies on a host, beside its parts; its folders are below tmp_path."""
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.syspath_prepend(str(ROOT / "roles/gateway/module_utils"))
    monkeypatch.syspath_prepend(str(ROOT / "roles/schedule/files"))
    loader = SourceFileLoader("schedule_program", str(ROOT / "roles/schedule/files/onprem-llm-schedule"))
    spec = importlib.util.spec_from_loader("schedule_program", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    for name, folder in {"ROOT": "schedule", "RUN": "run", "BOOK": "book"}.items():
        monkeypatch.setattr(module, name, tmp_path / folder)
        (tmp_path / folder).mkdir()
    yield module
    for name in PARTS:
        sys.modules.pop(name, None)
    monkeypatch.undo()
    time.tzset()


def table(
    program: Any,
    entries: str = WORKDAYS,
    own: tuple[str, ...] = (),
    gateway: str | None = None,
    zone: str = "Europe/Berlin",
) -> Any:
    deployment = parse_deployment(MODEL.replace("Europe/Berlin", zone) + entries, "model.yaml")
    slots = [Slot(project, f"/srv/{project}", f"http://127.0.0.1:1/{project}/metrics") for project in own]
    files = schedule_files(deployment, ORDER, slots, gateway)
    folder = program.ROOT / "tiny"
    folder.mkdir(exist_ok=True)
    (folder / "table.json").write_text(files["table.json"])
    return program.Table.read(folder / "table.json")


def at(text: str) -> float:
    return datetime.strptime(text, "%Y-%m-%d %H:%M:%S").replace(tzinfo=BERLIN).timestamp()


@pytest.mark.parametrize(
    ("now", "replicas", "since", "coming"),
    [
        ("2026-11-23 06:59:59", 1, "2026-11-20T19:00", "2026-11-23T07:00"),  # a Monday; Friday's entry is in force
        ("2026-11-23 07:00:00", 3, "2026-11-23T07:00", "2026-11-23T19:00"),
        ("2026-11-23 18:59:59", 3, "2026-11-23T07:00", "2026-11-23T19:00"),
        ("2026-11-23 19:00:01", 1, "2026-11-23T19:00", "2026-11-24T07:00"),
        ("2026-11-22 12:00:00", 1, "2026-11-20T19:00", "2026-11-23T07:00"),
        ("2026-01-01 00:00:00", 1, "2025-12-31T19:00", "2026-01-01T07:00"),
    ],
)
def test_what_is_in_force_hangs_on_the_moment_alone(
    program: Any, now: str, replicas: int, since: str, coming: str
) -> None:
    made = table(program)
    due, following = made.in_force(at(now)), made.following(at(now))
    state = program.state_of(made, due, following)
    assert (state["replicas"], state["since"], state["next"]["at"]) == (replicas, since, coming)
    assert state["off"] == list(ORDER[replicas:])
    assert abs(due.epoch - at(since.replace("T", " ") + ":00")) < 1


def test_of_two_at_the_same_minute_the_later_in_the_list_counts(program: Any) -> None:
    made = table(program, '- {at: "0 * * * *", replicas: 3}\n- {at: "0 12 * * *", replicas: 2}\n')
    assert made.in_force(at("2026-11-22 12:30:00")).replicas == 2
    assert made.in_force(at("2026-11-22 13:00:00")).replicas == 3
    assert made.following(at("2026-11-22 11:30:00")).replicas == 2


def test_days_that_come_seldom_are_found(program: Any) -> None:
    made = table(program, '- {at: "0 0 29 2 *", replicas: 2}\n')
    assert made.in_force(at("2026-11-22 12:00:00")).when == datetime(2024, 2, 29)
    assert made.following(at("2026-11-22 12:00:00")).when == datetime(2028, 2, 29)


@pytest.mark.parametrize(
    ("zone", "entry", "due"),
    [
        ("Europe/Berlin", "30 2 * * *", "2027-03-28 01:00:00"),  # there is no half past two: 2:00 is 3:00
        ("Europe/Berlin", "0 3 * * *", "2027-03-28 01:00:00"),
        ("Africa/Cairo", "15 0 * * *", "2027-04-29 22:00:00"),  # no midnight
        ("America/Nuuk", "30 23 * * *", "2027-03-28 01:00:00"),  # the day after
        ("Australia/Lord_Howe", "10 2 * * *", "2026-10-03 15:30:00"),  # half an hour
        ("Pacific/Chatham", "50 2 * * *", "2026-09-26 14:00:00"),
        ("Antarctica/Troll", "30 1 * * *", "2027-03-28 01:00:00"),  # two hours
        ("Europe/Berlin", "30 2 * 10 *", "2026-10-25 00:30:00"),  # comes twice: the first
        ("America/New_York", "0 1 * * *", "2026-11-01 05:00:00"),
        ("Asia/Tokyo", "30 2 * * *", "2027-03-27 17:30:00"),
    ],
)
def test_hours_that_a_clock_leaves_out_and_that_come_twice(program: Any, zone: str, entry: str, due: str) -> None:
    """By the real zones' rules. At `due` (UTC) the entry comes into force, and it does not again."""
    entries = f'- {{at: "{entry}", replicas: 2}}\n- {{at: "0 12 * * *", replicas: 1}}\n'
    made = table(program, entries, zone=zone)
    moment = datetime.strptime(due, "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC).timestamp()
    assert made.following(moment - 1).epoch == moment
    assert [made.in_force(moment + seconds).replicas for seconds in (-1, 0, 1, 3599, 3601, 7199)] == [1, 2, 2, 2, 2, 2]
    assert made.following(moment).replicas == 1


def test_of_two_that_the_clock_leaves_out_together_the_later_counts(program: Any) -> None:
    made = table(program, '- {at: "45 2 * * *", replicas: 3}\n- {at: "15 2 * * *", replicas: 2}\n')
    moment = at("2027-03-28 03:00:00")
    assert made.following(moment - 60).replicas == 3
    assert made.in_force(moment).replicas == 3


def _left_out(zone: str) -> Iterator[tuple[datetime, datetime]]:
    """Yield the times that a zone leaves out in the next years: from, to, as on the wall."""
    info, moment = ZoneInfo(zone), datetime(2026, 1, 1, tzinfo=UTC)
    while moment.year < 2028:
        later = moment + timedelta(days=7)
        before, after = (one.astimezone(info).utcoffset() or timedelta() for one in (moment, later))
        if after > before:
            for step in (timedelta(hours=6), timedelta(minutes=15)):
                while (moment + step).astimezone(info).utcoffset() == before:
                    moment += step
            moment += timedelta(minutes=15)
            ends = moment.astimezone(info).replace(tzinfo=None)
            yield ends - (after - before), ends
        moment = later


def test_a_timer_fires_where_what_any_zone_leaves_out_ends() -> None:
    """systemd itself passes over what is left out: the lines for that must cover all zones that there are."""
    seen: set[tuple[int, str]] = set()
    for zone in available_timezones():
        for first, ends in _left_out(zone):
            for minute in range(0, int((ends - first).total_seconds()) // 60, 15):
                seen.add(((first + timedelta(minutes=minute)).hour, ends.strftime("%H:%M")))
    assert (2, "03:00") in seen
    for hour, ends in seen:
        late = parse_cron(f"0 {hour} * * *").after_gaps
        assert late is not None, (hour, ends)
        hours, minutes, _ = late.partition(" ")[2].split(":")
        assert ends[:2] in hours.split(","), (hour, ends)
        assert ends[3:] in minutes.split(","), (hour, ends)
    assert parse_cron("0 7 * * *").after_gaps is None


class Docker:
    """Docker of a host: states of projects, and what was asked of it."""

    def __init__(self, **states: str) -> None:
        self.states = {name.replace("_", "-"): state for name, state in states.items()}
        self.asked: list[str] = []

    def __call__(self, *words: str) -> str:
        if words[0] == "ps":
            return self.states.get(words[words.index("--filter") + 1].rpartition("=")[2], "")
        project = words[words.index("--project-name") + 1]
        verb = words[words.index("--project-name") + 2]
        self.asked.append(f"{verb} {project}")
        self.states[project] = "running" if verb == "up" else "exited"
        return ""


@pytest.fixture
def clock(program: Any, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A clock that tests turn, for all parts of the program."""
    one = SimpleNamespace(now=at("2026-11-23 19:00:00"))
    monkeypatch.setattr(time, "time", lambda: one.now)
    return one


def test_a_replica_stops_once_it_is_idle(program: Any, clock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    slots, docker = sys.modules["schedule_slots"], Docker(tiny_0="running", tiny_1="running", tiny_2="exited")
    running = {"tiny-1": 2}
    monkeypatch.setattr(slots, "docker", docker)
    monkeypatch.setattr(slots, "requests", lambda url: running.get(url.split("/")[3], 0))
    made, said = table(program, own=ORDER), list[str]()
    look = slots.Slots(said.append)
    begun = clock.now
    for seconds, busy in ((0, 2), (10, 0), (20, 1), (21, 0), (35, 0)):
        clock.now, running["tiny-1"] = begun + seconds, busy
        assert look.look(made, ["tiny-0"], begun), seconds
    assert not docker.asked
    clock.now = begun + 36
    assert not look.look(made, ["tiny-0"], begun)
    assert docker.asked == ["stop tiny-1"]
    assert "no request runs on it" in said[-1]


def test_a_replica_that_never_ends_its_requests_stops_when_the_time_is_over(
    program: Any, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    slots, docker = sys.modules["schedule_slots"], Docker(tiny_1="running")
    monkeypatch.setattr(slots, "docker", docker)
    monkeypatch.setattr(slots, "requests", lambda url: None)  # it hangs: nobody knows
    made, begun, look = table(program, own=("tiny-1",)), clock.now, slots.Slots(print)
    clock.now = begun + 59
    assert look.look(made, ["tiny-0"], begun)
    clock.now = begun + 60
    assert not look.look(made, ["tiny-0"], begun)
    assert docker.asked == ["stop tiny-1"]


def test_what_is_to_run_is_started_once(program: Any, clock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    slots, docker = sys.modules["schedule_slots"], Docker(tiny_0="running", tiny_1="exited", tiny_2="created")
    monkeypatch.setattr(slots, "docker", docker)
    made, look = table(program, own=ORDER), slots.Slots(print)
    for _ in range(2):
        assert not look.look(made, list(ORDER), clock.now)
    assert docker.asked == ["up tiny-1", "up tiny-2"]


class Haproxy:
    """A gateway's worker, as module_utils has it."""

    def __init__(self, **up: bool) -> None:
        self.servers_now = {
            f"tiny/{name.replace('_', '-')}": {"admin": "ready", "up": is_up} for name, is_up in up.items()
        }
        self.dumped = 0

    def worker(self) -> "Haproxy":
        return self

    def servers(self) -> dict[str, Any]:
        return self.servers_now

    def tell(self, command: str) -> None:
        _, _, server, _, state = command.split()
        self.servers_now[server]["admin"] = state

    def dump_state(self, target: Path) -> None:
        assert str(target) == "/srv/gateway/state/servers"
        self.dumped += 1

    def admin(self) -> list[str]:
        return [server["admin"] for server in self.servers_now.values()]


def test_the_gateway_drains_what_stops_and_forgets_it_once_it_is_down(
    program: Any, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    part, gateway = sys.modules["schedule_gateway"], Haproxy(tiny_0=True, tiny_1=True, tiny_2=True)
    monkeypatch.setattr(part, "Gateway", lambda folder: gateway)
    made, look, begun = table(program, gateway="/srv/gateway"), part.Rotation(print), clock.now
    assert look.look(made, ["tiny-0"], begun)
    assert gateway.admin() == ["ready", "drain", "drain"]
    gateway.servers_now["tiny/tiny-1"]["up"] = False
    assert look.look(made, ["tiny-0"], begun)
    assert gateway.admin() == ["ready", "ready", "drain"]
    gateway.servers_now["tiny/tiny-2"]["up"] = False
    assert not look.look(made, ["tiny-0"], begun)
    assert gateway.admin() == ["ready", "ready", "ready"]
    assert gateway.dumped == 3


def test_nobody_is_drained_before_those_that_are_to_run_answer(
    program: Any, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    part, gateway = sys.modules["schedule_gateway"], Haproxy(tiny_0=False, tiny_1=True, tiny_2=False)
    monkeypatch.setattr(part, "Gateway", lambda folder: gateway)
    made, look, begun = table(program, gateway="/srv/gateway"), part.Rotation(print), clock.now
    assert look.look(made, ["tiny-0"], begun)
    assert gateway.admin() == ["ready"] * 3
    clock.now = begun + 101  # timeouts.start is over: it will not come, and the clock's word counts
    assert look.look(made, ["tiny-0"], begun)
    assert gateway.admin() == ["ready", "drain", "ready"]


def test_one_that_is_to_run_again_before_it_stopped_is_let_in(
    program: Any, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    part, gateway = sys.modules["schedule_gateway"], Haproxy(tiny_0=True, tiny_1=True, tiny_2=True)
    monkeypatch.setattr(part, "Gateway", lambda folder: gateway)
    made, look = table(program, gateway="/srv/gateway"), part.Rotation(print)
    look.look(made, ["tiny-0"], clock.now)
    assert not look.look(made, list(ORDER), clock.now)
    assert gateway.admin() == ["ready"] * 3


def test_nothing_is_begun_under_a_hold(program: Any, clock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    docker = Docker(tiny_1="running")
    monkeypatch.setattr(sys.modules["schedule_slots"], "docker", docker)
    monkeypatch.setattr(sys.modules["schedule_slots"], "requests", lambda url: 0)
    table(program, own=("tiny-1",))
    run, hold = program.Run("tiny"), program.RUN / "tiny.hold"
    hold.write_text(f"{clock.now + 100:.0f}\n")
    for _ in range(50):
        assert run.look(clock.now)
        clock.now += 1
    assert not docker.asked
    hold.unlink()
    # Its time begins when it may: the gateway was held as long.
    begun = clock.now
    while run.look(clock.now):
        clock.now += 1
    assert docker.asked == ["stop tiny-1"]
    assert clock.now - begun == 15


def test_a_drained_host_leaves_its_own_replicas_as_they_are(
    program: Any, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that runs, runs on, one that is off stays off, and says so; what is known of others follows the clock."""
    docker = Docker(tiny_1="running", tiny_2="exited")
    monkeypatch.setattr(sys.modules["schedule_slots"], "docker", docker)
    monkeypatch.setattr(sys.modules["schedule_slots"], "requests", lambda url: 0)
    table(program, WORKDAYS.replace("replicas: 1", "replicas: 2"), own=("tiny-1", "tiny-2"))

    def off() -> list[str]:
        found: list[str] = json.loads((program.ROOT / "tiny" / "state.json").read_text())["off"]
        return found

    clock.now = at("2026-11-23 20:00:00")
    assert not program.Run("tiny").look(clock.now)
    assert off() == ["tiny-2"]
    mark = program.ROOT / ".resting"
    mark.write_text("0\n")
    clock.now = at("2026-11-24 08:00:00")
    assert not program.Run("tiny").look(clock.now)
    assert (off(), docker.asked) == (["tiny-2"], [])
    table(program, own=("tiny-1", "tiny-2"))
    clock.now = at("2026-11-24 20:00:00")  # of three, one
    assert not program.Run("tiny").look(clock.now)
    assert (off(), docker.asked) == (["tiny-2"], [])
    table(program, own=("tiny-2",))
    program.Run("tiny").look(clock.now)
    assert off() == ["tiny-1", "tiny-2"]
    mark.unlink()
    clock.now = at("2026-11-25 08:00:00")
    assert not program.Run("tiny").look(clock.now)
    assert (off(), docker.asked) == ([], ["up tiny-2"])


def test_a_drain_that_was_cut_off_lets_go_when_its_time_is_over(
    program: Any, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    docker = Docker(tiny_1="exited")
    monkeypatch.setattr(sys.modules["schedule_slots"], "docker", docker)
    table(program, own=("tiny-1",))
    clock.now = at("2026-11-24 07:00:00")
    (program.ROOT / ".resting").write_text(f"{clock.now + 30:.0f}\n")
    run, begun = program.Run("tiny"), clock.now
    while run.look(clock.now):
        assert not docker.asked
        clock.now += 1
    assert (docker.asked, clock.now - begun) == (["up tiny-1"], 30)


def test_requests_have_their_time_once_a_host_is_let_in_again(
    program: Any, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    docker = Docker(tiny_1="running")
    monkeypatch.setattr(sys.modules["schedule_slots"], "docker", docker)
    monkeypatch.setattr(sys.modules["schedule_slots"], "requests", lambda url: 3)
    table(program, own=("tiny-1",))
    begun = clock.now
    (program.ROOT / ".resting").write_text(f"{begun + 300:.0f}\n")
    run = program.Run("tiny")
    while run.look(clock.now):
        clock.now += 1
    assert docker.asked == ["stop tiny-1"]
    assert clock.now - begun >= 299 + 60  # from the last look under the mark


def test_each_entry_that_comes_into_force_is_in_the_book_once(
    program: Any, clock: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    table(program)
    (program.BOOK / "gateway").touch()
    for now in ("2026-11-23 19:00:00", "2026-11-23 19:00:10", "2026-11-24 07:00:00", "2026-11-24 12:00:00"):
        clock.now = at(now)
        assert not program.Run("tiny").look(clock.now)
    events = [json.loads(line) for line in (program.BOOK / "events.jsonl").read_text().splitlines()]
    assert [event["message"] for event in events] == [
        "1 of 3 replicas from Mon 19:00 on (0 19 * * mon-fri)",
        "3 of 3 replicas from Tue 07:00 on (0 7 * * mon-fri)",
    ]
    assert events[0]["at"] == datetime.fromtimestamp(at("2026-11-23 19:00:00"), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert {event["action"] for event in events} == {"schedule"}
    assert capsys.readouterr().out.count("replicas from") == 2


def test_a_table_that_is_gone_or_broken_ends_the_run_well(
    program: Any, clock: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert program.main(["tiny"]) == 0
    (program.ROOT / "tiny").mkdir()
    (program.ROOT / "tiny" / "table.json").write_text("{}")
    assert program.main(["tiny"]) == 1
    assert "deploy again" in capsys.readouterr().out


def test_an_entry_that_is_near_is_waited_for(program: Any, clock: Any) -> None:
    """A timer that fires while the program ends would start nothing."""
    table(program)
    clock.now = at("2026-11-23 18:59:57")
    assert program.Run("tiny").look(clock.now)
    clock.now = at("2026-11-23 18:59:50")
    assert not program.Run("tiny").look(clock.now)


def test_a_gateway_that_comes_back_in_time_is_told(program: Any, clock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    part, gateway = sys.modules["schedule_gateway"], Haproxy(tiny_0=True, tiny_1=True, tiny_2=True)

    def refuse() -> Haproxy:
        raise part.NotRunningError("nothing answers")

    def nobody(folder: str) -> SimpleNamespace:
        return SimpleNamespace(worker=refuse)

    monkeypatch.setattr(part, "Gateway", nobody)
    table(program, gateway="/srv/gateway")
    run = program.Run("tiny")
    assert run.look(clock.now)
    monkeypatch.setattr(part, "Gateway", lambda folder: gateway)
    clock.now += 10
    assert run.look(clock.now)
    assert gateway.admin() == ["ready", "drain", "drain"]
    monkeypatch.setattr(part, "Gateway", nobody)
    clock.now += 60
    assert not run.look(clock.now)


def test_one_that_cannot_start_keeps_no_other_from_what_is_due(
    program: Any, clock: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    slots, docker = sys.modules["schedule_slots"], Docker(tiny_0="exited", tiny_1="exited", tiny_2="running")

    def refusing(*words: str) -> str:
        if words[0] == "compose" and "tiny-0" in words:
            raise slots.SlotError("the port is taken")
        return docker(*words)

    def slept(seconds: float) -> None:
        clock.now += seconds
        if clock.now > begun + 90:
            raise KeyboardInterrupt

    begun = clock.now
    monkeypatch.setattr(slots, "docker", refusing)
    monkeypatch.setattr(slots, "requests", lambda url: 5)  # it never is idle
    monkeypatch.setattr(time, "sleep", slept)
    table(program, WORKDAYS.replace("replicas: 1", "replicas: 2"), own=ORDER)
    with pytest.raises(KeyboardInterrupt):
        program.main(["tiny"])
    assert docker.asked == ["up tiny-1", "stop tiny-2"]
    assert capsys.readouterr().out.count("tiny-0: the port is taken") == 1


def test_a_gateway_that_refuses_keeps_no_replica_from_what_is_due(
    program: Any, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    part, docker = sys.modules["schedule_gateway"], Docker(tiny_0="exited")

    def refuse() -> Haproxy:
        raise part.HaproxyError("it does not answer")

    monkeypatch.setattr(part, "Gateway", lambda folder: SimpleNamespace(worker=refuse))
    monkeypatch.setattr(sys.modules["schedule_slots"], "docker", docker)
    table(program, own=("tiny-0",), gateway="/srv/gateway")
    assert program.Run("tiny").try_to_look(clock.now)
    assert docker.asked == ["up tiny-0"]


def test_an_engine_that_ends_while_it_answers_is_one_that_says_nothing(
    program: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(url: str, timeout: float) -> None:
        raise http.client.BadStatusLine("")

    slots = sys.modules["schedule_slots"]
    monkeypatch.setattr(slots, "OPENER", SimpleNamespace(open=broken))
    assert slots.requests("http://127.0.0.1:1/metrics") is None
