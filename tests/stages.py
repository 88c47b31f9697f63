"""Run the stages of a `make` target one after another, and say how long each took.

    python -m tests.stages check | test | system | faults | driver

A stage is a command. A failed stage ends the run, except among scenarios and in `check`, where all are shown. Those of
`check`, with which `test` begins too, run side by side. So do four chains of `test`, each with hosts of its own, since
each mostly waits: e2e from bare hosts with the real engine, e2e on the stub engine twice, and the rest. All but `check`
own labs: they make the rehearsal hosts, and take them down however they end. A run that was killed leaves hosts with
half a test on them: so the next one takes those down first. (With ONPREM_LLM_KEEP_LAB=1 hosts stay, before and after.)
One run of a kind at a time.

`system`, `faults` and `driver` run one stage a scenario: tests/KIND/test_NAME.py is the scenario NAME. ONLY=NAME[,NAME]
runs some. RESUME=1 leaves out those that passed with the tree as it is now (its commit, and what differs from that).
What needs no hosts (tests/scenarios.py) runs before they are made, and where nothing else is asked for none are. Each
of `driver` makes hosts itself, one after another under one lab's name.
"""

import contextlib
import fcntl
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.scenarios import CACHE, OWN_HOSTS, ROOT, Passed, on_hosts, scenarios, tree
from tests.stage_processes import Processes


@dataclass(frozen=True)
class Stage:
    """A name for the table and a command line run at the top of the tree."""

    name: str
    command: str


@dataclass(frozen=True)
class Lab:
    """The hosts of a kind of run; `ready` ones have bootstrap's packages already."""

    name: str
    hosts: int
    ready: bool = True

    @property
    def inventory(self) -> Path:
        """The inventory, in the folder that is the site's."""
        return CACHE / self.name / "inventory.ini"

    @property
    def environment(self) -> dict[str, str]:
        """What tests/e2e/conftest.py asks for."""
        return {"ONPREM_LLM_TEST_LAB": self.name, "ONPREM_LLM_TEST_INVENTORY": str(self.inventory)}

    @property
    def up(self) -> Stage:
        """Make the hosts anew."""
        ready = "--ready " if self.ready else ""
        return Stage(
            f"{self.name}: lab up",
            f'[ -n "$ONPREM_LLM_KEEP_LAB" ] || onprem-llm lab down --name {self.name}'
            f" && onprem-llm lab up --name {self.name} --hosts {self.hosts} --gpus 2xH100-80GB {ready}"
            f"--inventory {self.inventory}",
        )

    @property
    def prepared(self) -> list[Stage]:
        """Make the hosts and the site's folder, and bootstrap."""
        folder = shlex.quote(str(self.inventory.parent))
        return [
            self.up,
            Stage(f"{self.name}: site folder", f"python -m tests.load.rehearsal {folder}"),
            Stage(f"{self.name}: bootstrap", f"cd {folder} && onprem-llm bootstrap inventory.ini --yes"),
        ]


LABS = {
    "test": [Lab("test", 2, ready=False), Lab("stub", 2), Lab("served", 2)],
    "system": [Lab("system", 2)],
    "faults": [Lab("faults", 3)],
    "driver": [Lab(os.environ.get("ONPREM_LLM_TEST_DRIVER_LAB", "driver"), 1, ready=False)],
}
# A process a core that we may use; one that is done takes tests from the others, so that a slow file holds up nobody.
# no:anyio: it comes with other packages, nothing here uses it, and it loads another event loop into each process.
FAST = "python -m pytest -q -p no:anyio -n auto --dist worksteal tests/unit tests/contract tests/golden"
# Half of the processor time of all four is ansible-lint's: `check` leaves out what has passed as it is (tests/lint.py).
LINT = {"check": "python -m tests.lint", "test": "python -m tests.lint --all"}
ENGINE = Stage("engine", "sh images/ensure-engine.sh")
TEST = [
    ENGINE,
    Stage("images", "sh images/build.sh"),
    Stage("tiny model", "sh images/build.sh tiny-model"),
    Stage("stub engine", "sh tests/e2e/stub_engine/build.sh"),
    Stage("chromium", "sh tests/browser/install.sh"),
]
# From bare hosts, with the real engine and the real page; the rest of tests/e2e has hosts with bootstrap behind them.
BARE = ["tests/e2e/test_1_bootstrap.py", "tests/e2e/test_2_real.py", "tests/e2e/test_ssh.py"]
# On hosts beside those of the other files on the stub engine: what both do takes the longest of all, mostly waiting.
SERVED = ["tests/e2e/test_5_gateway.py"]
# Real processes that wait for each other for seconds: what the fast tests have no time for.
PROCESSES = Stage("gang, Ansible", "pytest -q -n auto --durations=5 tests/gang tests/ansible_runs tests/stage_runs")
# What has hosts of its own, or none.
REST = [
    Stage("hubs, locking", "pytest -q --durations=5 tests/hubs tests/locking tests/dnf"),
    Stage("bundles", "pytest -q --durations=5 tests/bundle"),
    Stage("molecule", "sh molecule/run.sh"),
    Stage("fan-out", "pytest -q --durations=5 tests/fanout"),
    Stage("offline", "pytest -q --durations=5 tests/offline tests/prove"),
    Stage("gateway, load client", "pytest -q --durations=5 tests/gateway tests/gateway_role tests/load"),
]


