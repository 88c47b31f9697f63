"""The rehearsal hosts of this test run, and the command line as a user has it."""

import json
import os
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
        return [host["name"] for host in json.loads(shown.stdout)["hosts"]]

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

    def run(self, *arguments: str, code: int = 0, timeout: int = 600) -> subprocess.CompletedProcess[str]:
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
        assert done.returncode == code, shown
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


def make_site(folder: Path, lab: Lab, settings: str) -> Site:
    """Lay out a person's folder with a copy of the lab's inventory."""
    site = Site(folder, lab)
    site.write("inventory.ini", lab.inventory.read_text())
    site.write("group_vars/all.yml", settings)
    return site


def cache() -> Path:
    """Return the cache folder, as the Makefile sets it."""
    return Path(os.environ.get("ONPREM_LLM_CACHE") or Path.home() / ".cache" / "onprem-llm")
