"""A large site of all kinds: deployments on one host, over several hosts (gangs), and on the site's Ray cluster."""

from collections.abc import Mapping
from dataclasses import dataclass

import recorded_facts as made
from recorded_facts import H100, L4, VLLM_IMAGE, Facts

from onprem_llm.planning.ray_cluster import plan_up
from onprem_llm.planning.types import WantedDeployment
from onprem_llm.spec.site import Site

RAY_IMAGE = "onprem-llm/vllm-ray:0.29.0-ray2.60.0"
MOST = 64  # replicas of one deployment: model.yaml takes no more
GANG = """\
api_version: 1
name: {name}
model: ./models/{name}
engine: {{image: "{image}", engine_args: {{max_model_len: 8192, pipeline_parallel_size: 2}}}}
resources: {{gpus: 2, nodes: 2, gpu_models: [H100]}}
replicas: {replicas}
"""
RAY = """\
api_version: 1
name: {name}
model: ./models/{name}
engine: {{image: "{image}", engine_args: {{max_model_len: 8192}}}}
resources: {{gpus: 1}}
replicas: {{min: 1, max: 4, target_ongoing_requests: 2}}
backend: ray
"""
KINDS = ("host", "gang", "ray")


@dataclass(frozen=True)
class MixedSite:
    """What the probe said of it, its settings, and per kind a deployment that stands and one that is new."""

    facts: dict[str, Facts]
    settings: Site
    standing: Mapping[str, WantedDeployment]
    new: Mapping[str, WantedDeployment]


def mixed_site(hosts: int, deployments: int) -> MixedSite:
    """Return a site of 8-GPU hosts on which all deployments run but one of each kind, every eighth a gang or on Ray.

    A fourth of the hosts has GPUs that nobody wants by name; of those, a tenth of all is the Ray cluster. The more
    hosts there are, the more replicas a deployment has.
    """
    settings = made.site(ray={"image": RAY_IMAGE})
    facts = _hosts(hosts)
    current = made.current(facts)
    if current.gateway is None:
        raise RuntimeError("no host is the gateway")
    up = plan_up(settings, current, current.gateway, made.archive(RAY_IMAGE)).plan
    facts = made.applied(up, facts)
    head = next(name for name, state in facts.items() if "ray_head" in state["groups"])
    facts[head]["serve"] = {"error": None, "port": None, "proxies": {}, "applications": {}}
    models = [_model(n, min(MOST, max(1, hosts // 10))) for n in range(deployments)]
    last = {kind: next(item for item in reversed(models) if kind_of(item) == kind) for kind in KINDS}
    first = {kind: next(item for item in models if kind_of(item) == kind) for kind in KINDS}
    for item in models:
        if item not in last.values():
            facts = made.applied(made.planned(facts, item, settings), facts)
    return MixedSite(facts, settings, first, last)


def kind_of(item: WantedDeployment) -> str:
    """Return which of KINDS a deployment is."""
    return "ray" if item.deployment.backend == "ray" else "gang" if item.deployment.resources.nodes == 2 else "host"


def _hosts(count: int) -> dict[str, Facts]:
    facts = {}
    cluster = range(4, count, 4)[: max(2, count // 10)]
    for n in range(count):
        state = made.host(f"node-{n:02}", n, gpus=8, model=H100 if n % 4 else L4, gateway=n == 0)
        state["interfaces"] = dict.fromkeys(state["addresses"], "eth0")
        if n in cluster:
            state["groups"] = ["ray_head" if n == cluster[0] else "ray_worker"]
        facts[f"node-{n:02}"] = state
    return facts


def _model(n: int, replicas: int) -> WantedDeployment:
    name = f"model-{n}"
    if n % 8 == 1:
        return made.deployment(GANG.format(name=name, image="vllm/vllm-openai:v0.20.0", replicas=max(1, replicas // 4)))
    if n % 8 == 2:
        return made.deployment(RAY.format(name=name, image=RAY_IMAGE))
    text = made.MODEL.format(name=name, image=VLLM_IMAGE, gpus=1, model="H100", port=8000 + n)
    return made.deployment(f"{text}replicas: {replicas}\n")
