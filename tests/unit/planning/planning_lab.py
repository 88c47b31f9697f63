"""Hosts and deployments for the tests of replicas."""

import recorded_facts as made
from recorded_facts import Facts

from onprem_llm.planning.types import Plan

Hosts = dict[str, Facts]


def model(extra: str = "", *, name: str = "tiny", gpus: int = 1, port: int | None = 8000, resources: str = "") -> str:
    text = made.MODEL.format(name=name, image=made.VLLM_IMAGE, gpus=gpus, model="H100", port=port)
    text = text.replace("gpu_models: [H100]", f"gpu_models: [H100]{resources}")
    return (text if port else text.replace("port: None\n", "")) + extra


def lab(*gpus: int) -> Hosts:
    return {f"lab-{n}": made.host(f"lab-{n}", n, gpus=many, gateway=n == 1) for n, many in enumerate(gpus, 1)}


def deploy(facts: Hosts, text: str) -> Hosts:
    return made.applied(made.planned(facts, made.deployment(text)), facts)


def changed(text: str, length: int = 1024) -> str:
    """Return the same model.yaml with another max_model_len: each replica differs, and nothing else does."""
    return text.replace("8192", str(length))


def fewest(plan: Plan, facts: Hosts) -> int:
    """Return how many replicas of tiny get requests at the worst moment of a plan."""
    return min(len(made.in_rotation(then, "tiny")) for _, then in made.moments(plan, facts))


def there(facts: Hosts, name: str = "tiny") -> dict[str, str]:
    found = {p: host for host, state in facts.items() for p in state["projects"] if p.rpartition("-")[0] == name}
    return dict(sorted(found.items()))


def label(facts: Hosts, project: str, name: str) -> str:
    host = there(facts, project.rpartition("-")[0])[project]
    return facts[host]["projects"][project]["containers"][0]["labels"][f"onprem-llm.{name}"]


def port(facts: Hosts, project: str) -> int:
    return int(label(facts, project, "listen").rpartition(":")[2])


def listener(number: int, process: str = "nginx") -> Facts:
    return {"address": made.EVERYWHERE, "port": number, "pid": 42, "process": process, "container": None}


def mark(facts: Hosts, host: str, state: str, purpose: str | None = None) -> Hosts:
    said = {"state": state, "by": "me@here", "at": "2026-11-21T00:00:00Z", "purpose": purpose}
    facts["lab-1"]["book"]["hosts"] = {host: said}
    return facts


def stop(facts: Hosts, project: str) -> None:
    host = there(facts, project.rpartition("-")[0])[project]
    facts[host]["projects"][project]["containers"][0].update(state="exited", health=None, exit_code=1)


def conf(plan: Plan, name: str = "tiny") -> str:
    return plan.files["lab-1"]["gateway"][f"conf/deployments/{name}.cfg"]


def gateway_gone(facts: Hosts) -> None:
    del facts["lab-1"]["projects"]["gateway"]
    facts["lab-1"]["gateway"] = None
