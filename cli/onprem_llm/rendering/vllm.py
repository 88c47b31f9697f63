"""A replica of a vLLM deployment as a Compose project."""

import re
from dataclasses import dataclass

from onprem_llm.rendering.compose import LABEL, WITH_SECRETS, Draft, health_check, published, user_text
from onprem_llm.rendering.flags import flags
from onprem_llm.spec.deployment import Deployment, GpuAccess

SERVICE = "vllm"
INNER_PORT = 8000

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


@dataclass(frozen=True, slots=True)
class Replica:
    """A replica with its place: everything that its Compose file says."""

    deployment: Deployment
    index: int
    image: str  # sha256:… or repo@sha256:…: a tag may move, these do not
    weights_path: str  # on the host
    weights_name: str  # the folder's name inside the container
    address: str  # 0.0.0.0 for every interface
    gpus: tuple[str, ...] = ()  # UUIDs, as the labels name them
    devices: tuple[str, ...] = ()  # the same as the access path names them (CDI names; else UUIDs)
    gpu_access: GpuAccess | None = None

    @property
    def project(self) -> str:
        """The project's name."""
        return f"{self.deployment.name}-{self.index}"


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
        **_shared_memory(deployment),
        "entrypoint": [*WITH_SECRETS, *entrypoint],
        "command": [user_text(part) for part in [*positional, *_flags(deployment)]],
        "environment": {name: user_text(value) for name, value in sorted(_environment(replica).items())},
        "secrets": ["env"],
        "ports": [published(replica.address, deployment.port, INNER_PORT)],
        "volumes": [
            {"type": "bind", "source": user_text(replica.weights_path), "target": user_text(model), "read_only": True},
        ],
        "healthcheck": health_check(f"http://127.0.0.1:{INNER_PORT}/health", start_period=deployment.timeouts.start),
    }
    return Draft(replica.project, SERVICE, body, _labels(replica))


def starts_with_module(image: str) -> bool:
    """Tell whether this is one of vLLM's images from before `vllm serve` was their entrypoint."""
    match = re.search(r"(?:^|/)vllm/vllm-openai:v?(\d+)\.(\d+)", image)
    return match is not None and (int(match[1]), int(match[2])) < FIRST_WITH_SERVE


def _start(image: str, model: str) -> tuple[tuple[str, ...], list[str]]:
    if starts_with_module(image):
        return MODULE, ["--model", model]
    return SERVE, [model]


def _flags(deployment: Deployment) -> list[str]:
    code = ["--trust-remote-code"] if deployment.trust_remote_code else []
    return ["--served-model-name", deployment.served_name, *code, *flags(deployment.engine.engine_args)]


def _environment(replica: Replica) -> dict[str, str]:
    # CUDA images say `all` in their own environment, which the nvidia runtime would follow.
    some = replica.gpu_access == "runtime" and replica.deployment.resources.gpus != "all"
    visible = {"NVIDIA_VISIBLE_DEVICES": ",".join(replica.devices)} if some and replica.devices else {}
    return {**ENVIRONMENT, **visible, **replica.deployment.literal_env}


def _shared_memory(deployment: Deployment) -> dict[str, object]:
    # Tensor parallel workers exchange data through /dev/shm, for which Docker's 64 MB are too few.
    return {"shm_size": deployment.engine.shm_size} if deployment.engine.shm_size else {"ipc": "host"}


def _gpu_access(replica: Replica) -> dict[str, object]:
    wanted = replica.deployment.resources.gpus
    if wanted == 0:
        return {}
    if replica.gpu_access == "cdi":
        device: dict[str, object] = {"driver": "cdi", "device_ids": list(replica.devices)}
    elif wanted == "all":
        device = {"driver": "nvidia", "count": "all"}
    else:
        device = {"driver": "nvidia", "device_ids": list(replica.devices)}
    reservation = {"resources": {"reservations": {"devices": [{**device, "capabilities": ["gpu"]}]}}}
    runtime = {"runtime": "nvidia"} if replica.gpu_access == "runtime" else {}
    return {**runtime, "deploy": reservation}


def _labels(replica: Replica) -> dict[str, str]:
    return {
        f"{LABEL}.project": replica.project,
        f"{LABEL}.deployment": replica.deployment.name,
        f"{LABEL}.replica": str(replica.index),
        f"{LABEL}.gpus": ",".join(replica.gpus),
        f"{LABEL}.gpu_access": replica.gpu_access or "none",
        f"{LABEL}.listen": f"{replica.address}:{replica.deployment.port}",
    }
