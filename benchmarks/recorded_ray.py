"""A Ray cluster that stands, and deployments on it, as facts: for tests and benchmarks of what is planned there."""

import json
from functools import cache

import recorded_facts as made
from recorded_facts import Facts

from onprem_llm.planning.ray_cluster import plan_up
from onprem_llm.planning.types import Plan
from onprem_llm.rendering.compose import EVERY_INTERFACE
from onprem_llm.spec.site import Site

RAY = "onprem-llm/vllm-ray:0.29.0-ray2.60.0"
Hosts = dict[str, Facts]
BOUNDS = "replicas: {{min: 1, max: {}, target_ongoing_requests: 2}}\n"

MODEL = """\
api_version: 1
name: {name}
model: ./models/{name}
engine:
  image: {image}
  engine_args: {{max_model_len: 8192, tensor_parallel_size: {size}}}
resources: {{gpus: {gpus}}}
backend: ray
"""


def site(**settings: object) -> Site:
    return made.site(**{"ray": {"image": RAY}, "open_webui": {"enabled": False}, **settings})


def model(extra: str = "", *, name: str = "tiny", gpus: int = 1, size: int | None = None) -> str:
    return MODEL.format(name=name, image=RAY, gpus=gpus, size=size or max(gpus, 1)) + extra


def cluster(workers: int = 2, *, gpus: int = 2, cpus: int = 16) -> Hosts:
    """Return lab-1, the head and the gateway host, and workers behind it, as `cluster up` leaves them."""
    facts: Hosts = json.loads(_cluster(workers, gpus, cpus))
    return facts


@cache
def _cluster(workers: int, gpus: int, cpus: int) -> str:
    facts = {f"lab-{n}": made.host(f"lab-{n}", n, gpus=gpus, gateway=n == 1) for n in range(1, workers + 2)}
    for name, state in facts.items():
        state["groups"] = ["ray_head"] if name == "lab-1" else ["ray_worker"]
        state["interfaces"] = {state["addresses"][0]: "eth0"}
        state["host"]["cpus"] = cpus
    current = made.current(facts)
    assert current.gateway is not None
    facts = made.applied(plan_up(site(), current, current.gateway, made.archive(RAY)).plan, facts)
    facts["lab-1"]["serve"] = {"error": None, "port": None, "proxies": {}, "applications": {}}
    return json.dumps(facts)


ADDRESS = "http://10.9.0.1:8265"


def site_elsewhere(**ray: object) -> Site:
    """Return a site whose Ray cluster somebody else runs."""
    return site(ray={"address": ADDRESS, "weights": "/mnt/weights", "serve_port": 8000, **ray})


def elsewhere(*, gpus: int = 2, cpus: int = 8) -> Hosts:
    """Return two hosts of ours, lab-1 the gateway, which sees a cluster of a head and a worker with an application."""
    facts = {f"lab-{n}": made.host(f"lab-{n}", n, gpus=0, gateway=n == 1) for n in (1, 2)}
    theirs = {"status": "RUNNING", "message": "", "told": "theirs", "route": "/hello"}
    facts["lab-1"]["serve"] = {
        "error": None, "address": ADDRESS, "version": "2.60.0", "port": 8000, "host": EVERY_INTERFACE, "tls": False,
        "proxies": {"10.9.0.1": "HEALTHY"}, "applications": {"hello": theirs}, "told": {}, "token_here": True,
        "nodes": {"10.9.0.1": {"head": True, "resources": {"CPU": 1.0}},
                  "10.9.0.2": {"head": False, "resources": {"CPU": float(cpus), "GPU": float(gpus)}}},
    }  # fmt: skip
    return facts


def planned(facts: Hosts, text: str, using: Site | None = None, **more: object) -> Plan:
    return made.planned(facts, made.deployment(text), using or site(), **more)


def deployed(facts: Hosts, text: str) -> Hosts:
    return made.applied(planned(facts, text), facts)


def document(plan: Plan, folder: str = "ray-serve") -> dict[str, Facts]:
    """Return the applications of the document that a plan has, by name."""
    value = json.loads(plan.files["lab-1"][folder]["serve.json"])
    return {one["name"]: one for one in value["applications"]}
