"""Replicas by the clock: from one to two and back by the timers of hosts, under load; nobody runs onprem-llm."""

import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from tests.load.rehearsal import Rehearsal, until
from tests.load.served import Served, stub_text

UNIT = "onprem-llm-schedule-clock"
SCHEDULE = """\
timezone: UTC
update: {{drain_timeout: 60}}
schedule:
- {{at: "{more:%M %H} * * *", replicas: 2}}
- {{at: "{fewer:%M %H} * * *", replicas: 1}}
"""
IDLE_S = 15  # as the program has it


def scheduled(more: datetime, fewer: datetime) -> str:
    return SCHEDULE.format(more=more, fewer=fewer)


def minute(seconds: float) -> datetime:
    """Return the first whole minute that is at least so many seconds ahead."""
    then = datetime.now(UTC) + timedelta(seconds=seconds + 59)
    return then.replace(second=0, microsecond=0)


def sleep_until(moment: datetime) -> None:
    time.sleep(max(0.0, (moment - datetime.now(UTC)).total_seconds()))


@pytest.fixture(scope="module")
def clock(rehearsal: Rehearsal) -> Iterator[Served]:
    """A deployment of two slots on two hosts, of which one runs now: the next entry is hours away.

    What an earlier file left on hosts would have a say in where they are, and the gateway's host could carry the one
    that is off. With the last deployment the gateway goes: on bare hosts, its host is the first to get one.
    """
    rehearsal.down("stub")
    now = datetime.now(UTC)
    text = stub_text(rehearsal, "clock", port=8040).replace("replicas: 2\n", "")
    text += scheduled(now + timedelta(hours=6), now - timedelta(hours=6))
    one = Served(rehearsal, "clock", text)
    try:
        one.deploy()
        one.key = rehearsal.key(one.user)
        yield one
    finally:
        rehearsal.site.run("key", "revoke", one.user, code=None)
        rehearsal.down("clock")


@pytest.fixture(autouse=True)
def one_runs(clock: Served) -> None:
    settled(clock, 1)


def settled(clock: Served, count: int, seconds: float = 120) -> float:
    """Wait until so many replicas take requests and the other one's container is stopped."""
    return until(lambda: (len(clock.up()), states(clock).count("running")) == (count, count), seconds, f"{count} run")


def states(clock: Served) -> list[str]:
    argv = ("docker", "ps", "--all", "--filter", "label=onprem-llm.deployment=clock", "--format", "{{.State}}")
    return [
        line
        for host in clock.rehearsal.hosts
        for line in clock.rehearsal.lab.exec_root(host, *argv, check=False).split()
    ]


def lead(clock: Served) -> float:
    """Return how many seconds a deploy of other times is given: some ten times what a plan takes on this machine."""
    began = time.monotonic()
    untouched(clock)
    return 45 + 10 * (time.monotonic() - began)


def at(clock: Served, more: datetime, fewer: datetime) -> None:
    """Deploy other times; nothing but the schedule changes."""
    births = clock.births()
    clock.text = clock.text.partition("timezone:")[0] + scheduled(more, fewer)
    clock.deploy()
    assert clock.births() == births


def untouched(clock: Served) -> None:
    """Deploying again is nothing to be done, whatever the hour."""
    assert clock.site.json("plan", clock.file)["noop"]


def test_a_first_deploy_leaves_as_many_running_as_are_due(clock: Served) -> None:
    untouched(clock)
    shown = clock.site.json("status")
    (line,) = [one for one in shown["deployments"] if one["name"] == "clock"]
    assert (line["ready"], line["wanted"]) == (1, 1)
    assert line["schedule"].startswith("1 of 2 now, 2 at ")
    off = {one["project"]: one["scheduled_off"] for one in shown["replicas"] if one["deployment"] == "clock"}
    assert off == {"clock-0": False, "clock-1": True}
    refused = clock.site.run("scale", "clock", "--replicas", "2", "--yes", code=None)
    assert refused.returncode == 3
    assert "schedule" in refused.stderr


