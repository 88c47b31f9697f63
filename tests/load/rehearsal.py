"""What the system and fault scenarios share: a site on a lab, deployments behind its gateway, and a load on them."""

import contextlib
import csv
import datetime
import functools
import http.client
import json
import re
import shutil
import ssl
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.e2e.conftest import Lab, Site, cache, environment
from tests.load.client import Settings

SETTINGS = """\
onprem_llm_site:
  images_dir: images
  open_webui: {enabled: false}
"""
GATEWAY = "gateway-haproxy-1"
PORT = 8080
# The runtime socket, read on the gateway host, without anything of ours on the control host.
SHOW_STAT = """\
import socket
s = socket.socket(socket.AF_UNIX)
s.settimeout(5)
s.connect("/srv/onprem-llm/gateway/run/admin.sock")
s.sendall(b"show stat\\n")
print(b"".join(iter(lambda: s.recv(65536), b"")).decode())
"""


def make_folder(folder: Path) -> None:
    """Make the site's folder, beside the inventory that `lab up` wrote there: settings, images, the tiny model."""
    (folder / "group_vars").mkdir(parents=True, exist_ok=True)
    (folder / "group_vars" / "all.yml").write_text(SETTINGS)
    images = folder / "images"
    shutil.rmtree(images, ignore_errors=True)
    images.mkdir()
    for archive in [*(cache() / "images").glob("*.tar"), *(cache() / "test/images").glob("*.tar")]:
        (images / archive.name).symlink_to(archive)
    if not (folder / "model").exists():
        shutil.copytree(cache() / "models" / "tiny", folder / "model")


def until(true: Callable[[], object], seconds: float, what: str) -> float:
    """Wait until something is so; return how many seconds that took."""
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < seconds, f"not within {seconds} s: {what}"
        time.sleep(0.3)
    return time.monotonic() - began


@dataclass(frozen=True)
class Server:
    """A replica as the gateway sees it."""

    status: str  # UP, DOWN, DRAIN, MAINT, "UP 1/3"…
    sessions: int  # since the gateway's process began
    current: int

    @property
    def up(self) -> bool:
        """Tell whether it takes new requests."""
        return self.status.startswith("UP")


@dataclass(frozen=True)
class Replica:
    """A replica's container on its host."""

    lab: Lab
    host: str
    container: str

    def inspect(self, what: str) -> str:
        """Return a field of `docker inspect`."""
        return self.lab.exec_root(self.host, "docker", "inspect", "--format", f"{{{{{what}}}}}", self.container).strip()

    @property
    def born(self) -> str:
        """Return what changes when it is restarted or replaced."""
        return self.inspect(".Id") + self.inspect(".State.StartedAt")

    @property
    def finished(self) -> float:
        """Return when docker saw it end the last time, in seconds since the epoch."""
        shown = self.inspect(".State.FinishedAt")  # 2026-11-21T11:23:13.123456789Z
        return datetime.datetime.fromisoformat(shown[:26] + "+00:00").timestamp()

    @property
    def fingerprint(self) -> str:
        """Return how the stub engine in it signs its answers."""
        return "stub-" + self.inspect(".Config.Hostname")

    def signal(self, name: str) -> None:
        """Send a signal to every process in it."""
        first = self.inspect(".State.Pid")
        listed = self.lab.exec_root(self.host, "docker", "top", self.container, "-o", "pid").split()
        assert first in listed, f"{self.container}: found {listed}, expected {first} among them"
        # Others may be gone meanwhile, such as a health check's.
        pids = " ".join(pid for pid in listed if pid.isdigit() and pid != first)
        self.lab.exec_root(
            self.host, "sh", "-c", f"kill -{name} {first} || exit; kill -{name} {pids} 2>/dev/null || true"
        )


