"""Runs on a host, with the host's own python3 (3.8 on): one line of JSON every interval, for `onprem-llm top`.

The control host sends this file's text; it imports nothing of ours. It reads its order on stdin: `interval` in
seconds, `names` of the metrics that are wanted. A replica that hangs or a tool that is missing is told, never waited
for.
"""

from __future__ import annotations

import json
import re
import ssl
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from typing import Any

TOOL_SECONDS = 5
LABELS = ("project", "deployment", "replica", "revision", "listen", "tls", "gpus")
DOCKER = [
    *("docker", "ps", "--all", "--no-trunc", "--filter", "label=onprem-llm.deployment"),
    *("--format", "\t".join(["{{.State}}", *(f'{{{{.Label "onprem-llm.{name}"}}}}' for name in LABELS)])),
]
# A node of the Ray cluster says for all replicas on it what their engines say, under names of its own.
NODE_LABELS = ("project", "ports")
NODES = [
    *("docker", "ps", "--no-trunc", "--filter", "label=onprem-llm.ray"),
    *("--format", "\t".join(f'{{{{.Label "onprem-llm.{name}"}}}}' for name in NODE_LABELS)),
]
METRICS_PLACE = 6  # of the range of ports that the label names (rendering/ray_node.py)
# A gauge that goes with its replica; a counter of one that ended stays for long.
LIVES = "ray_serve_replica_processing_queries{"
OF_RAY, OF_VLLM = "ray_vllm_", "vllm:"
LABEL = re.compile(r'(\w+)="([^"]*)"')
GPU_FIELDS = ("uuid", "index", "utilization.gpu", "memory.used", "memory.total")
NVIDIA = ["nvidia-smi", "--query-gpu=" + ",".join(GPU_FIELDS), "--format=csv,noheader,nounits"]
EVERY = ("0.0.0.0", "::", "*", "")  # noqa: S104 - what a label says, not what we bind

# The engine's certificate is for the gateways, under another name; we ask our own machine.
UNVERIFIED = ssl.create_default_context()
UNVERIFIED.check_hostname = False
UNVERIFIED.verify_mode = ssl.CERT_NONE
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=UNVERIFIED))


def call(argv: list[str]) -> tuple[str | None, str]:
    """Return (a tool's output or None, why there is none)."""
    try:
        done = subprocess.run(argv, capture_output=True, timeout=TOOL_SECONDS, check=False)
    except FileNotFoundError:
        return None, f"{argv[0]} is not there"
    except (OSError, subprocess.SubprocessError) as error:
        return None, str(error)
    said = (done.stdout if done.returncode == 0 else done.stderr).decode("utf-8", "replace").strip()
    return (said, "") if done.returncode == 0 else (None, f"{argv[0]}: {said[-200:]}")


def number(text: str) -> int | None:
    """Return an integer; None for [N/A]."""
    try:
        return int(float(text))
    except ValueError:
        return None


def gpus() -> list[dict[str, Any]]:
    """Return the GPUs; memory in MiB, use in percent."""
    text, _ = call(NVIDIA)
    rows = [line.split(", ") for line in (text or "").splitlines()]
    names = ("uuid", "index", "use", "memory_used", "memory_total")
    return [
        {name: row[at] if name == "uuid" else number(row[at]) for at, name in enumerate(names)}
        for row in rows
        if len(row) == len(names)
    ]


def replicas() -> tuple[list[dict[str, Any]], str]:
    """Return (the replicas on this host, why they are not known)."""
    text, why = call(DOCKER)
    rows = [line.split("\t") for line in (text or "").splitlines()]
    names = ("state", *LABELS)
    return [{name: row[at] for at, name in enumerate(names)} for row in rows if len(row) == len(names)], why


def fetch(replica: dict[str, Any], timeout: float) -> str:
    """Return the text of /metrics; OSError or HTTPException where there is none."""
    address, _, port = replica["listen"].rpartition(":")
    host = "127.0.0.1" if address in EVERY else address
    host = f"[{host}]" if ":" in host else host
    scheme = "https" if replica["tls"] == "on" else "http"
    with OPENER.open(f"{scheme}://{host}:{port}/metrics", timeout=timeout) as answer:
        text: str = answer.read().decode("utf-8", "replace")
        return text