def test_more_and_fewer_by_the_clock_and_nobody_notices(clock: Served) -> None:
    more = minute(lead(clock))
    fewer = more + timedelta(minutes=2)
    at(clock, more, fewer)
    with clock.load() as load:
        sleep_until(more)
        until(lambda: len(clock.up()) == 2, 45, "two replicas in rotation")
        assert datetime.now(UTC) < fewer
        sleep_until(fewer)
        settled(clock, 1, IDLE_S + 45)
        time.sleep(5)
    load.assert_all_good(200)
    assert len({one.served_by for one in load.records if one.served_by}) == 2
    untouched(clock)
    events = [one for one in clock.site.json("events", "clock")["events"] if one["action"] == "schedule"]
    assert [one["message"].partition(" from ")[0] for one in events[-2:]] == ["2 of 2 replicas", "1 of 2 replicas"]


def test_an_update_of_what_is_off_leaves_it_off(clock: Served) -> None:
    old = clock.text
    clock.text = old.replace("max_model_len: 512", "max_model_len: 256")
    with clock.load() as load:
        clock.deploy()
    load.assert_all_good(50)
    assert sorted(states(clock)) in (["created", "running"], ["exited", "running"])
    assert set(clock.lengths().values()) == {"256"}
    untouched(clock)
    stays_off_over_a_restart_of_docker(clock)
    clock.site.run("rollback", "clock", "--yes", timeout=600)
    assert states(clock).count("running") == 1
    assert set(clock.lengths().values()) == {"512"}
    clock.text = old
    clock.write()
    untouched(clock)


def test_a_host_that_was_off_does_what_is_due_when_it_is_back(clock: Served) -> None:
    host = off_host(clock)
    more = minute(lead(clock))
    fewer = more + timedelta(minutes=4)
    at(clock, more, fewer)
    off_until(clock, host, more + timedelta(seconds=15))
    until(lambda: len(clock.up()) == 2, 90, "the host that was off has started its replica")
    assert datetime.now(UTC) < fewer
    off_until(clock, host, fewer + timedelta(seconds=15))
    settled(clock, 1, 120)
    untouched(clock)


def test_a_drained_host_is_left_alone_by_the_clock(clock: Served) -> None:
    """Over a reboot, and over a deploy, until it is let in again: then what is due by that time is done."""
    host = off_host(clock)
    more = minute(2 * lead(clock))  # a deploy, and then a drain
    at(clock, more, more - timedelta(hours=6))
    clock.site.run("host", "drain", host, "--yes")
    assert datetime.now(UTC) < more
    shown = clock.site.json("status")
    assert any(f"{host}: no replica there is started or stopped by the clock" in one for one in shown["notes"])
    sleep_until(more + timedelta(seconds=10))
    assert states(clock).count("running") == 1
    untouched(clock)
    off_until(clock, host, datetime.now(UTC))
    time.sleep(15)
    assert states(clock).count("running") == 1
    clock.site.run("host", "undrain", host, "--yes")
    until(lambda: len(clock.up()) == 2, 90, "what was due while the host was drained runs")
    untouched(clock)
    now = datetime.now(UTC)
    at(clock, now + timedelta(hours=6), now - timedelta(hours=6))
    settled(clock, 1)
    stays_off_over_a_restart_of_docker(clock)


def off_host(clock: Served) -> str:
    """Return the host of the replica that is off, which is not the gateway: it is switched off."""
    (host,) = [one.host for name, one in clock.replicas().items() if name not in clock.up()]
    assert host != clock.rehearsal.gateway_host
    return host


def stays_off_over_a_restart_of_docker(clock: Served) -> None:
    """Its restart policy starts what nobody has stopped."""
    before, host = states(clock), off_host(clock)
    clock.rehearsal.lab.exec_root(host, "systemctl", "restart", "docker")
    time.sleep(20)
    assert states(clock) == before


def off_until(clock: Served, host: str, moment: datetime) -> None:
    subprocess.run(["docker", "kill", host], check=True, capture_output=True, timeout=60)
    sleep_until(moment)
    subprocess.run(["docker", "start", host], check=True, capture_output=True, timeout=60)
    clock.rehearsal.is_back(host)


def test_down_leaves_nothing_behind(clock: Served) -> None:
    clock.rehearsal.down("clock")
    for host in clock.rehearsal.hosts:
        listed = clock.rehearsal.lab.exec_root(
            host, "systemctl", "list-unit-files", f"{UNIT}*", "--no-legend", check=False
        )
        assert not listed.strip()
        left = [
            "sh",
            "-c",
            f"ls -d /var/lib/onprem-llm-schedule /etc/systemd/system/*.wants/{UNIT}* 2>/dev/null || true",
        ]
        assert not clock.rehearsal.lab.exec_root(host, *left).strip()
