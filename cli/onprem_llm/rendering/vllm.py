"""A replica of a vLLM deployment as a Compose project."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from onprem_llm.rendering import ranks
from onprem_llm.rendering.compose import (
    EVERY_INTERFACE,
    LABEL,
    REVISION_MARK,
    WITH_SECRETS,
    Draft,
    gpu_reservation,
    health_check,
    published,
    user_text,
)
from onprem_llm.rendering.flags import flags
from onprem_llm.rendering.gang import gang_health_check, in_gang, program, program_volume
from onprem_llm.rendering.ranks import Rank
from onprem_llm.spec.deployment import Deployment, GpuAccess

SERVICE = "vllm"
INNER_PORT = 8000
# Seconds between two health checks: a hung engine is noticed within three of them.
CHECK_SECONDS = 5
TLS_FOLDER = "/run/onprem-llm-tls"

# Old images start the module themselves, new ones `vllm serve`; in the releases between both work, so the line need
# not be exact. `vllm serve` is what vLLM keeps: 0.29 moved parts of the module.
FIRST_WITH_SERVE = (0, 11)
MODULE = ("python3", "-m", "vllm.entrypoints.openai.api_server")
SERVE = ("vllm", "serve")

# No part of the stack reports anything or asks a hub.
ENVIRONMENT = {
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
}

# Only the gateway closes a connection that idles. An engine's own 5 seconds are too few: when load falls, the gateway
# has some of 10, and a request that is sent on one just as it is closed has no answer (vLLM's pull request 18472).
KEEP_ALIVE = {"VLLM_HTTP_TIMEOUT_KEEP_ALIVE": "3600"}


@dataclass(frozen=True, slots=True)
class Replica:
    """A replica with its place: everything that its Compose file says."""

    deployment: Deployment
    index: int
    image: str  # sha256:… or repo@sha256:…: a tag may move, these do not
    weights_path: str  # on the host
    weights_name: str  # the folder's name inside the container
    address: str  # 0.0.0.0 for every interface
    port: int
    gpus: tuple[str, ...] = ()  # UUIDs, as the labels name them
    devices: tuple[str, ...] = ()  # the same as the access path names them (CDI names; else UUIDs)
    gpu_access: GpuAccess | None = None
    tls_folder: str | None = None  # the host's folder with engine.crt and engine.key; None: plain HTTP
    rank: Rank | None = None  # its part of a replica over several hosts

    @property
    def name(self) -> str:
        """The replica's name, which is the first rank's project."""
        return f"{self.deployment.name}-{self.index}"

    @property
    def project(self) -> str:
        """The project's name."""
        return ranks.rank_project(self.name, self.rank.rank if self.rank else 0)

    @property
    def answers(self) -> bool:
        """Tell whether requests come to it."""
        return self.rank is None or self.rank.rank == 0


def draft(replica: Replica) -> Draft:
    """Build the project; the caller decides which revision it carries."""
    deployment = replica.deployment
    model = f"/models/{replica.weights_name}"
    entrypoint, positional = _start(deployment.engine.image, model)
    body: dict[str, object] = {
        "image": replica.image,
        "pull_policy": "never",
        "restart": "unless-stopped",
        "stop_grace_period": "30s",
        **_gpu_access(replica),
        **_shared_memory(replica),
        "entrypoint": [*WITH_SECRETS, *_together(replica, entrypoint)],
        "command": [user_text(part) for part in [*positional, *_flags(replica)]],
        "environment": {name: user_text(value) for name, value in sorted(_environment(replica).items())},
        "secrets": ["env"],
        **_network(replica),
        "volumes": [
            _mount(replica.weights_path, model),
            *_certificate(replica),
            *([program_volume()] if replica.rank else []),
        ],
        "healthcheck": _health(replica),
    }
    files = program() if replica.rank else {}
    return Draft(replica.project, SERVICE, body, _labels(replica), files)


def _network(replica: Replica) -> dict[str, object]:
    if replica.rank:
        return ranks.body(replica.rank)
    return {"ports": [published(replica.address, replica.port, INNER_PORT)]}


def _health(replica: Replica) -> dict[str, object]:
    start = replica.deployment.timeouts.start
    if replica.rank:
        return gang_health_check(start_period=start, interval=CHECK_SECONDS)
    return health_check(f"{_own_url(replica)}/health", start_period=start, interval=CHECK_SECONDS)


