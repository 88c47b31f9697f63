"""Ray Serve's configuration: one document from all Ray deployments, as PUT to /api/serve/applications/ takes it.

A PUT removes what it does not list, so there is one document. Serve builds an application anew, and replaces its
replicas, when `import_path`, `runtime_env` or `args` differ from what runs. All that may change while the replicas stay
(how many there are, and when Ray adds one) therefore stands in `deployments`, which Serve applies to what runs.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from onprem_llm.rendering.compose import EVERY_INTERFACE
from onprem_llm.rendering.vllm import ENVIRONMENT
from onprem_llm.spec.deployment import Deployment
from onprem_llm.spec.engine_args import normal, parallel_size
from onprem_llm.spec.serving import Update

BUILDER = "ray.serve.llm:build_openai_app"
INGRESS = "OpenAiIngress"

# A replica that stops finishes its streams first (update.drain_timeout; Serve's own 20 seconds would cut the longer
# ones), and looks this often whether it has.
IDLE_CHECK_SECONDS = 1.0
# As good as none; but with none at all it may run on a head that carries nothing, and end with it.
INGRESS_CPUS = 0.01
# No target for the ingress: it only passes requests on, and its number is fixed.
UNBOUNDED = 1_000_000_000


class Scaling(Protocol):
    """Bounds between which Ray chooses the number of replicas; delays in seconds."""

    @property
    def min(self) -> int:
        """The fewest replicas."""

    @property
    def max(self) -> int:
        """The most replicas."""

    @property
    def target_ongoing_requests(self) -> float:
        """How many requests, running and waiting, each replica shall have at a time."""

    @property
    def upscale_delay(self) -> float:
        """How long there must be too many of them before a replica is added."""

    @property
    def downscale_delay(self) -> float:
        """How long there must be too few of them before one is stopped."""


@dataclass(frozen=True, slots=True)
class RayApplication:
    """A deployment on Ray: what Serve is told about it."""

    deployment: Deployment
    replicas: int | Scaling
    weights_path: str  # inside every node's container, the same on all
    gpus_per_host: int  # of the host of the cluster that has the most; 0: engines on CPUs
    ingresses: int = 1  # processes that take requests from Serve's proxies; two outlive the loss of a host
    spare: bool = True  # there is room for one replica more while replicas are replaced


def serve_config(applications: Iterable[RayApplication], *, port: int) -> dict[str, object]:
    """Return the document; applications are sorted by name, so that another order in the book changes nothing.

    `port` is that of Serve's proxies: the head has one, and each node on which a replica or an ingress runs.
    """
    ordered = sorted(applications, key=lambda one: one.deployment.name)
    return {
        "proxy_location": "EveryNode",
        # Serve has no address of its own for each node; who may reach the port, the firewall says.
        "http_options": {"host": EVERY_INTERFACE, "port": port},
        "applications": [application(one) for one in ordered],
    }


def serve_text(applications: Iterable[RayApplication], *, port: int) -> str:
    """Return the document as the text of a file: a person reads it, and a step PUTs it as it stands."""
    return json.dumps(serve_config(applications, port=port), indent=2, ensure_ascii=False) + "\n"


def application(one: RayApplication) -> dict[str, object]:
    """Return one deployment's application; the gateway reaches it at `route_prefix`."""
    name = one.deployment.name
    return {
        "name": name,
        "route_prefix": route_prefix(name),
        "import_path": BUILDER,
        "args": {
            "llm_configs": [_llm_config(one)],
            "ingress_deployment_config": {"ray_actor_options": {"num_cpus": INGRESS_CPUS}},
        },
        "deployments": [
            {
                "name": server_name(one.deployment.served_name),
                "autoscaling_config": _autoscaling(one.replicas),
                **_replacement(one),
            },
            {"name": INGRESS, "autoscaling_config": _fixed(one.ingresses), **_replacement(one)},
        ],
    }


def route_prefix(deployment: str) -> str:
    """Return the path below which Serve's proxies take this deployment's requests: `/tiny/v1/chat/completions`."""
    return f"/{deployment}"


def server_name(served_name: str) -> str:
    """Return the name that Serve LLM gives to the part of an application that runs the engine."""
    return "LLMServer:" + served_name.replace("/", "--").replace(".", "_")


