#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Start a Compose project and wait until it is healthy; a container that dies meanwhile is an answer at once."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import subprocess
import tempfile
import time
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: project_up
short_description: Start a Compose project and wait until it is healthy
description:
  - Runs C(docker compose up --detach --wait) and watches the containers beside it. Compose looks twice a second and can
    miss a container that dies and is restarted; this module counts restarts.
  - On failure the containers that it waited for are stopped, since their restart policy would go on for ever, and the
    last lines of the log are in the message, with the project's secrets struck out.
  - It runs on where the control host goes away. It then stops nothing once another run has taken the project over.
options:
  name:
    description: Name of the project.
    type: str
    required: true
  path:
    description: Folder of the project.
    type: path
    required: true
  recreate:
    description: Make the containers anew even where Compose sees no difference.
    type: bool
    default: false
  state:
    description:
      - With C(started) its containers are started; whether they come to health is somebody else's question. With
        C(made) they are made as the files say and left stopped, for whoever starts them when their time comes.
    type: str
    choices: [healthy, started, made]
    default: healthy
  wait:
    description: Seconds until it must be healthy.
    type: int
    default: 1800
  log_lines:
    description: Lines of the log to show on failure.
    type: int
    default: 40
author: the onprem-llm authors
"""

EXAMPLES = r"""
- name: Start the project
  project_up:
    name: tiny-0
    path: /srv/onprem-llm/tiny-0
"""

RETURN = r"""
seconds:
  description: How long it took.
  type: float
  returned: success
"""

POLL = 1.0  # seconds between two looks at the containers
STARTERS = Path("/run")  # where the newest run of a project leaves its mark
STOP_LIMIT = 120  # seconds
PROGRESS = re.compile(r"^(Container|Network|Volume|Image) .+  \w+$")  # what Compose says while all is well
SHORTEST_SECRET = 6  # characters; shorter values would strike out ordinary words


class StartError(Exception):
    """Why the project did not come up, and the container to blame, if one is known."""

    def __init__(self, message, container=None):
        """Keep the container for its log."""
        super().__init__(message)
        self.container = container


def claim(project):
    """Mark the project as ours from now on, and return the mark: a run before us that still waits is to let it be."""
    mark = f"{os.getpid()} {time.time()}"
    (STARTERS / f"onprem-llm-{project}.starter").write_text(mark, encoding="utf-8")
    return mark


def claimed(project, mark):
    """Say whether nobody has claimed the project after us."""
    with contextlib.suppress(OSError):
        return (STARTERS / f"onprem-llm-{project}.starter").read_text(encoding="utf-8") == mark
    return False


def docker(*arguments, limit=60):
    """Run docker and return its output, errors in it."""
    done = subprocess.run(
        ["docker", *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=limit, check=False
    )
    return done.stdout.decode("utf-8", "replace")


def containers(project):
    """Return {id: container as docker inspect tells it}."""
    found = docker("ps", "--all", "--quiet", "--no-trunc", "--filter", f"label=com.docker.compose.project={project}")
    identities = found.split()
    if not identities:
        return {}
    try:
        return {one["Id"]: one for one in json.loads(docker("inspect", *identities))}
    except ValueError:
        return {}  # one was removed between the two commands; the next look sees it right


def marks(found):
    """Return what changes when a container is made anew or started."""
    return {identity: one["State"]["StartedAt"] for identity, one in found.items()}


def check_alive(found, before):
    """Raise StartError if a container died since `before`."""
    for identity, one in found.items():
        state, name = one["State"], one["Name"].lstrip("/")
        restarts = one["RestartCount"] - (before[identity]["RestartCount"] if identity in before else 0)
        started = state["StartedAt"][:4] != "0001"
        if restarts > 0 or (started and state["Status"] in ("exited", "dead", "restarting")):
            old = before.get(identity)
            if old and old["State"]["StartedAt"] == state["StartedAt"] and restarts == 0:
                continue  # it was dead before we came, and has not been started yet
            killed = ", killed because the host or its memory limit ran out of memory" if state.get("OOMKilled") else ""
            raise StartError(f"container {name} ended with exit code {exit_code(identity, state)}{killed}", identity)


def exit_code(container, state):
    """Return the last exit code; once the restart policy has started it again, only docker's events know it."""
    if state["Status"] == "exited":
        return state["ExitCode"]
    now = str(int(time.time()) + 1)
    window = ["--since", "2h", "--until", now, "--filter", f"container={container}", "--filter", "event=die"]
    codes = docker("events", *window, "--format", "{{.Actor.Attributes.exitCode}}").split()
    return codes[-1] if codes else state["ExitCode"]


def wait(command, project, before, limit, seen):
    """Run `docker compose up`, watching the containers; their ids go into `seen`. Raises StartError."""
    with tempfile.TemporaryFile() as said:  # a pipe that nobody reads until the end could fill up
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT)
        try:
            watch(process, project, before, limit, seen)
        finally:
            if process.poll() is None:
                process.kill()
        said.seek(0)
        output = said.read().decode("utf-8", "replace")
    if process.returncode != 0:
        found = containers(project)
        seen.update(found)
        check_alive(found, before)
        raise StartError(*explain(output, found))


