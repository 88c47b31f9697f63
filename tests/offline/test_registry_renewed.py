"""`tls renew` on a host with the site's registry: it answers with the new certificate, and nothing else starts anew."""

import json
import os
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from recorded_facts import host
from tests.loopback import docker_registry, free_port
from tests.offline.roles_here import ROLES, run_role

from onprem_llm.certificates import plan_renewal
from onprem_llm.probe import parse_current
from onprem_llm.rendering.registry import CERTIFICATE, CONFIGURATION, HEALTH_PORT, INNER_PORT
from onprem_llm.spec.site import parse_site

# In an engine's place: its one container is a docker-registry here, made anew where Compose is told to.
DOCKER = """\
#!{python}
import json, os, pathlib, signal, socket, subprocess, sys, time
here = pathlib.Path({folder!r})
pid = here / "pid"
with (here / "asked").open("a") as log:
    log.write(json.dumps(sys.argv[1:]) + chr(10))
if sys.argv[1] == "ps":
    print("r1")
elif sys.argv[1] == "inspect":
    state = {{"StartedAt": "2026-01-01T00:00:0" + str(pid.stat().st_mtime_ns), "Status": "running"}}
    print(json.dumps([{{"Id": "r1", "Name": "/registry", "RestartCount": 0, "State": state}}]))
elif "up" in sys.argv and ("--force-recreate" in sys.argv or not pid.exists()):
    if pid.exists():
        os.kill(int(pid.read_text()), signal.SIGTERM)
        time.sleep(0.5)
    log = (here / "registry.log").open("ab")
    child = subprocess.Popen([{program!r}, "serve", str(here / "config.yml")], stdout=log, stderr=log)
    pid.write_text(str(child.pid))
    for _ in range(300):
        with socket.socket() as one:
            if one.connect_ex(("127.0.0.1", {port})) == 0:
                break
        time.sleep(0.1)
"""


@dataclass(frozen=True)
class GatewayHost:
    """This machine as a gateway host: a data root, an authority, a registry behind what looks like docker."""

    folder: Path
    port: int

    @property
    def root(self) -> Path:
        return self.folder / "ca" / "ca.crt"

    @property
    def certificate(self) -> Path:
        return self.folder / "srv" / "registry" / CERTIFICATE

    def make(self) -> "GatewayHost":
        names = ["localhost", "127.0.0.1"]
        made = {"certificates_ca_path": str(self.folder / "ca"), "certificates_ca_host": "localhost",
                "certificates_names": names, "certificates_gateway_file": str(self.certificate)}  # fmt: skip
        run_role(self.folder, "certificates", made, entry="gateway")
        text = CONFIGURATION.replace("/run/registry.pem", str(self.certificate))
        text = text.replace("rootdirectory: /registry}", f"rootdirectory: {self.folder / 'images'}}}")
        text = text.replace(f"addr: :{INNER_PORT}\n", f"addr: 127.0.0.1:{self.port}\n")
        (self.folder / "images").mkdir()
        (self.folder / "config.yml").write_text(text.replace(f"127.0.0.1:{HEALTH_PORT}", f"127.0.0.1:{free_port()}"))
        docker = self.folder / "bin" / "docker"
        docker.parent.mkdir()
        values = {"python": sys.executable, "folder": str(self.folder), "program": docker_registry(), "port": self.port}
        docker.write_text(DOCKER.format(**values))
        docker.chmod(0o755)
        subprocess.run([docker, "compose", "up"], check=True)
        (self.folder / "asked").unlink()
        return self

    def orders(self) -> dict[str, object]:
        """Return what `tls renew --force` orders for this host."""
        container = {"id": "r1", "name": "registry-registry-1", "state": "running", "labels": {}}
        project = {"path": str(self.certificate.parents[1]), "files": {}, "containers": [container]}
        there = {"registry": {"not_after": 4_000_000_000, "names": ["127.0.0.1", "localhost"]}}
        facts = host("localhost", 1, gateway=True, certificates=there, projects={"registry": project})
        site = parse_site({"data_root": str(self.folder / "srv")}, "test")
        renewal = plan_renewal(parse_current({"localhost": facts}), "localhost", site, 1_800_000_000, force=True)
        return dict(renewal.orders)

    def renew(self) -> None:
        """Run the playbook of `tls renew`."""
        orders = self.folder / "orders.json"
        orders.write_text(json.dumps(self.orders()))
        given = {"onprem_llm_order_file": str(orders), "certificates_ca_path": str(self.folder / "ca"),
                 "ansible_python_interpreter": sys.executable}  # fmt: skip
        command = ["ansible-playbook", "-i", "localhost,", "-c", "local", str(ROLES.parent / "playbooks/tls_renew.yml")]
        environment = {**os.environ, "ANSIBLE_ROLES_PATH": str(ROLES)}
        environment["PATH"] = f"{self.folder / 'bin'}:{environment['PATH']}"
        ended = subprocess.run(
            [*command, "-e", json.dumps(given)], capture_output=True, text=True, check=False, env=environment
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr

    def shown(self) -> str:
        """Return the certificate that the registry shows to who believes the site's authority alone."""
        return ssl.get_server_certificate(("127.0.0.1", self.port), ca_certs=str(self.root))


@pytest.fixture
def gateway_host(tmp_path: Path) -> Iterator[GatewayHost]:
    pid = tmp_path / "pid"
    try:
        yield GatewayHost(tmp_path, free_port()).make()
    finally:
        if pid.exists():
            os.kill(int(pid.read_text()), signal.SIGTERM)
        Path("/run/onprem-llm-registry.starter").unlink(missing_ok=True)


def test_the_registry_takes_its_new_certificate(gateway_host: GatewayHost) -> None:
    before = gateway_host.shown()
    assert gateway_host.certificate.read_text().startswith(before)
    gateway_host.renew()
    assert gateway_host.shown() != before
    assert gateway_host.certificate.read_text().startswith(gateway_host.shown())
    asked = [json.loads(line) for line in (gateway_host.folder / "asked").read_text().splitlines()]
    (up,) = [words for words in asked if words[0] == "compose"]
    assert up[up.index("--project-name") + 1] == "registry"
    assert "--force-recreate" in up
