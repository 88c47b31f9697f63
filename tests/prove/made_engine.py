"""In a docker engine's place: a folder in which containers, volumes and networks are files, so that a kill leaves them.

Each call takes a moment, as an engine's do: a kill falls into the middle of a lab, too. Its containers are no hosts:
what is asked inside of them is answered as a rehearsal host does that has booted and whose recorder sees our probe.
"""

import json
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from docker.errors import NotFound

from onprem_llm.lab.closed import FOLDER, PROBE_ADDRESS
from onprem_llm.lab.hosts import END
from onprem_llm.whole_files import PARTIAL, write_whole

MOMENT_S = 0.1


@dataclass
class Thing:
    """A container, a volume or a network."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def about(self) -> dict[str, Any]:
        return dict(json.loads(self.path.read_text()))

    @property
    def attrs(self) -> dict[str, Any]:
        return {"IPAM": {"Config": [{"Subnet": self.about["subnet"]}]}}

    @property
    def status(self) -> str:
        return str(self.about["status"])

    def change(self, **values: object) -> None:
        write_whole(self.path, json.dumps(self.about | values).encode())

    def remove(self, **_: object) -> None:
        time.sleep(MOMENT_S)
        self.path.unlink()


@dataclass
class Things:
    """All of a kind."""

    folder: Path

    def add(self, name: str, **about: object) -> None:
        time.sleep(MOMENT_S)
        write_whole(self.folder / name, json.dumps(about).encode())

    def create(self, name: str, labels: Mapping[str, str], ipam: Any = None, **_: object) -> None:
        self.add(name, labels=labels, subnet=ipam["Config"][0]["Subnet"] if ipam else None)

    def get(self, name: str) -> Thing:
        if not (self.folder / name).exists():
            raise NotFound(name)
        return Thing(self.folder / name)

    def list(self, filters: Mapping[str, str] | None = None, **_: object) -> list[Thing]:
        label, _, value = (filters or {}).get("label", "").partition("=")
        found = [Thing(path) for path in sorted(self.folder.glob("*")) if path.suffix != PARTIAL]
        return [one for one in found if not label or one.about["labels"].get(label) == value]


class Engine:
    """As much of docker's SDK as a lab uses."""

    api_version = "1.45"

    def __init__(self, folder: Path) -> None:
        self.containers, self.networks, self.volumes = (
            Things(folder / kind) for kind in ("containers", "networks", "volumes")
        )
        self.api = self

    def create_host_config(self, **_: object) -> dict[str, object]:
        return {}

    def create_container(self, image: str, name: str, labels: Mapping[str, str], **_: object) -> None:
        self.containers.add(name, labels=labels, status="created", attempts=[])

    def start(self, name: str) -> None:
        self.containers.get(name).change(status="running")

    def exec_root(self, name: str, argv: Sequence[str]) -> "subprocess.CompletedProcess[str]":
        return subprocess.CompletedProcess(argv, 0, "".join(self._said(self.containers.get(name), list(argv))), "")

    def _said(self, host: Thing, argv: list[str]) -> Iterator[str]:
        if "probe" in argv:
            sent = " ".join(["python3", "-c", *argv[-4:]])
            one = {"destination": PROBE_ADDRESS, "protocol": "udp", "port": int(argv[-2]), "command": sent}
            host.change(attempts=[*host.about["attempts"], one])
        elif argv == ["cat", f"{FOLDER}/attempts.jsonl"]:
            yield from (json.dumps(one) + "\n" for one in host.about["attempts"])
        elif argv == ["cat", f"{FOLDER}/state.json"]:
            yield json.dumps({"lost": 0, "starts": 1})
        elif argv[:2] == ["systemctl", "is-system-running"]:
            yield "running"
        elif argv[:2] == ["systemctl", "is-active"]:
            yield "active"
        elif "ssh_host_" in argv[-1]:
            yield f"ssh-ed25519 AAAA\n{END}\n"
        elif "rx_bytes" in argv[-1]:
            yield str(time.monotonic_ns() // 1000)
