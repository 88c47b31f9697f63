"""How long a person waits for nothing: `onprem-llm --help`, and a plan for 64 hosts and 10 deployments.

Run as `make bench-cli-latency`. The last line is one JSON object.
"""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import recorded_facts as made

from onprem_llm.planning.plan import plan
from onprem_llm.planning.serial import to_json
from onprem_llm.probe import parse_current

RUNS = 10
HOSTS, DEPLOYMENTS = 64, 10
LIMITS = {"help_s": 0.25, "plan_s": 0.5}


def seconds(work: Callable[[], object]) -> float:
    """Return the median of RUNS runs after one that warms the file cache."""
    work()
    taken = []
    for _ in range(RUNS):
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def command(*argv: str) -> Callable[[], object]:
    return lambda: subprocess.run(argv, check=True, capture_output=True)


def planning() -> tuple[Callable[[], object], Callable[[], object]]:
    """Return a plan of the last deployment from facts as JSON has them, and one of a deployment that runs already."""
    facts, models = made.large_site(HOSTS, DEPLOYMENTS)
    raw = json.dumps(facts)

    def changed() -> object:
        recorded = json.loads(raw)
        return to_json(plan(made.site(), made.wanted(recorded, models[-1]), parse_current(recorded)))

    def unchanged() -> object:
        recorded = json.loads(raw)
        wanted = made.wanted(recorded, models[0])
        made_plan = plan(made.site(), wanted, parse_current(recorded))
        if not made_plan.is_noop:
            raise RuntimeError("the deployment runs already: its plan must be empty")
        return made_plan

    return changed, unchanged


def main() -> int:
    program = Path(sys.executable).with_name("onprem-llm")
    changed, unchanged = planning()
    result = {
        "python_s": seconds(command(sys.executable, "-c", "pass")),
        "import_click_s": seconds(command(sys.executable, "-c", "import click")),
        "help_s": seconds(command(str(program), "--help")),
        "plan_s": seconds(changed),
        "plan_noop_s": seconds(unchanged),
    }
    for name, value in result.items():
        limit = f"   (limit {LIMITS[name]} s)" if name in LIMITS else ""
        print(f"{name:16} {value:.3f} s{limit}")
    ok = all(result[name] < limit for name, limit in LIMITS.items())
    summary = {
        "name": "cli-latency",
        "compared": f"medians of {RUNS}; a plan for {HOSTS} hosts and {DEPLOYMENTS} deployments from recorded facts",
        **{name: round(value, 4) for name, value in result.items()},
        "help_to_python": round(result["help_s"] / result["python_s"], 2),
        "limits": LIMITS,
        "ok": ok,
    }
    print(json.dumps(summary))
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