def timed_out(error: BaseException) -> bool:
    """Tell whether nothing came: urllib has several ways to say so."""
    return isinstance(getattr(error, "reason", error), TimeoutError) or "timed out" in str(error)


def sample(replica: dict[str, Any], names: tuple[str, ...], timeout: float) -> dict[str, Any]:
    """Return a replica with its `metrics`, the lines that are wanted, or with an `error`."""
    found = {**replica, "metrics": None, "error": None, "at": time.monotonic()}
    if replica["state"] != "running" or not replica["listen"]:  # a further part of a gang answers nobody
        return found
    try:
        lines = fetch(replica, timeout).splitlines()
        found["metrics"] = "\n".join(line for line in lines if line.startswith(names))
    except (OSError, HTTPException, ValueError) as error:
        found["error"] = f"no answer within {timeout:g} s" if timed_out(error) else str(error)[:200]
    found["at"] = time.monotonic()
    return found


def nodes() -> list[dict[str, str]]:
    """Return the nodes of the Ray cluster that run on this host, with the port of their metrics."""
    text, _ = call(NODES)
    rows = [line.split("\t") for line in (text or "").splitlines()]
    found = [(row[0], row[1].partition("-")[0]) for row in rows if len(row) == len(NODE_LABELS)]
    return [{"project": name, "port": str(int(first) + METRICS_PLACE)} for name, first in found if first.isdigit()]


def on_node(node: dict[str, str], names: tuple[str, ...], timeout: float) -> list[dict[str, Any]]:
    """Return the engines on a node of the Ray cluster, each as `sample` does; where it does not answer, the node."""
    one = {**dict.fromkeys(LABELS, ""), "state": "running", "metrics": None, "error": None}
    here = {**one, "project": node["project"], "listen": f"127.0.0.1:{node['port']}"}
    found = sample(here, (LIVES, *(name.replace(OF_VLLM, OF_RAY) for name in names)), timeout)
    if found["error"]:
        return [found]
    lines = (found["metrics"] or "").splitlines()
    live = [dict(LABEL.findall(line)) for line in lines if line.startswith(LIVES)]
    engines = {(one["application"], one["replica"]) for one in live if one["deployment"].startswith("LLMServer:")}
    return [
        {
            **one,
            "project": f"{name}-{replica}",
            "deployment": name,
            "replica": replica,
            "at": found["at"],
            "metrics": "\n".join(
                line.replace(OF_RAY, OF_VLLM, 1) for line in lines if f'ReplicaId="{replica}"' in line
            ),
        }
        for name, replica in sorted(engines)
    ]


def tick(pool: ThreadPoolExecutor, names: tuple[str, ...], timeout: float) -> dict[str, Any]:
    """Take one sample of everything; what hangs is cut off by its own time limit."""
    cards, found = pool.submit(gpus), pool.submit(nodes)
    here, why = replicas()
    rays = [pool.submit(on_node, node, names, timeout) for node in found.result()]
    taken = list(pool.map(lambda replica: sample(replica, names, timeout), here))
    taken += [one for ray in rays for one in ray.result()]
    return {"gpus": cards.result(), "replicas": taken, "error": why or None}


def main() -> None:
    """Go on until nobody reads, or our side is ended."""
    order = json.load(sys.stdin)
    interval, names = float(order["interval"]), tuple(order["names"])
    timeout = min(max(interval, 1.0), 2.0)
    due = time.monotonic()
    with ThreadPoolExecutor(16) as pool:
        while True:
            try:
                print(json.dumps(tick(pool, names, timeout)), flush=True)
            except BrokenPipeError:
                return
            due = max(due + interval, time.monotonic())
            time.sleep(due - time.monotonic() if due > time.monotonic() else 0)


if __name__ == "__main__":
    main()
