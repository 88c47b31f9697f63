"""How planning grows: 40 deployments, on one host, over two hosts and on Ray, on 10 to 1,000 hosts of 8 GPUs.

Run as `make bench-planner`. A plan is all that `plan --facts` does after it has read its files: facts from JSON to
typed values, the deployments of the book parsed, placed and rendered, the plan to JSON. Measured for a deployment of
each kind that is not there yet (`new_*`), and for one that is (`noop_*`). Seconds are the processor's: a plan waits for
nothing, so they are the clock's too on a core that nobody else uses, which a machine that builds does not have.
The last line is one JSON object.
"""

import json
import statistics
import sys
import time

import recorded_facts as made
from mixed_site import KINDS, mixed_site

from onprem_llm.planning.plan import plan
from onprem_llm.planning.serial import to_json
from onprem_llm.probe import parse_current

HOSTS = (10, 50, 200, 1000)
DEPLOYMENTS = 40
RUNS = 3
# 8 GPUs a host.
BAR_HOSTS, BAR_S = 200, 1.0


def seconds(hosts: int) -> dict[str, float]:
    """Return medians by `new_KIND` and `noop_KIND`."""
    site = mixed_site(hosts, DEPLOYMENTS)
    raw = json.dumps(site.facts)
    models = {f"new_{kind}": site.new[kind] for kind in KINDS} | {f"noop_{kind}": site.standing[kind] for kind in KINDS}
    taken: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(RUNS):
        for name, model in models.items():
            began = time.process_time()
            recorded = json.loads(raw)
            outcome = plan(site.settings, made.wanted(recorded, model), parse_current(recorded))
            to_json(outcome)
            taken[name].append(time.process_time() - began)
            if outcome.is_noop != name.startswith("noop_"):
                raise RuntimeError(f"{hosts} hosts: the plan for {model.deployment.name} is not what it must be")
    return {name: statistics.median(times) for name, times in taken.items()}


def main() -> int:
    found = {}
    for hosts in HOSTS:
        found[hosts] = seconds(hosts)
        columns = "  ".join(f"{name} {value:.3f}" for name, value in found[hosts].items())
        each = 1000 * max(found[hosts].values()) / hosts
        print(f"{hosts:5} hosts, {8 * hosts:5} GPUs  {columns}  at most {each:.2f} ms a host", flush=True)
    slowest = {hosts: max(times.values()) for hosts, times in found.items()}
    growth = (slowest[HOSTS[-1]] / slowest[HOSTS[0]]) / (HOSTS[-1] / HOSTS[0])
    ok = slowest[BAR_HOSTS] < BAR_S
    summary = {
        "name": "planner",
        "compared": f"medians of {RUNS}; {DEPLOYMENTS} deployments, {BAR_HOSTS} hosts: each below {BAR_S} s of a core",
        "seconds": {hosts: {name: round(value, 4) for name, value in times.items()} for hosts, times in found.items()},
        "growth_of_linear": round(growth, 2),
        "bars": {"slowest_s": BAR_S},
        "ok": ok,
    }
    print(json.dumps(summary))
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