def watch(process, project, before, limit, seen):
    """Look at the containers until Compose is done. It keeps the limit itself; ours is for a Compose that hangs."""
    end = time.monotonic() + limit + 60
    while process.poll() is None:
        found = containers(project)
        seen.update(found)
        check_alive(found, before)
        if time.monotonic() > end:
            raise StartError(f"docker compose did not come back within {limit + 60} s")
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(POLL)


def explain(output, found):
    """Return (message, container) for a Compose that gave up while every container lives."""
    lines = [line.strip() for line in output.splitlines() if line.strip() and not PROGRESS.match(line.strip())]
    said = "; ".join(lines[-4:]) or "docker compose up failed"
    for identity, one in found.items():
        health = one["State"].get("Health")
        if health and health["Status"] != "healthy" and one["State"]["Status"] == "running":
            tries = health.get("Log") or [{"Output": ""}]
            last = (tries[-1]["Output"].strip().splitlines() or ["nothing"])[-1]
            slow = "; if it needs longer, raise timeouts.start in model.yaml" if "not healthy after" in said else ""
            return f"{said}{slow}; the last health check said: {last[-300:]}", identity
    return said, None


def secrets_of(path):
    """Return the values in secrets/env and each part of a list of them."""
    try:
        words = shlex.split((Path(path) / "secrets" / "env").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    values = [word.partition("=")[2] for word in words]
    parts = [part for value in values for part in (value, *value.split(";")) if len(part) >= SHORTEST_SECRET]
    return sorted(set(parts), key=len, reverse=True)


def last_lines(container, count, path):
    """Return the end of a container's log with the project's secrets struck out."""
    text = docker("logs", "--tail", str(count), container)
    for secret in secrets_of(path):
        text = text.replace(secret, "********")
    return text.rstrip()


def up(params, seen):
    """Start the project and return whether anything changed; its containers' ids go into `seen`. Raises StartError."""
    name, path = params["name"], params["path"]
    before = containers(name)
    seen.update(before)
    base = ["docker", "compose", "--project-directory", path, "--file", f"{path}/compose.yaml", "--project-name", name]
    waiting = ["--wait", "--wait-timeout", str(params["wait"])] if params["state"] == "healthy" else []
    anew = ["--force-recreate"] if params["recreate"] else []
    if params["state"] == "made":
        make(base, anew, params["wait"])
        return marks(before) != marks(containers(name))
    wait([*base, "up", "--detach", "--remove-orphans", *anew, *waiting], name, before, params["wait"], seen)
    return marks(before) != marks(containers(name))


def make(base, anew, limit):
    """Make the containers and leave them stopped. StartError with what Compose said."""
    for words in ([*base, "up", "--no-start", "--remove-orphans", *anew], [*base, "stop"]):
        done = subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=limit,
            check=False,
        )
        if done.returncode != 0:
            raise StartError(explain(done.stdout.decode("utf-8", "replace"), {})[0])


def failure(params, error, seen, mark):
    """Stop the containers that we waited for and return the message for a person."""
    name = params["name"]
    message = f"project {name} did not start: {error}"
    if error.container:
        lines = last_lines(error.container, params["log_lines"], params["path"])
        message += f"\nthe last lines of its log:\n{lines or '(it wrote nothing)'}"
    if not claimed(name, mark):
        return message + "\nAnother run has begun to start it meanwhile; it was left to that one."
    try:
        # By id: what somebody else has put in their place is not ours to stop.
        ours = sorted(seen & set(containers(name)))
        if ours:
            docker("stop", "-t", "3", *ours, limit=STOP_LIMIT)
    except (OSError, subprocess.SubprocessError) as left:
        return message + f"\nIt could not be stopped either ({left}); on the host: docker compose -p {name} stop"
    return message + f"\nThe project was left stopped. Its log on the host: docker compose -p {name} logs"


def main():
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "path": {"type": "path", "required": True},
            "recreate": {"type": "bool", "default": False},
            "state": {"type": "str", "choices": ["healthy", "started", "made"], "default": "healthy"},
            "wait": {"type": "int", "default": 1800},
            "log_lines": {"type": "int", "default": 40},
        }
    )
    begun, seen = time.monotonic(), set()
    try:
        mark = claim(module.params["name"])
        changed = up(module.params, seen)
    except StartError as error:
        module.fail_json(msg=failure(module.params, error, seen, mark))
    except (OSError, subprocess.SubprocessError) as error:
        module.fail_json(msg=f"cannot start the project {module.params['name']}: {error}")
    module.exit_json(changed=changed, seconds=round(time.monotonic() - begun, 1))


if __name__ == "__main__":
    main()