IMAGES = [
    Stage("images", "sh images/build.sh gateway"),
    Stage("tiny model", "sh images/build.sh tiny-model"),
]
# What the scenarios of a kind need besides the gateway.
ENGINES = {
    "system": [Stage("vLLM", "sh images/build.sh vllm-cpu"), Stage("stub engine", "sh tests/e2e/stub_engine/build.sh")],
    "faults": [
        Stage("registry", "sh images/build.sh registry"),
        Stage("stub engine", "sh tests/e2e/stub_engine/build.sh"),
    ],
    "driver": [],
}


def checks(kind: str) -> list[Stage]:
    """Return what `check` runs, and `test` before all else, with everything linted."""
    return [
        Stage("ruff", "ruff check . && ruff format --check ."),
        Stage("mypy", "mypy"),
        Stage("ansible-lint", LINT[kind]),
        Stage("unit, contract, golden", FAST),
    ]


def e2e(name: str, lab: Lab, files: list[str]) -> Stage:
    """Run files of tests/e2e on a lab."""
    given = [f"{key}={shlex.quote(value)}" for key, value in lab.environment.items()]
    return Stage(name, f"{' '.join(given)} pytest -q --durations=15 {shlex.join(files)}")


def chains() -> list[list[Stage]]:
    """Return what `test` runs side by side."""
    bare, stub, served = LABS["test"]
    others = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "tests" / "e2e").glob("test_*.py"))
    on_stub = [path for path in others if path not in {*BARE, *SERVED}]
    return [
        [PROCESSES, bare.up, e2e("e2e, bare hosts, real engine", bare, BARE)],
        [*stub.prepared, e2e("e2e, stub engine", stub, on_stub)],
        [*served.prepared, e2e("e2e, requests all the while", served, SERVED)],
        REST,
    ]


def prepared(kind: str) -> list[Stage]:
    """Return the stages before the first scenario: images, the hosts, the site's folder, bootstrap."""
    return [*IMAGES, *ENGINES[kind], *LABS[kind][0].prepared]


def run(stage: Stage, environment: dict[str, str]) -> tuple[float, int]:
    """Run a stage with its output on ours; return its seconds and exit status."""
    print(f"\n=== {stage.name}: {stage.command}", flush=True)
    began = time.monotonic()
    status = Processes(ROOT, environment).shown(stage.command)
    return time.monotonic() - began, status


Table = list[tuple[str, float, int]]


def run_side_by_side(chains: list[list[Stage]], environment: dict[str, str], table: Table) -> bool:
    """Run chains of stages at once into the table, each to its first that fails; tell whether all passed.

    What a stage said is shown when it has ended.
    """

    processes = Processes(ROOT, environment)

    def run_chain(chain: list[Stage]) -> None:
        for stage in chain:
            began = time.monotonic()
            status, said = processes.kept(stage.command)
            print(f"\n=== {stage.name}: {stage.command}\n{said}", flush=True)
            table.append((stage.name, time.monotonic() - began, status))
            if status:
                return

    with ThreadPoolExecutor(len(chains)) as pool:
        try:
            for done in [pool.submit(run_chain, chain) for chain in chains]:
                done.result()
        except BaseException:
            # The pool waits for its threads, whose commands know nothing of a signal to us.
            processes.stop()
            raise
    return not any(status for _, _, status in table)


