"""Who was there and is gone: by when a process began, when it was last seen, and in which network."""

from pathlib import Path

import pytest

from onprem_llm.lab.recorder import recent
from onprem_llm.lab.recorder.recent import TICKS, Recent


class Machine:
    """A made-up /proc and its clock."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self.now, self.networks, self.commands = root, 100.0, {}, {}
        self.newest = 0
        monkeypatch.setattr(recent, "since_boot", lambda: self.now)
        self.start(1, "init")

    def start(self, pid: int, command: str, network: str = "net:[1]", thread_of: int | None = None) -> None:
        place = self.root / str(pid)
        (place / "task" / str(pid)).mkdir(parents=True)
        (place / "status").write_text(f"Name:\tx\nTgid:\t{thread_of or pid}\nPid:\t{pid}\n")
        (place / "stat").write_text(f"{pid} (a) b) S {'0 ' * 18}{int(self.now * TICKS)} 0\n")
        self.networks[pid], self.commands[pid] = network, command
        self.newest = max(self.newest, pid)
        (self.root / "loadavg").write_text(f"0 0 0 1/1 {self.newest}\n")

    def end(self, pid: int) -> None:
        for path in sorted((self.root / str(pid)).rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        (self.root / str(pid)).rmdir()
        del self.networks[pid], self.commands[pid]

    def network(self, pid: int) -> str:
        return self.networks.get(pid, "")

    def describe(self, pid: int) -> dict[str, object]:
        return {"pid": pid, "command": self.commands.get(pid, "[x]")}


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


def names(found: list[dict[str, object]]) -> list[str]:
    return [str(one["command"]) for one in found]


def test_only_who_was_there_then_and_is_gone_now(machine: Machine) -> None:
    known = Recent(machine, machine.root)
    machine.start(10, "before")
    known.look()
    machine.now += 0.1
    machine.end(10)
    known.look()  # it is seen to be gone before anything is sent
    machine.now += 0.1
    machine.start(11, "sender")
    machine.start(12, "in a container", "net:[2]")
    machine.start(13, "stays")
    known.look()
    sent = machine.now
    machine.now += 0.1
    machine.end(11)
    machine.end(12)
    machine.start(14, "later")
    known.look()
    machine.end(14)
    assert names(known.ended("net:[1]", sent)) == ["sender"]
    assert names(known.ended("net:[2]", sent)) == ["in a container"]
    assert sorted(names(known.ended(None, sent))) == ["in a container", "sender"]


def test_a_process_is_known_by_what_it_became_not_by_what_began_it(machine: Machine) -> None:
    known = Recent(machine, machine.root)
    machine.start(10, "sh -c curl")
    known.look()
    machine.commands[10] = "curl https://example.com"
    machine.now += 0.05
    known.look()
    machine.commands[10] = "[curl]"  # ending: its command line is gone
    known.look()
    assert known.command(10) == "curl https://example.com"
    machine.end(10)
    assert names(known.ended("net:[1]", machine.now)) == ["curl https://example.com"]


def test_threads_are_no_processes_and_the_long_gone_are_forgotten(machine: Machine) -> None:
    known = Recent(machine, machine.root)
    machine.start(10, "thread", thread_of=1)
    machine.start(11, "short")
    known.look()
    sent = machine.now
    machine.end(10)
    machine.end(11)
    assert names(known.ended("net:[1]", sent)) == ["short"]
    for _ in range(8):
        machine.now += 0.6
        known.look()
    assert known.ended("net:[1]", sent) == []
