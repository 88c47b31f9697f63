"""What RESUME=1 may leave out: a scenario that passed with this very tree. What needs no hosts gets none."""

import json
import shlex
import subprocess
from pathlib import Path

import pytest
from tests import scenarios, stages


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout of one commit with one file."""
    monkeypatch.setattr(scenarios, "ROOT", tmp_path)
    (tmp_path / "kept").write_text("1")
    who = ("-c", "user.name=a", "-c", "user.email=a@b")
    for words in (["init", "-q"], ["add", "."], [*who, "commit", "-qm", "first"]):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    return tmp_path


def test_whatever_differs_is_another_tree(checkout: Path) -> None:
    seen = [scenarios.tree()]
    for name, data in (("kept", b"2"), ("new", b"1"), ("new", b"2"), ("kept", b"\0\1"), ("kept", b"\0\2")):
        (checkout / name).write_bytes(data)
        seen.append(scenarios.tree())
    assert len(set(seen)) == len(seen)
    (checkout / "new").unlink()
    (checkout / "kept").write_text("1")
    assert scenarios.tree() == seen[0]


def test_each_file_of_e2e_runs_in_one_chain() -> None:
    commands = [stage.command for chain in stages.chains() for stage in chain]
    for path in (stages.ROOT / "tests" / "e2e").glob("test_*.py"):
        assert sum(path.name in command for command in commands) == 1, path.name


def test_each_file_of_tests_is_run_by_some_stage() -> None:
    chains = [stages.Stage("fast", stages.FAST), *(stage for chain in stages.chains() for stage in chain)]
    given = [stage.command for stage in chains]
    given += [one for kind in stages.ENGINES for one in scenarios.scenarios(kind).values()]
    named = {word for one in given for word in shlex.split(one)}
    for path in (stages.ROOT / "tests").rglob("test_*.py"):
        file = path.relative_to(stages.ROOT)
        assert named & {str(file), *map(str, file.parents)}, file


class Ran:
    """Stages of `main` by name, in the order in which they ran; those in `fails` fail. `down`: labs taken down."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
        self.names: list[str] = []
        self.down: list[str] = []
        self.fails: set[str] = set()
        monkeypatch.setattr(scenarios, "CACHE", cache)
        monkeypatch.setattr(stages, "CACHE", cache)
        monkeypatch.setattr(stages, "run", self._run)
        # git takes longer to name this whole tree than all else here; `checkout` has a tree of its own.
        for module in (scenarios, stages):
            monkeypatch.setattr(module, "tree", lambda: "the tree")
        monkeypatch.setattr(stages, "lab_down", lambda lab, environment: self.down.append(lab.name))

    def _run(self, stage: stages.Stage, environment: dict[str, str]) -> tuple[float, int]:
        self.names.append(stage.name)
        return 0.0, int(stage.name in self.fails)


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Ran:
    for name in ("RESUME", "ONLY", "ONPREM_LLM_KEEP_LAB"):
        monkeypatch.delenv(name, raising=False)
    return Ran(monkeypatch, tmp_path)


def test_what_needs_no_host_makes_no_lab_and_takes_none_down(ran: Ran, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONLY", "bundle,fan_out")
    assert stages.main("faults") == 0
    assert ran.names == ["engine", "bundle", "fan_out"]
    assert ran.down == []


def test_hosts_are_made_once_and_after_what_needs_none(ran: Ran, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONLY", "usage,bundle,host_off")
    ran.fails = {"bundle"}
    assert stages.main("faults") == 1
    assert ran.names[:2] == ["engine", "bundle"]
    assert ran.names[-2:] == ["usage", "host_off"]
    assert ran.names.count("faults: lab up") == 1
    assert ran.down == ["faults"]


def test_without_hosts_nothing_is_run_on_them(ran: Ran, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONLY", "usage,bundle")
    ran.fails = {"faults: lab up"}
    assert stages.main("faults") == 1
    assert ran.names[:2] == ["engine", "bundle"]
    assert ran.names[-1] == "faults: lab up"


def test_each_resumes_by_its_name(ran: Ran, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RESUME", "1")
    monkeypatch.setenv("ONLY", "hubs,bundle,usage")
    ran.fails = {"bundle"}
    stages.main("faults")
    assert json.loads((tmp_path / "faults/passed.json").read_text()) == dict.fromkeys(
        ("hubs", "usage"), scenarios.tree()
    )
    ran.names.clear()
    ran.down.clear()
    ran.fails.clear()
    assert stages.main("faults") == 0
    assert ran.names == ["engine", "bundle"]
    assert ran.down == []
    monkeypatch.setenv("ONLY", "bundles")
    with pytest.raises(SystemExit, match=r"bundles: no such scenario; there are .*bundle.*usage"):
        stages.main("faults")


def test_those_of_a_driver_make_their_hosts_and_what_a_killed_one_left_goes(
    ran: Ran, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONLY", "rhel,ubuntu")
    ran.fails = {"rhel"}
    assert stages.main("driver") == 1
    assert ran.names == ["engine", "rhel", "ubuntu"]
    assert ran.down == ["driver"]
    monkeypatch.setenv("RESUME", "1")
    ran.names.clear()
    stages.main("driver")
    assert ran.names == ["engine", "rhel"]
    assert set(scenarios.scenarios("driver")) == {"rhel", "ubuntu"}


def test_what_scenarios_without_hosts_run_is_there_and_needs_none() -> None:
    for kind, named in scenarios.HOSTLESS.items():
        for name, given in named.items():
            for path in map(stages.ROOT.joinpath, shlex.split(given)):
                assert path.exists(), f"{kind}: {name}: {path}"
                for file in [path] if path.is_file() else path.rglob("*.py"):
                    ours = file.with_name("conftest.py")
                    makes_its_own = ours.exists() and '"lab", "up"' in ours.read_text()
                    assert makes_its_own or "tests.load.rehearsal" not in file.read_text(), file


def test_hosts_that_a_killed_run_left_are_not_used(ran: Ran) -> None:
    for lab in [lab for labs in stages.LABS.values() for lab in labs]:
        down, up = lab.up.command.split(" && ")
        assert down.endswith(f"onprem-llm lab down --name {lab.name}")
        assert up.startswith(f"onprem-llm lab up --name {lab.name} ")


def test_one_run_of_a_kind_at_a_time(ran: Ran, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONLY", "usage")
    with stages.owned("faults", stages.LABS["faults"], {}), pytest.raises(SystemExit, match="another run of"):
        stages.main("faults")
    assert ran.names == []
    assert stages.main("faults") == 0
