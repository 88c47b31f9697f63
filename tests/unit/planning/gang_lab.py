"""Hosts and deployments for the tests of replicas over several hosts."""

import recorded_facts as made
from planning_lab import Hosts
from recorded_facts import Facts

from onprem_llm import fast_yaml
from onprem_llm.planning.types import Plan

GANG = """\
api_version: 1
name: wide
model: ./models/wide
engine:
  image: {image}
  engine_args: {{max_model_len: 8192, tensor_parallel_size: {tensor}, pipeline_parallel_size: {pipeline}}}
resources: {{gpus: {gpus}, nodes: {nodes}}}
"""
IMAGE = "vllm/vllm-openai:v0.20.0"


def gang(
    extra: str = "", *, nodes: object = 2, tensor: int = 2, pipeline: int = 2, gpus: int = 4, image: str = IMAGE
) -> str:
    """Return a model.yaml of a replica that is cut into parts."""
    return GANG.format(image=image, tensor=tensor, pipeline=pipeline, gpus=gpus, nodes=nodes) + extra


def on_cpus(extra: str = "", **more: object) -> str:
    """Return one that runs on CPUs."""
    return gang(extra, tensor=2, pipeline=1, gpus=0, image="onprem-llm/vllm-cpu:0.32.0", **more)  # type: ignore[arg-type]


def hosts(count: int = 3, gpus: int = 2, **more: object) -> Hosts:
    """Return hosts that know by which interface they are reached."""
    found = {f"lab-{n}": made.host(f"lab-{n}", n, gpus=gpus, gateway=n == 1, **more) for n in range(1, count + 1)}
    for state in found.values():
        state["interfaces"] = dict.fromkeys(state["addresses"], "eth0")
    return found


def placed(plan: Plan, name: str = "wide") -> dict[str, str]:
    """Return project -> host of a deployment in a plan."""
    return {
        project: host for host, projects in plan.files.items() for project in projects if project.startswith(f"{name}-")
    }


def service(plan: Plan, project: str) -> Facts:
    """Return the rendered service of a project."""
    host = placed(plan, project.partition("-")[0])[project]
    return fast_yaml.read(plan.files[host][project]["compose.yaml"])["services"]["vllm"]


def actions(plan: Plan, name: str = "wide") -> dict[str, str]:
    """Return what happens to each project of a deployment."""
    return {change.subject: change.action for change in plan.changes if change.subject.startswith(f"{name}-")}


def after(command: list[str], flag: str) -> str:
    """Return what follows a flag."""
    return command[command.index(flag) + 1]
