"""A node of the site's Ray cluster as a Compose project: the head, or a worker that carries replicas."""

from dataclasses import dataclass
from typing import Literal

from onprem_llm.rendering.compose import LABEL, WITH_SECRETS, Draft, gpu_reservation, health_check, user_text
from onprem_llm.rendering.vllm import ENVIRONMENT
from onprem_llm.spec.deployment import GpuAccess
from onprem_llm.spec.ray import NAMED_PORTS, RayPorts

Role = Literal["head", "worker"]

HEAD_PROJECT, WORKER_PROJECT = "ray-head", "ray-worker"
SERVICE = "ray"
TOKEN = "RAY_AUTH_TOKEN"  # noqa: S105 - the variable's name
# What the head knows, beside its compose.yaml; it goes with the project's folder.
STORE, STORE_INSIDE = "./store", "/store"
# Docker makes its folder for everybody to look into; what Serve was told is in it.
PRIVATE = ("/bin/sh", "-c", 'chmod 700 "$0" && exec "$@"', STORE_INSIDE)
# A head without this file asks which cloud it is in, at addresses of three clouds (ray/_common/usage/usage_lib.py).
NO_CLOUD = ("/bin/sh", "-c", 'echo "{}" >~/ray_bootstrap_config.yaml && exec "$@"', "sh")
# With its statistics switched off a head still tells ray.io that they are; now it tells nobody (port 9: discard).
NOBODY = "http://127.0.0.1:9/"
WEIGHTS = "/weights"  # where each node sees the host's weights: one path for all
START_SECONDS = 180
# Ray drains itself for 30 seconds when it is told to end.
GRACE_SECONDS = 60
# A head that is restarted takes what it runs along: it has to be silent for a minute.
CHECK_SECONDS = 20

# Ports of the range with names. The last four, and the first, are the head's alone.
(GCS, NODE_MANAGER, OBJECT_MANAGER, RUNTIME_ENV, AGENT_GRPC, AGENT, METRICS, *_HEAD) = range(11)
(DASHBOARD, CLIENT, AUTOSCALER_METRICS, DASHBOARD_METRICS) = _HEAD

# How long a node serves on without a head that will know it again; Ray's own minute would end all that is served. A
# head that has forgotten it ends it at once.
WITHOUT_HEAD_SECONDS = 24 * 3600


@dataclass(frozen=True, slots=True)
class RayNode:
    """A node with its place: everything that its Compose file says.

    `carries`: replicas may run here. `devices` are all GPUs of the host, as `access` names them; `gpus` their UUIDs.
    """

    role: Role
    image: str  # sha256:… or repo@sha256:…
    address: str
    head: str  # the head's address
    ports: RayPorts
    weights_path: str  # on the host
    object_store: int  # bytes
    carries: bool = True
    remembers: bool = False  # what the cluster's head knows outlives it
    interface: str | None = None
    gpus: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    access: GpuAccess | None = None

    @property
    def project(self) -> str:
        """The project's name."""
        return HEAD_PROJECT if self.role == "head" else WORKER_PROJECT

    @property
    def keeps(self) -> bool:
        """Tell whether the store that outlives the head is this node's."""
        return self.role == "head" and self.remembers

    @property
    def gcs(self) -> str:
        """The head's store, where nodes join: host:port."""
        return f"{self.head}:{self.port(GCS)}"

    @property
    def range(self) -> str:
        """The ports, as its label and the firewall have them: first-last."""
        return f"{self.ports.first}-{self.ports.last}"

    def port(self, place: int) -> int:
        """Return the port at a place of the range."""
        return self.ports.first + place


def draft(node: RayNode) -> Draft:
    """Build the project. Its token comes as a mounted secret, and is in no argv and no `docker inspect`."""
    body: dict[str, object] = {
        "image": node.image,
        "pull_policy": "never",
        "restart": "unless-stopped",
        "init": True,
        # Ray's own images run as somebody who may not read the mounted token, nor write a store on the host's disk.
        "user": "0:0",
        "stop_grace_period": f"{GRACE_SECONDS}s",
        # Ray names nodes by their addresses, and each worker process listens on a port of its own.
        "network_mode": "host",
        "ipc": "host",
        **_gpus(node),
        "entrypoint": [*WITH_SECRETS, *(user_text(part) for part in _before(node)), "ray", "start"],
        "command": [user_text(part) for part in _flags(node)],
        "environment": {name: user_text(value) for name, value in sorted(_environment(node).items())},
        "secrets": ["env"],
        "volumes": [
            {
                "type": "bind",
                "source": user_text(node.weights_path),
                "target": WEIGHTS,
                "read_only": True,
                "bind": {"create_host_path": True},  # nothing was sent there yet
            },
            *([f"{STORE}:{STORE_INSIDE}"] if node.keeps else []),
        ],
        "healthcheck": health_check(_health(node), start_period=START_SECONDS, interval=CHECK_SECONDS),
    }
    return Draft(node.project, SERVICE, body, _labels(node))


