"""`schedule:`: what is taken, what is refused and why, and the same times as systemd has them."""

import os
import shutil
import subprocess

import pytest

from onprem_llm.errors import InvalidError
from onprem_llm.spec.cron import parse_cron
from onprem_llm.spec.deployment import parse_deployment
from onprem_llm.spec.schedule import ScheduleEntry, schedule_problem

MODEL = """\
api_version: 1
name: tiny
model: ./models/tiny
engine: {image: "vllm/vllm-openai:v0.11.0"}
"""
CALENDARS = {
    "0 7 * * mon-fri": "Mon,Tue,Wed,Thu,Fri *-*-* 07:00:00",
    "30 19 * * 1-5": "Mon,Tue,Wed,Thu,Fri *-*-* 19:30:00",
    "0 0 * * 7": "Sun *-*-* 00:00:00",
    "0 0 * * 5-7": "Sun,Fri,Sat *-*-* 00:00:00",
    "*/20 8-18/5 1 jan,7 *": "*-01,07-01 08,13,18:00,20,40:00",
    "* * * * *": "*-*-* *:*:00",
    "5 4 1,15 * *": "*-*-01,15 04:05:00",
    "0 0 29 2 *": "*-02-29 00:00:00",
    "0 12 * * */2": "Sun,Tue,Thu,Sat *-*-* 12:00:00",
}


@pytest.mark.parametrize(("at", "calendar"), CALENDARS.items())
def test_the_same_times_as_systemd_has_them(at: str, calendar: str) -> None:
    assert parse_cron(at).calendar == calendar


@pytest.mark.parametrize("at", CALENDARS)
@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze here")
def test_systemd_takes_what_it_is_given(at: str) -> None:
    zoned = f"{parse_cron(at).calendar} Europe/Berlin"
    done = subprocess.run(["systemd-analyze", "calendar", zoned], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Next elapse: (in UTC)" not in done.stdout or "never" not in done.stdout


@pytest.mark.parametrize(
    ("at", "said"),
    [
        ("0 7 * *", "found 4 fields"),
        ("@daily", "write the five fields out"),
        ("60 7 * * *", "minute: found '60', expected 0 to 59"),
        ("0 24 * * *", "hour: found '24'"),
        ("0 7 L * *", "day of the month: found 'l'"),
        ("0 7 * * mon#1", "day of the week: found 'mon#1'"),
        ("0 7 * * fri-mon", "ends before it begins: write it as two ranges"),
        ("0 22-6 * * *", "hour: found '22-6'"),
        ("0 7 1 * mon", "write two entries"),
        ("0 7 30 2 *", "never comes"),
        ("0/15 7 * * *", "minute: found '0/15': write a step of a range"),
        ("*/0 7 * * *", "minute: found '*/0'"),
    ],
)
def test_what_cannot_be_said_is_refused_with_its_field(at: str, said: str) -> None:
    with pytest.raises(InvalidError) as refused:
        parse_deployment(f'{MODEL}schedule: [{{at: "{at}", replicas: 2}}]\n', "model.yaml")
    assert said in refused.value.message + (refused.value.details or "")
    assert "schedule" in refused.value.message + (refused.value.details or "")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('schedule: [{at: "0 7 * * *", replicas: 1}]\nreplicas: 2\n', "leave replicas out, or raise an entry"),
        ('schedule: [{at: "0 7 * * *", replicas: 0}]\n', "no entry asks for a replica"),
        (
            'schedule: [{at: "0 7 * * *", replicas: 1}, {at: "00 7 * * 0-6", replicas: 2}]\n',
            "two entries have the same times",
        ),
        ("timezone: UTC\n", "leave it out"),
        ('schedule: [{at: "0 7 * * *", replicas: 1}]\nbackend: ray\n', "which scales by load"),
        ('schedule: [{at: "0 7 * * *", replicas: 1}]\ntimezone: Middle/Earth\n', "Europe/Berlin"),
        ('schedule: [{at: "0 7 * * *", replicas: 65}]\n', "64"),
        ('schedule: [{at: "0 7 * * *", replica: 1}]\n', "replica"),
    ],
)
def test_fields_that_contradict_each_other(text: str, said: str) -> None:
    with pytest.raises(InvalidError) as refused:
        parse_deployment(MODEL + text, "model.yaml")
    assert said in refused.value.message + (refused.value.details or "") + (refused.value.hint or "")


def test_as_many_are_placed_as_ever_run() -> None:
    entries = 'schedule: [{at: "0 7 * * mon-fri", replicas: 3}, {at: "0 19 * * mon-fri", replicas: 0}]\n'
    assert parse_deployment(MODEL + entries, "model.yaml").slots == 3
    assert parse_deployment(MODEL + "replicas: 2\n", "model.yaml").slots == 2


def test_hosts_of_a_gang_have_a_clock_each() -> None:
    entries = (ScheduleEntry(at="0 7 * * *", replicas=1),)
    assert "by its own clock" in (schedule_problem(entries, 1, None, "compose", 2) or "")
    assert schedule_problem(entries, 1, None, "compose", "auto") is None
    assert schedule_problem(entries, 1, None, "compose", 1) is None


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze here")
def test_systemd_passes_over_what_is_left_out_and_fires_where_that_ends() -> None:
    cron, before = parse_cron("30 2 * * *"), "2027-03-28 00:59:59 UTC"
    fired = []
    for calendar in (cron.calendar, cron.after_gaps):
        words = ["systemd-analyze", "calendar", "--base-time", before, f"{calendar} Europe/Berlin"]
        done = subprocess.run(words, capture_output=True, text=True, check=True, env={**os.environ, "TZ": "UTC"})
        fired.append(done.stdout.partition("Next elapse: ")[2].partition("\n")[0])
    assert fired == ["Mon 2027-03-29 00:30:00 UTC", "Sun 2027-03-28 01:00:00 UTC"]