def lab_down(lab: Lab, environment: dict[str, str]) -> None:
    """Take the run's own lab down; a lab that is not there is fine."""
    command = shlex.split(f"onprem-llm lab down --name {lab.name}")
    subprocess.run(command, cwd=ROOT, env=environment, check=False)


@contextlib.contextmanager
def owned(kind: str, labs: list[Lab], environment: dict[str, str]) -> Iterator[None]:
    """Own the labs: nobody else's run has them, and they go at the end."""
    for lab in labs:
        lab.inventory.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as held:
        if labs:
            lock = held.enter_context((CACHE / f"{kind}.lock").open("w"))
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                sys.exit(f"another run of `python -m tests.stages {kind}` is at work: wait for it, or end it")
        try:
            yield
        finally:
            for lab in [] if os.environ.get("ONPREM_LLM_KEEP_LAB") else labs:
                lab_down(lab, environment)


def run_stages(stages: list[Stage], environment: dict[str, str], table: Table) -> bool:
    """Run stages into the table, to the first that fails; tell whether all passed."""
    for stage in stages:
        seconds, status = run(stage, environment)
        table.append((stage.name, seconds, status))
        if status:
            return False
    return True


def left_of(kind: str) -> dict[str, Stage]:
    """Return the scenarios to run: those that ONLY names; with RESUME, those that have not passed with this tree."""
    passed = Passed(kind)
    wanted = scenarios(kind)
    left = [name for name in wanted if not (os.environ.get("RESUME") and name in passed)]
    print(f"{kind}: {', '.join(left) or 'every scenario has passed with this tree'}", flush=True)
    # P: what a scenario that passed has measured, such as how many requests a fault cost.
    return {name: Stage(name, f"python -m pytest -q --tb=short --durations=10 -raP {wanted[name]}") for name in left}


def run_scenarios(kind: str, left: dict[str, Stage], environment: dict[str, str], table: Table) -> None:
    """Run scenarios, whichever fail: before the hosts are made those that need none."""
    passed, hosts_for = Passed(kind), on_hosts(kind, left)
    if left and not run_stages([ENGINE], environment, table):
        return
    for name in sorted(left, key=hosts_for.__contains__):
        if hosts_for and name == hosts_for[0] and not run_stages(prepared(kind), environment, table):
            return
        before = tree()
        seconds, status = run(left[name], environment)
        table.append((name, seconds, status))
        if status == 0:
            passed.record(name, before)


def main(kind: str) -> int:
    """Run all stages of a kind; return 0 where all passed."""
    left = left_of(kind) if kind in ENGINES else {}
    needed = kind not in ENGINES or (left if kind in OWN_HOSTS else on_hosts(kind, left))
    labs = LABS.get(kind, []) if needed else []
    environment = dict(os.environ)
    # Containers set it. Hundreds of Pythons start here, and each would compile all that it imports.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    table: Table = []
    began = time.monotonic()
    try:
        with owned(kind, labs, environment):
            if kind in ENGINES:
                environment |= LABS[kind][0].environment
                run_scenarios(kind, left, environment, table)
            else:
                well = run_side_by_side([[stage] for stage in checks(kind)], environment, table)
                if well and kind == "test" and run_stages(TEST, environment, table):
                    run_side_by_side(chains(), environment, table)
    finally:
        print("\nWhere the time went:")
        for name, seconds, status in table:
            print(f"  {seconds:7.1f} s  {'ok    ' if status == 0 else 'FAILED'}  {name}")
        print(f"  {time.monotonic() - began:7.1f} s  in all")
    return 1 if any(status for _, _, status in table) else 0


def take_signals() -> None:
    """Have SIGTERM (CI's limit) end what runs and take the labs down, as Ctrl-C does."""
    # Started in the background of a script, Ctrl-C is ignored by us and by all that we start: tests send it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)


if __name__ == "__main__":
    take_signals()
    sys.exit(main(sys.argv[1]))