def surge(update: Update, *, spare: bool) -> int:
    """Return how many new replicas may run beside the old ones. `spare`: there is room for one more."""
    return update.max_surge if update.max_surge is not None else int(spare or not update.max_unavailable)


def ray_problems(deployment: Deployment) -> list[str]:
    """Say what of a model.yaml cannot be had on Ray, each line with the path and what to write instead."""
    problems = []
    if deployment.secret_env:
        names = ", ".join(sorted(deployment.secret_env))
        problems.append(
            f"env: found {names} with from_env or from_file and backend: ray, expected text: Ray shows an engine's "
            "environment in its dashboard. Remove it, or write backend: compose"
        )
    size = parallel_size(deployment.engine.engine_args)
    if deployment.resources.gpus not in (0, size):
        problems.append(
            f"resources.gpus: found {deployment.resources.gpus}, expected {size}, the product of the parallel sizes "
            "in engine.engine_args, with backend: ray: Ray gives each part of the engine one GPU"
        )
    return problems + [
        f"engine.engine_args.{flag}: found {value!r}, expected 1 with backend: ray: set replicas instead"
        for flag, value in deployment.engine.engine_args.items()
        if normal(flag) == "data_parallel_size" and value not in (None, 1)
    ]


def _llm_config(one: RayApplication) -> dict[str, object]:
    deployment = one.deployment
    return {
        "model_loading_config": {"model_id": deployment.served_name, "model_source": one.weights_path},
        **_placement(one),
        "engine_kwargs": engine_kwargs(deployment),
        "runtime_env": {"env_vars": dict(sorted({**ENVIRONMENT, **deployment.literal_env}.items()))},
        # The engine's parts are placed by what they need; the process beside them that speaks HTTP needs no CPU more.
        "deployment_config": {"ray_actor_options": {"num_cpus": 0}},
    }


def engine_kwargs(deployment: Deployment) -> dict[str, object]:
    """Return engine_args as vLLM's own field names: underscores, no nulls, `a.b: 1` as a mapping; sorted."""
    found: dict[str, object] = {"trust_remote_code": True} if deployment.trust_remote_code else {}
    for flag, value in deployment.engine.engine_args.items():
        name, _, nested = normal(flag).partition(".")
        if value is None:
            continue
        if not nested:
            found[name] = value
            continue
        inner = found.get(name)
        found[name] = {**(inner if isinstance(inner, Mapping) else {}), nested: value}
    return dict(sorted(found.items()))


def _placement(one: RayApplication) -> dict[str, object]:
    size = parallel_size(one.deployment.engine.engine_args)
    if one.deployment.resources.gpus == 0:
        # Ray starts an engine on CPUs as processes of one host, whatever the parallel sizes are.
        group: dict[str, object] = {"bundles": [{"CPU": size}], "strategy": "STRICT_PACK"}
        return {"accelerator_config": {"kind": "cpu"}, "placement_group_config": group}
    strategy = "STRICT_PACK" if size <= one.gpus_per_host else "PACK"
    group = {"bundle_per_worker": {"GPU": 1}, "strategy": strategy}
    return {"accelerator_config": {"kind": "gpu"}, "placement_group_config": group}


def _autoscaling(replicas: int | Scaling) -> dict[str, object]:
    if isinstance(replicas, int):
        return _fixed(replicas)
    return {
        "min_replicas": replicas.min,
        "max_replicas": replicas.max,
        "target_ongoing_requests": replicas.target_ongoing_requests,
        "upscale_delay_s": replicas.upscale_delay,
        "downscale_delay_s": replicas.downscale_delay,
    }


def _fixed(replicas: int) -> dict[str, object]:
    # As bounds that are one, not as num_replicas: then a change from the one to the other replaces no replica.
    return {"min_replicas": replicas, "max_replicas": replicas, "target_ongoing_requests": UNBOUNDED}


def _replacement(one: RayApplication) -> dict[str, object]:
    update, most = one.deployment.update, one.replicas if isinstance(one.replicas, int) else one.replicas.max
    more = surge(update, spare=one.spare)
    return {
        # Rounded up by Ray: one per cent is one replica.
        "max_surge_percent": min(100, max(1, 100 * more // most)) if more else 0,
        "rolling_update_percentage": min(1.0, max(1, update.max_unavailable) / most),
        "graceful_shutdown_timeout_s": float(update.drain_timeout),
        "graceful_shutdown_wait_loop_s": IDLE_CHECK_SECONDS,
    }
