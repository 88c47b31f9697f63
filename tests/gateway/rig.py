"""The gateway's container as its Compose file says, on docker's bridge, with stubs on this machine behind it."""

import hashlib
import ipaddress
import json
import os
import runpy
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from onprem_llm.rendering.haproxy import Backend, Gateway, Server, draft
from onprem_llm.rendering.haproxy_backends import key_variable

ROOT = Path(__file__).resolve().parents[2]

# What the role writes before each reload.
of_configured = runpy.run_path(str(ROOT / "roles/gateway/module_utils/onprem_llm_haproxy.py"))["of_configured"]

IMAGE = "onprem-llm/gateway:1"
STUB = Path(__file__).with_name("stub.py")
INSIDE = {"/var/lib/onprem-llm/keys": "keys"}


def docker(*arguments: str) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout.strip()


def bridge() -> str:
    """Return the address of this machine that containers reach."""
    found = json.loads(docker("network", "inspect", "bridge"))[0]["IPAM"]["Config"][0]
    # An engine that has not started a container yet names the network alone.
    return found.get("Gateway") or str(next(ipaddress.ip_network(found["Subnet"]).hosts()))


def engine_key(project: str) -> str:
    return f"engine-key-of-{project.rpartition('-')[0]}"


@dataclass
class Engine:
    """A stub engine in a process of its own."""

    project: str
    model: str
    revision: int = 1
    tls: tuple[str, str] | None = None
    port: int = 0
    prefix: str | None = None  # it is a proxy of Ray Serve's
    process: subprocess.Popen[str] = field(init=False)

    def start(self) -> "Engine":
        command = [sys.executable, str(STUB), "--host", bridge(), "--port", str(self.port), "--name", self.project]
        command += ["--model", self.model, "--revision", str(self.revision), "--key", engine_key(self.project)]
        command += ["--tls", *self.tls] if self.tls else []
        command += ["--prefix", self.prefix] if self.prefix else []
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout
        self.port = int(self.process.stdout.readline())
        return self

    def server(self, tls_name: str | None = None) -> Server:
        return Server(self.project, bridge(), self.port, tls_name)


class Rig:
    """A running gateway; `folder` holds what the roles would write on a host."""

    network = "bridge"

    def __init__(self, folder: Path, gateway: Gateway) -> None:
        self.folder, self.gateway = folder, gateway
        self.name = f"gateway-test-{uuid.uuid4().hex[:8]}"
        for name in ("conf", "secrets", "keys", "run", "state"):
            (folder / name).mkdir(exist_ok=True)
        for name in ("keys", "rates", "expires", "restricted", "allowed"):
            (folder / f"keys/{name}.map").touch()

    def write(self, gateway: Gateway | None = None) -> None:
        self.gateway = gateway or self.gateway
        for path, text in draft(self.gateway).files.items():
            (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / path).write_text(text, encoding="utf-8")
        lines = [
            f'    setenv {key_variable(one.deployment)} "{engine_key(f"{one.deployment}-0")}"'
            for one in self.gateway.backends
        ]
        (self.folder / "secrets/engine-keys.cfg").write_text("\n".join(["global", *lines, ""]), encoding="utf-8")

    def key(
        self, name: str, *, rate: str = "", expires: int | None = None, models: tuple[str, ...] | None = None
    ) -> None:
        """Add a client key to the files; its clear text is sk-NAME."""
        lines = {"keys": f"{hashlib.sha256(f'sk-{name}'.encode()).hexdigest()} {name}\n"}
        lines["rates"] = f"{name} {rate}\n" if rate else ""
        lines["expires"] = f"{name} {expires}\n" if expires is not None else ""
        lines["restricted"] = f"{name} 1\n" if models is not None else ""
        lines["allowed"] = "".join(f"{name}:{one} 1\n" for one in models or ())
        for file, text in lines.items():
            with (self.folder / f"keys/{file}.map").open("a", encoding="utf-8") as opened:
                opened.write(text)

    def start(self) -> "Rig":
        body: Mapping[str, Any] = draft(self.gateway).body
        volumes = []
        for one in body["volumes"]:
            source, _, target = one.partition(":")
            volumes += ["--volume", f"{self.folder / INSIDE.get(source, source.removeprefix('./'))}:{target}"]
        named = ["--detach", "--name", self.name, "--health-cmd", " ".join(body["healthcheck"]["test"][1:])]
        docker("run", "--network", self.network, *named, *volumes, self.gateway.image, *body["command"])
        self.address = docker("inspect", "--format", "{{.NetworkSettings.IPAddress}}", self.name) or "127.0.0.1"
        self.url = f"http{'s' if self.gateway.tls else ''}://{self.address}:{self.gateway.port}"
        self.until(self.answers, 10)
        return self

    def answers(self) -> bool:
        try:
            socket.create_connection((self.address, self.gateway.port), 1).close()
        except OSError:
            assert docker("inspect", "--format", "{{.State.Running}}", self.name) == "true", self.log()
            return False
        return True

    def log(self) -> str:
        done = subprocess.run(["docker", "logs", self.name], capture_output=True, text=True, check=False, timeout=30)
        return done.stdout + done.stderr

    def ask(self, command: str, where: str = "admin") -> str:
        """Say a command to the runtime socket, or to the master's."""
        with socket.socket(socket.AF_UNIX) as one:
            one.settimeout(15)
            # A path of a test's folder is longer than a socket's may be.
            folder = os.open(self.folder / "run", os.O_RDONLY)
            one.connect(f"/proc/self/fd/{folder}/{where}.sock")
            os.close(folder)
            one.sendall(command.encode() + b"\n")
            answer = b""
            while part := one.recv(65536):
                answer += part
        return answer.decode()

    def reload(self) -> str:
        state = of_configured(self.ask("show servers state"), self.folder / "conf/deployments")
        (self.folder / "state/servers").write_text(state, encoding="utf-8")
        return self.ask("reload", "master")

    def servers(self) -> dict[str, str]:
        """Return backend/server -> status (UP, DOWN, DRAIN, ...)."""
        rows = [line.split(",") for line in self.ask("show stat -1 4 -1").splitlines()]
        return {f"{row[0]}/{row[1]}": row[17] for row in rows if len(row) > 17}

    def usage(self, name: str) -> list[int]:
        """Return requests, prompt tokens, completion tokens, refused; two threads may have made an entry each."""
        total = [0, 0, 0, 0]
        for line in self.ask("show table _count/usage").splitlines():
            words = line.split()
            if f"key={name}" in words:
                found = dict(word.partition("=")[::2] for word in words if "=" in word)
                total = [old + int(found[f"gpc{number}"]) for number, old in enumerate(total)]
        return total

    def cpu(self) -> float:
        """Return the seconds that the container has spent computing: a busy machine does not add to them."""
        processes = docker("top", self.name, "-eo", "pid").split()[1:]
        threads = [one for process in processes for one in Path(f"/proc/{process}/task").glob("*/schedstat")]
        return sum(int(one.read_text().split()[0]) for one in threads) / 1e9

    def until(self, true: Any, seconds: float) -> float:
        began = time.monotonic()
        while not true():
            assert time.monotonic() - began < seconds, f"not within {seconds} s; {self.log()[-3000:]}"
            time.sleep(0.05)
        return time.monotonic() - began

    def stop(self) -> None:
        subprocess.run(["docker", "rm", "--force", self.name], capture_output=True, check=False, timeout=60)


def backend(name: str, engines: list[Engine], **changes: Any) -> Backend:
    one = Backend(name, name, "chat", "least_load", (1,), tuple(engine.server() for engine in engines))
    return replace(one, **changes)
