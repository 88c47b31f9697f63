"""The program of the all-reduce in a real engine's image: two containers, Gloo on processors; NCCL wants GPUs."""

import json
import subprocess
import uuid
from collections.abc import Callable
from typing import Any

from tests.unit.bootstrap.conftest import role_module as role_module

IMAGE = "onprem-llm/vllm-cpu:0.32.0"


def docker(*words: str) -> str:
    return subprocess.run(["docker", *words], capture_output=True, text=True, check=True, timeout=240).stdout.strip()


def test_two_hosts_add_up_right(role_module: Callable[[str], Any]) -> None:
    part = role_module("gpu_check_all_reduce")
    names = [f"onprem-llm-test-{uuid.uuid4().hex[:8]}-{rank}" for rank in range(2)]
    made = []
    try:
        address = "localhost"  # the first one's own, which is known to others once it runs; it listens on all
        for rank, name in enumerate(names):
            order = {"rank": rank, "world": 2, "address": address, "port": 7600, "bytes": 4 * 1024 * 1024}
            words = ["run", "--detach", "--name", name, "--pull", "never", "--env", "GLOO_SOCKET_IFNAME=eth0"]
            docker(*words, "--entrypoint", "python3", IMAGE, "-c", part.SCRIPT, "200", json.dumps(order))
            made.append(name)
            address = docker("inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", names[0])
        codes = docker("wait", *names).split()
        answers = [part.said(int(code), docker("logs", name), 200) for code, name in zip(codes, names, strict=True)]
    finally:
        subprocess.run(["docker", "rm", "--force", "--volumes", *made], check=False, capture_output=True)
    assert [one["error"] for one in answers] == [None, None]
    assert [(one["backend"], one["right"], one["network"]) for one in answers] == [("gloo", True, None)] * 2
    assert all(0 < one["seconds"] < 60 for one in answers)
