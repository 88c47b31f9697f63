"""The module nvidia_driver_upgrade on a made host: what it changes and refuses, and how it leaves one that failed."""

import contextlib
import importlib.util
import sys
from pathlib import Path

import pytest
from tests.unit.nvidia_driver.made_hosts import H100, RUNNING, STATE
from tests.unit.nvidia_driver.test_upgrade import CUDA, HAD, NEW, OLD

LIBRARY = Path(__file__).resolve().parents[3] / "roles/nvidia_driver/library/nvidia_driver_upgrade.py"


class Hands:
    """What a package manager does, written down."""

    def __init__(self, *_):
        self.done, self.offers, self.fails = [], CUDA, None

    def __call__(self, *_):
        return self

    @contextlib.contextmanager
    def aside(self):
        self.done.append("aside")
        yield

    @contextlib.contextmanager
    def pinned(self, pattern):
        self.done.append(f"pinned {pattern}")
        yield

    def prepare(self):
        self.done.append("prepare")
        return False

    def install(self, names, without=()):
        if self.fails:
            raise self.fails
        self.done.append("install")

    def __getattr__(self, name):
        answers = {"offered": self.offers, "installed": HAD, "there": list(HAD), "stream": None}
        return lambda *_: answers[name] if name in answers else self.done.append(name)


@pytest.fixture
def module(driver, host, monkeypatch):
    """The module on a host with a driver that runs; `module.hands` tell what was done."""
    spec = importlib.util.spec_from_file_location("nvidia_driver_upgrade_module", LIBRARY)
    made = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = made
    spec.loader.exec_module(made)
    running = {"newest": RUNNING, "built": {RUNNING: {"version": OLD, "open": True}}, "headers": [RUNNING]}
    made.facts = host(H100, loaded={"version": OLD, "open": True}, **running)
    made.hands = Hands()
    monkeypatch.setattr(made.look, "facts", lambda: made.facts)
    monkeypatch.setattr(made.look, "users", list)
    monkeypatch.setattr(made.look, "built", lambda _: {"version": NEW})
    monkeypatch.setattr(made.look, "read", lambda _: f"NVRM version: NVIDIA UNIX x86_64 Kernel Module  {NEW}  today\n")
    state = {**STATE, "held": True, "nouveau_blocked": True, "installed": HAD, "there": list(HAD)}
    monkeypatch.setattr(made.steps, "state", lambda _: dict(state))
    monkeypatch.setattr(made.steps.Steps, "_reload", lambda self, action: self.hands.done.append("reload"))
    monkeypatch.setattr(made.steps.Steps, "_enable", lambda *_: None)
    monkeypatch.setattr(made, "Apt", made.hands)
    return made


def answer(module, version="580", check_mode=False, **options):
    defaults = {name: one.get("default") for name, one in module.OPTIONS.items()}
    return module.answer({**defaults, "version": version, **options}, check_mode)


def test_a_look_asks_beside_the_hosts_sources_and_does_nothing(module):
    found = answer(module, check_mode=True)
    assert module.hands.done == ["aside", "pinned 580.*"]
    assert found["onprem_llm"]["driver_upgrade"] == {
        "gpus": 1, "names": "Hopper", "loaded": OLD, "installed": OLD, "then": NEW, "kind": "open", "done": False,
        "at_work": None, "refused": "",
    }  # fmt: skip
    assert found["actions"][0] == "let go of the packages that are held"


def test_an_upgrade_holds_again_before_it_loads(module):
    found = answer(module)
    assert module.hands.done == ["prepare", "pinned 580.*", "let_go", "install", "hold", "reload"]
    seen = found["onprem_llm"]["driver_upgrade"]
    assert (seen["loaded"], seen["done"], found["failure"]) == (NEW, True, "")


def test_what_fails_is_held_all_the_same_and_told_with_its_remedy(module):
    module.hands.fails = module.PackageError("a could not be installed: apt-get says\nE: gone\nexpected sources")
    found = answer(module)
    assert module.hands.done == ["prepare", "pinned 580.*", "let_go", "hold"]
    assert found["failure"].startswith("a could not be installed")
    assert [one["level"] for one in found["onprem_llm"]["findings"]] == ["error"]
    assert found["onprem_llm"]["driver_upgrade"]["done"] is False


def test_a_module_that_is_in_use_wants_a_reboot(module, monkeypatch):
    monkeypatch.setattr(module.steps.Steps, "_reload", lambda self, _: self.reboot.append("Xorg has the GPUs"))
    found = answer(module)["onprem_llm"]
    assert (found["reboot"], found["driver_upgrade"]["done"]) == (["Xorg has the GPUs"], False)


def test_no_downgrade_without_leave(module):
    module.facts["loaded"]["version"] = "590.44.01"
    assert "found driver 590.44.01, expected one that is older than 580.95.05" in answer(module)["failure"]
    assert module.hands.done == ["prepare", "pinned 580.*"]
    assert answer(module, downgrade=True)["failure"] == ""
    assert "allow_downgrade" in module.hands.done
    # A look says which way it goes; whether it may is for a person.
    assert answer(module, check_mode=True)["onprem_llm"]["driver_upgrade"]["then"] == NEW


def test_a_host_that_has_the_version_is_not_touched(module):
    module.facts["loaded"]["version"] = NEW
    found = answer(module, NEW)
    assert (module.hands.done, found["actions"], found["changed"]) == ([], [], False)
    assert found["onprem_llm"]["driver_upgrade"]["done"] is True


def test_a_host_whose_sources_have_it_no_more_and_that_runs_it_is_there(module):
    module.facts["loaded"]["version"] = NEW
    module.hands.offers = {}
    assert answer(module)["onprem_llm"]["driver_upgrade"]["done"] is True


@pytest.mark.parametrize("change", [{"gpus": []}, {"loaded": None, "built": {}}])
def test_no_gpus_or_no_driver_is_nothing_to_upgrade(module, change):
    module.facts.update(change)
    found = answer(module)
    assert (found["failure"], found["actions"], module.hands.done) == ("", [], [])


def test_where_another_is_at_work_a_look_says_so_and_a_change_is_refused(module, monkeypatch):
    """Ctrl-C ends the run on the control host, not a transaction that was begun here."""
    monkeypatch.setattr(module.turns, "at_work", lambda: "process 7 (driver 580, for 3 s)")
    seen = answer(module, check_mode=True)["onprem_llm"]["driver_upgrade"]
    assert (seen["at_work"], seen["refused"], seen["then"]) == ("process 7 (driver 580, for 3 s)", "", None)
    monkeypatch.setattr(module.turns, "_taken", lambda *_: False)
    monkeypatch.setattr(module.turns, "PERIOD_S", 0)
    assert "is at work on the driver, expected nobody" in answer(module)["failure"]
    assert module.hands.done == []


def test_a_change_is_made_in_a_turn_of_its_own(module, monkeypatch):
    told = []
    monkeypatch.setattr(module.hands, "install", lambda *_: told.append(module.turns.LOCK.read_text().split(" ", 2)[2]))
    answer(module, "580.95.05")
    assert told == ["driver 580.95.05"]
