"""The rehearsal hosts of this test run, and the command line as a user has it."""

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Lab:
    """The lab that `make test` made (tests/stages.py), named by the environment."""

    name: str
    inventory: Path

    @property
    def hosts(self) -> list[str]:
        """Name the hosts in the order of the inventory."""
        shown = subprocess.run(
            ["onprem-llm", "lab", "status", "--name", self.name, "--json"], capture_output=True, text=True, check=True
        )
        return [host["host"] for host in json.loads(shown.stdout)["hosts"]]

    def exec_root(self, host: str, *argv: str, check: bool = True) -> str:
        """Run a command on a host as root, around ssh; return its stdout."""
        done = subprocess.run(["docker", "exec", host, *argv], capture_output=True, text=True, check=False)
        if check and done.returncode:
            raise AssertionError(f"{host}: {argv}: {done.stdout}{done.stderr}")
        return done.stdout


@dataclass(frozen=True)
class Site:
    """A folder as a person has one: inventory.ini, group_vars and model files; commands run in it."""

    folder: Path
    lab: Lab

    def run(self, *arguments: str, code: int | None = 0, timeout: int = 600) -> subprocess.CompletedProcess[str]:
        """Run onprem-llm here; fail with all that it printed when the exit code is another."""
        done = subprocess.run(
            ["onprem-llm", *arguments],
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        shown = f"onprem-llm {' '.join(arguments)}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert code is None or done.returncode == code, shown
        assert "Traceback" not in done.stderr, shown
        return done

    def json(self, *arguments: str, code: int = 0) -> dict:
        """Run a command with --json and read it."""
        return json.loads(self.run(*arguments, "--json", code=code).stdout)

    def write(self, name: str, text: str) -> Path:
        """Write a file here."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path


def environment(name: str) -> str:
    """Return a variable that tests/stages.py sets; without it there is nothing to test on."""
    value = os.environ.get(name)
    if not value:
        pytest.exit(f"{name} is not set: run `make test`, or see CONTRIBUTING.md for a lab of your own", returncode=4)
    return value


@pytest.fixture(scope="session")
def lab() -> Lab:
    """The lab of this run."""
    return Lab(environment("ONPREM_LLM_TEST_LAB"), Path(environment("ONPREM_LLM_TEST_INVENTORY")))


def cache() -> Path:
    """Return the cache folder, as the Makefile sets it."""
    return Path(os.environ.get("ONPREM_LLM_CACHE") or Path.home() / ".cache" / "onprem-llm")


SETTINGS = """\
onprem_llm_site:
  images_dir: images
  open_webui: {image: "onprem-llm/open-webui:0.12.4", port: 3000}
"""

# task: completion: a chat deployment starts Open WebUI. No surge: what is mended keeps its name and port.
STUB = """\
api_version: 1
name: {name}
model: model
task: completion
engine: {{image: "onprem-llm/stub-engine:{version}", engine_args: {{max_model_len: 512}}}}
resources: {{gpus: {gpus}, hosts: [{host}]}}
port: {port}
timeouts: {{start: 60, readiness: 20}}
update: {{max_surge: 0, drain_timeout: 5}}
"""


@pytest.fixture(scope="session")
def site(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A folder on the lab, with the images that the run built and the tiny model."""
    site = Site(tmp_path_factory.mktemp("site"), lab)
    site.write("inventory.ini", lab.inventory.read_text())
    site.write("group_vars/all.yml", SETTINGS)
    images = site.folder / "images"
    images.mkdir()
    for archive in [*(cache() / "images").glob("*.tar"), *(cache() / "test/images").glob("*.tar")]:
        (images / archive.name).symlink_to(archive)
    shutil.copytree(cache() / "models" / "tiny", site.folder / "model")
    return site


def stub(
    site: Site, name: str, *, host: str, port: int, version: int = 1, gpus: int = 0, extra: str = ""
) -> tuple[str, str]:
    """Write a model.yaml for the stub engine; return its file name and its project."""
    text = STUB.format(name=name, version=version, gpus=gpus, host=host, port=port) + extra
    site.write(f"{name}.yaml", text)
    return f"{name}.yaml", f"{name}-0"


def containers(lab: Lab, host: str) -> dict[str, str]:
    """Map the names of all containers on a host to id and start time: a restart changes one of them."""
    ids = lab.exec_root(host, "docker", "ps", "--all", "--quiet", "--no-trunc").split()
    if not ids:
        return {}
    lines = lab.exec_root(host, "docker", "inspect", "--format", "{{.Name}} {{.Id}} {{.State.StartedAt}}", *ids)
    return {line.split(" ", 1)[0].lstrip("/"): line.split(" ", 1)[1] for line in lines.splitlines()}