class Rehearsal:
    """The lab with a gateway, and what a person does with it."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.lab = site.lab
        self.hosts = list(self.addresses)

    @property
    def gateway_host(self) -> str:
        """The gateway is the first host, as bootstrap records it."""
        return self.hosts[0]

    @functools.cached_property
    def addresses(self) -> dict[str, str]:
        """Map the hosts to their addresses."""
        shown = self.site.run("lab", "status", "--name", self.lab.name, "--json").stdout
        return {one["host"]: one["address"] for one in json.loads(shown)["hosts"]}

    def address(self, host: str) -> str:
        """Return a host's address."""
        return self.addresses[host]

    @functools.cached_property
    def ca(self) -> str:
        """Return the root certificate that the gateway's comes from, as PEM."""
        shown = self.site.run("tls", "root").stdout
        found = re.search(r"-----BEGIN CERTIFICATE-----.*-----END CERTIFICATE-----", shown, re.DOTALL)
        assert found, f"tls root showed no certificate:\n{shown}"
        return found[0] + "\n"

    def key(self, name: str, *more: str) -> str:
        """Make a client's key."""
        shown = self.site.run("key", "create", name, *more).stdout
        found = re.search(r"\bsk-[A-Za-z0-9_-]{20,}", shown)
        assert found, f"key create printed no key:\n{shown}"
        return found[0]

    def settings(self, model: str, key: str, **more: object) -> Settings:
        """Return a load of 20 requests a second on the gateway, bounded at ten minutes."""
        url = f"https://{self.address(self.gateway_host)}:{PORT}/v1"
        return Settings(**{"url": url, "model": model, "key": key, "ca": self.ca, "seconds": 600, **more})

    def ask(self, path: str, key: str, body: dict | None = None) -> tuple[int, dict]:
        """Ask the gateway; return the status and the JSON that came, an error's too."""
        context = ssl.create_default_context(cadata=self.ca)
        connection = http.client.HTTPSConnection(self.address(self.gateway_host), PORT, timeout=60, context=context)
        with contextlib.closing(connection):
            headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
            connection.request("POST" if body else "GET", path, json.dumps(body) if body else None, headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())

    def models(self, key: str) -> list[str]:
        """Name the models that the gateway lists."""
        status, value = self.ask("/v1/models", key)
        assert status == 200, value
        return [one["id"] for one in value["data"]]

    def usage(self, user: str) -> dict[str, int]:
        """Return what the gateway counted for a key."""
        return self.site.json("key", "usage")["usage"][user]

    def rotation(self, deployment: str) -> dict[str, Server]:
        """Ask HAProxy itself for the replicas of a deployment: {"tiny-0": …}."""
        for _ in range(10):
            # While a reload is under way nobody may listen for a moment.
            shown = self.lab.exec_root(self.gateway_host, "python3", "-c", SHOW_STAT, check=False)
            if shown.startswith("# "):
                break
            time.sleep(0.2)
        rows = list(csv.DictReader(shown.removeprefix("# ").splitlines()))
        assert rows, "the gateway's runtime socket does not answer"
        mine = [row for row in rows if row["pxname"] == deployment and row["svname"] not in {"BACKEND", "FRONTEND"}]
        return {row["svname"]: Server(row["status"], int(row["stot"]), int(row["scur"])) for row in mine}

    def up(self, deployment: str) -> list[str]:
        """Name the replicas that take requests."""
        return sorted(name for name, server in self.rotation(deployment).items() if server.up)

    def replicas(self, deployment: str) -> dict[str, Replica]:
        """Find a deployment's containers: {"tiny-0": …}."""
        rows = [row for row in self.site.json("status")["replicas"] if row["deployment"] == deployment and row["host"]]
        return {row["project"]: Replica(self.lab, row["host"], f"{row['project']}-vllm-1") for row in rows}

    def revision(self, deployment: str) -> int:
        """Return the revision that the book has last."""
        entries = self.site.json("status")["deployments"]
        return next(int(one["revision"]) for one in entries if one["name"] == deployment)

    def is_back(self, host: str) -> None:
        """Wait until a host that was killed and started again can be logged in to, and its docker answers."""
        asked = ("sh", "-c", "systemctl is-active --quiet ssh && docker info --format up 2>/dev/null")
        until(lambda: "up" in self.lab.exec_root(host, *asked, check=False), 120, f"{host} is back")

    def down(self, deployment: str) -> None:
        """Take a deployment down, whether it came up or not."""
        self.site.run("down", deployment, "--yes", code=None)


@pytest.fixture(scope="session")
def rehearsal() -> Rehearsal:
    """The site that tests/stages.py made on the lab of this run."""
    lab = Lab(environment("ONPREM_LLM_TEST_LAB"), Path(environment("ONPREM_LLM_TEST_INVENTORY")))
    return Rehearsal(Site(lab.inventory.parent, lab))


if __name__ == "__main__":
    make_folder(Path(sys.argv[1]))