def _before(node: RayNode) -> list[str]:
    """Return what runs first, and then Ray."""
    return [*(NO_CLOUD if node.role == "head" else ()), *(PRIVATE if node.keeps else ())]


def _flags(node: RayNode) -> list[str]:
    named = {
        "node-manager-port": NODE_MANAGER,
        "object-manager-port": OBJECT_MANAGER,
        "runtime-env-agent-port": RUNTIME_ENV,
        "dashboard-agent-grpc-port": AGENT_GRPC,
        "dashboard-agent-listen-port": AGENT,
        "metrics-export-port": METRICS,
    }
    none = [] if node.carries else ["--num-cpus=0", "--num-gpus=0"]
    return [
        "--block",
        *(_head_flags(node) if node.role == "head" else [f"--address={node.gcs}"]),
        f"--node-ip-address={node.address}",
        *(f"--{flag}={node.port(place)}" for flag, place in named.items()),
        f"--min-worker-port={node.ports.first + NAMED_PORTS}",
        f"--max-worker-port={node.ports.last}",
        f"--object-store-memory={node.object_store}",
        *none,
        "--disable-usage-stats",
    ]


def _head_flags(node: RayNode) -> list[str]:
    # The dashboard is for this host alone: a person reaches it by `ssh -L`.
    return [
        "--head",
        f"--port={node.port(GCS)}",
        "--dashboard-host=127.0.0.1",
        f"--dashboard-port={node.port(DASHBOARD)}",
        f"--ray-client-server-port={node.port(CLIENT)}",
    ]


def _health(node: RayNode) -> str:
    """Return the address that needs no token: of the dashboard, which takes orders, or of a worker's own raylet.

    A worker is not unwell because its head is: replicas go on serving meanwhile.
    """
    if node.role == "head":
        return f"http://127.0.0.1:{node.port(DASHBOARD)}/api/gcs_healthz"
    return f"http://127.0.0.1:{node.port(AGENT)}/api/local_raylet_healthz"


def _environment(node: RayNode) -> dict[str, str]:
    # Two that have no flag, and listen on every interface.
    metrics = {"AUTOSCALER_METRIC_PORT": AUTOSCALER_METRICS, "DASHBOARD_METRIC_PORT": DASHBOARD_METRICS}
    names = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME") if node.interface else ()
    visible = {"NVIDIA_VISIBLE_DEVICES": "all"} if node.access == "runtime" else {}
    return {
        **ENVIRONMENT,
        "RAY_AUTH_MODE": "token",
        "RAY_USAGE_STATS_ENABLED": "0",
        # Ray's own is 15: on a busy host its engines would get next to nothing beside those that are no part of it.
        "RAY_worker_niceness": "0",
        "RAY_USAGE_STATS_REPORT_URL": NOBODY,
        **({"RAY_gcs_storage": "rocksdb", "RAY_gcs_storage_path": STORE_INSIDE} if node.keeps else {}),
        **({"RAY_gcs_rpc_server_reconnect_timeout_s": str(WITHOUT_HEAD_SECONDS)} if node.remembers else {}),
        **({name: str(node.port(place)) for name, place in metrics.items()} if node.role == "head" else {}),
        **{name: str(node.interface) for name in names},
        **visible,
    }


def _gpus(node: RayNode) -> dict[str, object]:
    if not node.gpus or not node.carries or node.access is None:
        return {}
    return gpu_reservation(node.access, node.devices if node.access == "cdi" else None)


def _labels(node: RayNode) -> dict[str, str]:
    return {
        f"{LABEL}.project": node.project,
        f"{LABEL}.ray": node.role,
        f"{LABEL}.head": node.gcs,
        f"{LABEL}.address": node.address,
        f"{LABEL}.ports": node.range,
        f"{LABEL}.gpus": ",".join(node.gpus if node.carries else ()),
        **({f"{LABEL}.store": "rocksdb"} if node.keeps else {}),
    }
