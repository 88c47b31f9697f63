"""Run the stages of `make check` and `make test` one after another, and say how long each took.

A stage is a command. A failed stage ends the run, except in `check`, where all are shown. `test` owns its lab: it makes
the rehearsal hosts, and takes them down however it ends.
"""

import os
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CACHE = Path(os.environ.get("ONPREM_LLM_CACHE") or Path.home() / ".cache" / "onprem-llm")
LAB = "test"
INVENTORY = CACHE / "test" / "inventory.ini"


@dataclass(frozen=True)
class Stage:
    """A name for the table and a command line run at the top of the tree."""

    name: str
    command: str


CHECK = [
    Stage("ruff", "ruff check . && ruff format --check ."),
    Stage("mypy", "mypy"),
    Stage("ansible-lint", "ansible-lint --offline -q playbooks roles molecule"),
    Stage("unit, contract, golden", "pytest -q tests/unit tests/contract tests/golden"),
]
TEST = [
    *CHECK,
    Stage("engine", "sh images/ensure-engine.sh"),
    Stage("images", "sh images/build.sh"),
    Stage("tiny model", "sh images/build.sh tiny-model"),
    Stage("stub engine", "sh tests/e2e/stub_engine/build.sh"),
    Stage("chromium", "sh tests/browser/install.sh"),
    Stage("lab up", f"onprem-llm lab up --name {LAB} --hosts 2 --gpus 2xH100-80GB --inventory {INVENTORY}"),
    Stage("e2e", "pytest -q --durations=20 tests/e2e"),
    Stage("molecule", "sh molecule/run.sh"),
]


def run(stage: Stage, environment: dict[str, str]) -> tuple[float, int]:
    """Run a stage with its output on ours; return its seconds and exit status."""
    print(f"\n=== {stage.name}: {stage.command}", flush=True)
    began = time.monotonic()
    status = subprocess.run(["bash", "-c", stage.command], cwd=ROOT, env=environment, check=False).returncode
    return time.monotonic() - began, status


def lab_down(environment: dict[str, str]) -> None:
    """Take the run's own lab down; a lab that is not there is fine."""
    command = shlex.split(f"onprem-llm lab down --name {LAB}")
    subprocess.run(command, cwd=ROOT, env=environment, check=False)


def main(kind: str) -> int:
    """Run all stages of a kind; return 0 where all passed."""
    environment = {**os.environ, "ONPREM_LLM_TEST_LAB": LAB, "ONPREM_LLM_TEST_INVENTORY": str(INVENTORY)}
    table: list[tuple[str, float, int]] = []
    try:
        if kind == "test":
            INVENTORY.parent.mkdir(parents=True, exist_ok=True)
        for stage in TEST if kind == "test" else CHECK:
            seconds, status = run(stage, environment)
            table.append((stage.name, seconds, status))
            if status and kind == "test":
                break
    finally:
        if kind == "test" and not os.environ.get("ONPREM_LLM_KEEP_LAB"):
            lab_down(environment)
        print("\nWhere the time went:")
        for name, seconds, status in table:
            print(f"  {seconds:7.1f} s  {'ok    ' if status == 0 else 'FAILED'}  {name}")
        print(f"  {sum(seconds for _, seconds, _ in table):7.1f} s  in all")
    return 1 if any(status for _, _, status in table) else 0


if __name__ == "__main__":
    # SIGTERM (CI's limit) takes the lab down as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main(sys.argv[1]))
