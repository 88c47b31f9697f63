"""A role, run on this machine by ansible-playbook."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROLES = Path(__file__).resolve().parents[2] / "roles"


def run_role(folder: Path, role: str, variables: dict[str, object], entry: str = "main") -> int:
    """Run it with a play in `folder`, and return how many tasks changed something."""
    task = {"ansible.builtin.import_role": {"name": role, "tasks_from": entry}}
    play = folder / "play.yml"
    play.write_text(json.dumps([{"hosts": "localhost", "gather_facts": False, "vars": variables, "tasks": [task]}]))
    command = ["ansible-playbook", "-i", "localhost,", "-c", "local", str(play)]
    command += ["-e", f"ansible_python_interpreter={sys.executable}"]
    environment = {**os.environ, "ANSIBLE_ROLES_PATH": str(ROLES), "ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.default"}
    ended = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return int(ended.stdout.partition("changed=")[2].split()[0])
