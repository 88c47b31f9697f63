"""A gang begins together and ends together, whoever dies: real processes on loopback."""

import os
import signal
import sys
import time
from pathlib import Path

import pytest
from tests.gang.ranks import POLITE, PYTHON, Gang, Life, alive, gang_of, until

SERVES, ILL, WAITS = 0, 1, 75


def test_it_begins_when_all_are_there_and_is_healthy_when_it_serves(gang: Gang) -> None:
    member = gang.start(1)
    member.waits_for("has no rank 0 at")
    assert member.healthy()[0] == WAITS
    assert "starts its engine" not in member.log
    leader = gang.start(0)  # the leader comes last
    for life in (leader, member):
        life.waits_for("the gang serves")
        assert life.healthy()[0] == SERVES
    lines = (leader.log + member.log).splitlines()
    epochs = {line.rpartition("epoch ")[2] for line in lines if "epoch" in line}
    assert len(epochs) == 1  # of one life


def test_three_ranks_wait_for_the_third(tmp_path: Path) -> None:
    with gang_of(tmp_path, size=3) as gang:
        leader, first = gang.start(0), gang.start(1)
        leader.waits_for("waits at 127.0.0.1:" + str(gang.port) + " for rank 2")
        first.waits_for("waits until all are there")
        assert "starts its engine" not in leader.log + first.log
        second = gang.start(2)
        for life in (leader, first, second):
            life.waits_for("the gang serves")
        os.kill(second.engine_pid(), signal.SIGKILL)
        assert second.code() == 128 + 9
        assert (leader.code(), first.code()) == (69, 69)
        # All name the rank where it began, its host and the reason.
        for life in (leader, first, second):
            assert "rank 2 (host-2): its engine ended with exit code 137" in life.log


@pytest.mark.parametrize("rank", [0, 1])
def test_an_engine_that_is_killed_ends_all_and_leaves_nothing(gang: Gang, rank: int) -> None:
    lives = [gang.start(0, more="stubborn"), gang.start(1)]
    for life in lives:
        life.waits_for("the gang serves")
    children = [life.engine_pid() for life in lives]
    os.kill(int(lives[rank].mark.read_text().split()[-1]), signal.SIGKILL)
    assert lives[rank].code() == 128 + 9
    assert lives[1 - rank].code() == 69
    assert f"rank {rank} (host-{rank}): its engine ended with exit code 137" in lives[1 - rank].log
    until(lambda: not any(alive(child) for child in children), lambda: "an orphan is left")


def test_a_rank_whose_engine_is_ill_says_so_and_the_others_leave_it_to_its_host(gang: Gang) -> None:
    leader, member = gang.start_all()
    leader.mark.with_suffix(".ill").touch()
    code, said = leader.healthy()
    assert (code, "/health does not answer" in said) == (ILL, True)
    assert member.healthy()[0] == SERVES


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_is_killed_ends_the_other_and_they_meet_again(gang: Gang, rank: int) -> None:
    lives = gang.start_all()
    lives[rank].kill()
    assert lives[1 - rank].code() == 69
    assert not alive(lives[1 - rank].engine_pid())
    for life in gang.start_all():  # as docker's restart policy does
        assert life.healthy()[0] == SERVES


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_hangs_ends_the_other_within_the_silence(gang: Gang, rank: int) -> None:
    gang.silence = 6  # a machine that does other things may keep a process waiting for seconds
    lives = gang.start_all()
    lives[rank].process.send_signal(signal.SIGSTOP)
    assert lives[1 - rank].code() == 69
    assert "it does not answer" in lives[1 - rank].log
    # The health check goes by the last state, which may be a beat younger; the host's healer acts upon it.
    until(lambda: lives[rank].healthy()[0] == ILL, lambda: str(lives[rank].healthy()), seconds=10)
    assert "hangs" in lives[rank].healthy()[1]
    lives[rank].process.send_signal(signal.SIGCONT)
    assert lives[rank].code() == 69


def test_an_engine_that_is_stopped_ends_all(gang: Gang) -> None:
    gang.silence = 6
    leader, member = gang.start_all()
    child = leader.engine_pid()
    os.kill(child, signal.SIGSTOP)
    assert (leader.code(), member.code()) == (71, 69)
    assert f"process {child} of its engine is stopped" in member.log
    assert not alive(child)


@pytest.mark.parametrize("rank", [0, 1])
def test_one_that_is_told_to_stop_ends_well_and_the_others_wait_for_it(gang: Gang, rank: int) -> None:
    lives = gang.start_all()
    lives[rank].process.terminate()
    assert lives[rank].code() == 0
    assert not alive(lives[rank].engine_pid())
    assert lives[1 - rank].code() == 69
    assert f"rank {rank} (host-{rank}): was stopped" in lives[1 - rank].log
    again = gang.start(1 - rank)
    again.waits_for("waits at" if rank else "has no rank 0 at")
    assert again.healthy()[0] == WAITS
    gang.start(rank).waits_for("the gang serves")


@pytest.mark.parametrize("rank", [0, 1])
def test_one_that_had_no_time_to_listen_hears_why_the_other_has_ended(gang: Gang, rank: int) -> None:
    """It is stopped until the other one is gone; what it says itself, first of all, comes to nobody any more."""
    gang.beat = 0.02
    lives = gang.start_all()
    other = lives[1 - rank]
    other.process.send_signal(signal.SIGSTOP)
    lives[rank].process.terminate()
    assert lives[rank].code() == 0
    other.process.send_signal(signal.SIGCONT)
    assert other.code() == 69
    assert f"rank {rank} (host-{rank}): was stopped" in other.log


def test_rank_0_ends_its_engine_before_the_others_when_it_is_told_to_stop(gang: Gang, tmp_path: Path) -> None:
    gang.grace = 60  # more than the second that its engine takes, on any machine
    member = gang.start(1)
    mark = tmp_path / "polite.mark"
    leader = gang.start(0, command=[*PYTHON, "-c", POLITE, str(mark), str(member.mark)])
    member.engine_pid()
    until(lambda: mark.exists() and mark.read_text() != "", lambda: leader.log)
    leader.process.terminate()
    assert (leader.code(), member.code()) == (0, 69)
    assert mark.with_suffix(".saw").read_text() == "True"  # its requests could still be answered
    assert not alive(member.engine_pid())


def test_waiting_is_quiet(gang: Gang) -> None:
    member = gang.start(1)
    member.waits_for("has no rank 0 at")
    spent = _cpu(member)
    time.sleep(2)
    assert member.log.count("\n") == 1
    assert _cpu(member) - spent < 0.5  # seconds of processor: no busy loop
    member.process.terminate()
    assert member.code() == 0


@pytest.mark.parametrize("rank", [0, 1])
def test_a_command_that_is_not_there_says_so_on_both_sides(gang: Gang, rank: int) -> None:
    gang.beat = 0.001  # whoever ends has words of the other one unread: closed at once, the connection loses the last
    other = gang.start(1 - rank)
    ends = gang.start(rank, command=["/no/such/engine"])
    assert (ends.code(), other.code()) == (127, 69)
    for life in (ends, other):
        assert f"rank {rank} (host-{rank}): cannot start /no/such/engine: No such file or directory" in life.log


def test_an_engine_that_ends_with_0_has_failed_all_the_same(gang: Gang) -> None:
    leader, member = gang.start(0), gang.start(1, command=[sys.executable, "-c", ""])
    assert (member.code(), leader.code()) == (70, 69)


def _cpu(life: Life) -> float:
    with open(f"/proc/{life.process.pid}/stat") as file:  # noqa: PTH123
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
