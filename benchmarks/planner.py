"""How planning grows: 40 deployments, replicas on two thirds of the GPUs that they may take, on 10 to 1,000 hosts.

Run as `make bench-planner`. A plan is all that `plan --facts` does after it has read its files: facts from JSON to
typed values, the deployments of the book parsed, placed and rendered, the plan to JSON. The last line is one JSON
object.
"""

import json
import statistics
import sys
import time

import recorded_facts as made

from onprem_llm.planning.plan import plan
from onprem_llm.planning.serial import to_json
from onprem_llm.probe import parse_current

HOSTS = (10, 50, 200, 1000)
DEPLOYMENTS = 40
RUNS = 5
MOST = 64  # replicas of one deployment: model.yaml takes no more
# 8 GPUs a host.
BAR_HOSTS, BAR_S = 200, 1.0


def seconds(hosts: int) -> dict[str, float]:
    """Return medians: `new_s`, a plan for the one deployment that is not there yet, and `noop_s`, for one that is."""
    facts, models = made.large_site(hosts, DEPLOYMENTS, gpus=(1,), replicas=min(MOST, max(1, hosts // 10)))
    raw = json.dumps(facts)
    taken: dict[str, list[float]] = {"new_s": [], "noop_s": []}
    for _ in range(RUNS):
        for name, model in (("new_s", models[-1]), ("noop_s", models[0])):
            began = time.perf_counter()
            recorded = json.loads(raw)
            outcome = plan(made.site(), made.wanted(recorded, model), parse_current(recorded))
            to_json(outcome)
            taken[name].append(time.perf_counter() - began)
            if outcome.is_noop != (name == "noop_s"):
                raise RuntimeError(f"{hosts} hosts: the plan for {model.deployment.name} is not what it must be")
    return {name: statistics.median(times) for name, times in taken.items()}


def main() -> int:
    found = {}
    for hosts in HOSTS:
        found[hosts] = seconds(hosts)
        columns = "   ".join(f"{name} {value:.3f}" for name, value in found[hosts].items())
        each = 1000 * found[hosts]["new_s"] / hosts
        print(f"{hosts:5} hosts, {8 * hosts:5} GPUs   {columns}   {each:.2f} ms a host", flush=True)
    growth = (found[HOSTS[-1]]["new_s"] / found[HOSTS[0]]["new_s"]) / (HOSTS[-1] / HOSTS[0])
    ok = found[BAR_HOSTS]["new_s"] < BAR_S
    summary = {
        "name": "planner",
        "compared": f"medians of {RUNS}; {DEPLOYMENTS} deployments, {BAR_HOSTS} hosts of 8 GPUs below {BAR_S} s",
        "seconds": {hosts: {name: round(value, 4) for name, value in times.items()} for hosts, times in found.items()},
        "growth_of_linear": round(growth, 2),
        "bars": {"new_s": BAR_S},
        "ok": ok,
    }
    print(json.dumps(summary))
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