def _own_url(replica: Replica) -> str:
    """Return where the engine answers, as its own container reaches it."""
    scheme = "https" if replica.tls_folder else "http"
    if replica.rank is None:
        return f"{scheme}://127.0.0.1:{INNER_PORT}"
    address = "127.0.0.1" if replica.address == EVERY_INTERFACE else replica.address
    return f"{scheme}://[{address}]:{replica.port}" if ":" in address else f"{scheme}://{address}:{replica.port}"


def _together(replica: Replica, entrypoint: Sequence[str]) -> list[str]:
    """Return what starts an engine: that of a rank begins with the others, and ends with them."""
    if replica.rank is None:
        return list(entrypoint)
    return in_gang(ranks.place_of(replica.rank, f"{_own_url(replica)}/health"), entrypoint)


def starts_with_module(image: str) -> bool:
    """Tell whether this is one of vLLM's images from before `vllm serve` was their entrypoint."""
    match = re.search(r"(?:^|/)vllm/vllm-openai:v?(\d+)\.(\d+)", image)
    return match is not None and (int(match[1]), int(match[2])) < FIRST_WITH_SERVE


def _start(image: str, model: str) -> tuple[tuple[str, ...], list[str]]:
    if starts_with_module(image):
        return MODULE, ["--model", model]
    return SERVE, [model]


def _flags(replica: Replica) -> list[str]:
    deployment = replica.deployment
    code = ["--trust-remote-code"] if deployment.trust_remote_code else []
    tls = ["--ssl-certfile", f"{TLS_FOLDER}/engine.crt", "--ssl-keyfile", f"{TLS_FOLDER}/engine.key"]
    # The second name tells the gateway which revision answers: it admits none but the one that it waits for.
    names = [deployment.served_name, revision_name(deployment.served_name, REVISION_MARK)]
    return [
        *(("--served-model-name", *names) if replica.answers else ()),
        *code,
        *(tls if replica.tls_folder and replica.answers else []),
        *(ranks.engine_flags(replica.rank, replica.address, replica.port) if replica.rank else []),
        *flags(deployment.engine.engine_args),
    ]


def revision_name(served_name: str, revision: int | str) -> str:
    """Return the name under which a replica of this revision answers, beside the one that clients know."""
    return f"{served_name}:r{revision}"


def _mount(source: str, target: str) -> dict[str, object]:
    return {"type": "bind", "source": user_text(source), "target": user_text(target), "read_only": True}


def _certificate(replica: Replica) -> list[dict[str, object]]:
    if replica.tls_folder is None or not replica.answers:
        return []
    return [_mount(f"{replica.tls_folder}/{name}", f"{TLS_FOLDER}/{name}") for name in ("engine.crt", "engine.key")]


def _environment(replica: Replica) -> dict[str, str]:
    # CUDA images say `all` in their own environment, which the nvidia runtime would follow.
    some = replica.gpu_access == "runtime" and replica.deployment.resources.gpus != "all"
    visible = {"NVIDIA_VISIBLE_DEVICES": ",".join(replica.devices)} if some and replica.devices else {}
    together = ranks.environment(replica.rank) if replica.rank else {}
    return {**ENVIRONMENT, **KEEP_ALIVE, **visible, **together, **replica.deployment.literal_env}


def _shared_memory(replica: Replica) -> dict[str, object]:
    # Tensor parallel workers exchange data through /dev/shm, for which Docker's 64 MB are too few.
    size = replica.deployment.engine.shm_size or (ranks.SHM_SIZE if replica.rank else None)
    return {"shm_size": size} if size else {"ipc": "host"}


def _gpu_access(replica: Replica) -> dict[str, object]:
    wanted = replica.deployment.resources.gpus
    if wanted == 0:
        return {}
    every = wanted == "all" and replica.gpu_access != "cdi"
    return gpu_reservation(replica.gpu_access, None if every else replica.devices)


def _labels(replica: Replica) -> dict[str, str]:
    found = {
        f"{LABEL}.project": replica.project,
        f"{LABEL}.deployment": replica.deployment.name,
        f"{LABEL}.replica": str(replica.index),
        f"{LABEL}.gpus": ",".join(replica.gpus),
        f"{LABEL}.gpu_access": replica.gpu_access or "none",
        f"{LABEL}.listen": f"{replica.address}:{replica.port}",
        f"{LABEL}.tls": "on" if replica.tls_folder else "off",
    }
    if replica.rank is None:
        return found
    if not replica.answers:  # nobody asks it anything
        del found[f"{LABEL}.listen"]
        found[f"{LABEL}.tls"] = "off"
    return {**found, **ranks.labels(replica.rank, replica.name)}
