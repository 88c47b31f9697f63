"""A connected machine: from a site's files to a signed bundle, and its rehearsal."""

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.e2e.conftest import cache
from tests.made_facts import host_facts

HOSTS = {"gpu1": "198.18.0.11", "gpu2": "198.18.0.12"}
GROUPS = {"gpu": ("gpu1", "gpu2")}
DISK = {"mount": "/", "filesystem": "ext4", "size_bytes": 10**12, "free_bytes": 9 * 10**11}
SETTINGS = """\
onprem_llm_site:
  images_dir: {images}
"""
NO_PAGE = "  open_webui: {enabled: false}\n"


@dataclass(frozen=True)
class Desk:
    """A folder of a connected machine, from model.yaml to a signed bundle."""

    folder: Path

    def run(self, *words: str, code: int = 0) -> str:
        """Run a command here; return what it printed."""
        ended = self._ended(*words)
        shown = f"{' '.join(words)}: exit {ended.returncode}\n{ended.stdout}\n{ended.stderr}"
        assert ended.returncode == code, shown
        assert "Traceback" not in shown
        return shown

    def json(self, *words: str) -> Any:
        """Return the document that a command prints."""
        return json.loads(self._ended(*words, "--json").stdout)

    def _ended(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = [str(Path(sys.executable).with_name("onprem-llm")), *words]
        return subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=False, timeout=2700)

    def make(
        self, model: str | None, settings: str, images: Path, groups: Mapping[str, tuple[str, ...]] = GROUPS
    ) -> "Desk":
        """Write the site's files; make the lock and the bundle. Without a model: a site that has none yet."""
        lines = [f"{name} ansible_host={address} ansible_user=ops" for name, address in HOSTS.items()]
        lines += [line for name, members in groups.items() for line in ("", f"[{name}]", *members)]
        (self.folder / "inventory.ini").write_text("\n".join([*lines, ""]))
        (self.folder / "group_vars").mkdir()
        (self.folder / "group_vars/all.yml").write_text(SETTINGS.format(images=images) + settings)
        if model is not None:
            (self.folder / "tiny.yaml").write_text(model)
            shutil.copytree(cache() / "models" / "tiny", self.folder / "models" / "tiny")
        facts = {"schema_version": 1, "hosts": {name: host_facts(disks=[DISK]) for name in HOSTS}}
        (self.folder / "facts.json").write_text(json.dumps(facts))
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.folder / "key")], check=True)
        public = (self.folder / "key.pub").read_text()
        spaces = "onprem-llm-bundle,onprem-llm-proof"
        (self.folder / "allowed").write_text(f'laptop namespaces="{spaces}" {public}')
        version = f"{sys.version_info[0]}.{sys.version_info[1]}"
        models = ["tiny.yaml"] if model is not None else []
        lock = ("--facts", "facts.json", "--site", "group_vars/all.yml", "--python", version)
        self.run("lock", *models, *lock)
        self.run("bundle", "create", "--lock", "onprem-llm.lock", "-o", "bundle", "--sign-key", "key")
        return self

    def prove(self, code: int) -> dict[str, Any]:
        """Rehearse the bundle; return proof.json, whose signature was checked as a site would."""
        given = ("--facts", "facts.json", "--allowed-signers", "allowed", "--sign-key", "key", "--name", "proved")
        print(self.run("prove", "bundle", "-i", "inventory.ini", *given, code=code))
        proof = self.folder / "bundle" / "proof.json"
        with proof.open("rb") as signed:
            subprocess.run(
                ["ssh-keygen", "-Y", "verify", "-f", "allowed", "-I", "laptop", "-n", "onprem-llm-proof",
                 "-s", "bundle/proof.json.sig"], cwd=self.folder, stdin=signed, check=True, capture_output=True,
            )  # fmt: skip
        found: dict[str, Any] = json.loads(proof.read_bytes())
        return found


def phases(proof: Mapping[str, Any]) -> dict[str, str]:
    """Return what came of each phase."""
    return {phase["name"]: phase["result"] for phase in proof["phases"]}


def unexplained(proof: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what tried to get out and is in no table."""
    return [one for one in proof["attempts"] if not one["explained"]]
