# SPDX-License-Identifier: Apache-2.0
"""The gateway's container: is it as its compose.yaml says, does HAProxy take the files, start it."""

from __future__ import annotations

import json
import os
import re

from ansible.module_utils.onprem_llm_docker import docker
from ansible.module_utils.onprem_llm_gateway_files import COMPOSE_FILE, ENGINE_KEYS, FilesError

SERVICE = "haproxy"
CHECK = (
    "-c",
    "-f", "/run/secrets-gateway/engine-keys.cfg",
    "-f", "/etc/gateway/haproxy.cfg",
    "-f", "/etc/gateway/deployments",
)  # fmt: skip
# Where HAProxy sees a file, and where a person finds it.
PLACES = (("/etc/gateway/", "conf/"), ("/run/secrets-gateway/", "secrets/"))
LOG_LINES = 20


def compose(folder, file, *arguments, name=None, limit=60):
    """Run docker compose for the project in `folder`, as `file` describes it."""
    project = ["--project-name", name] if name else []
    return docker("compose", "--project-directory", str(folder), "--file", str(file), *project, *arguments, limit=limit)


def readable(text, folder, staged):
    """Rewrite HAProxy's words for a person on the host: its paths, without keys, without the lines of progress."""
    text = text.replace(str(staged), str(folder))
    for inside, outside in PLACES:
        text = text.replace(inside, f"{folder}/{outside}")
    if (staged / ENGINE_KEYS).exists():
        for value in re.findall(r'"(.+)"', (staged / ENGINE_KEYS).read_text(encoding="utf-8")):
            text = text.replace(value, "********")
    lines = [line for line in text.splitlines() if line.startswith("[ALERT]")] or text.splitlines()[-12:]
    return "\n".join(re.sub(r"^\[ALERT\]\s*\(\d+\)\s*:\s*(config : )?", "", line) for line in lines)


def validate(folder, staged, name):
    """Ask Compose, then HAProxy in a container of its own, whether they can read the staged files; FilesError if not.

    The staged folder stands in for the project's, so that the mounts are the same.
    """
    code, said = compose(folder, staged / COMPOSE_FILE, "config", "--quiet", name=name)
    if code != 0:
        said = said.replace(str(staged), str(folder))
        raise FilesError(f"docker compose refuses {folder / COMPOSE_FILE}; nothing was changed:\n{said}")
    once = ["run", "--rm", "--no-deps", "-T", "--name", f"{name}-check-{os.getpid()}", "--entrypoint", "haproxy"]
    code, said = compose(staged, staged / COMPOSE_FILE, *once, SERVICE, *CHECK, name=f"{name}-check", limit=120)
    if code != 0:
        raise FilesError(f"HAProxy refuses the new files; nothing was changed:\n{readable(said, folder, staged)}")


def container(name):
    """Return the container of the gateway as docker inspect tells it, None where there is none."""
    labels = [f"label=com.docker.compose.project={name}", f"label=com.docker.compose.service={SERVICE}"]
    found = docker("ps", "--all", "--quiet", "--no-trunc", "--filter", labels[0], "--filter", labels[1])[1].split()
    if not found:
        return None
    code, text = docker("inspect", found[0])
    return json.loads(text)[0] if code == 0 else None


def as_described(folder, file, name):
    """Say whether the container runs and is what compose.yaml (`file`) describes, its image included."""
    found = container(name)
    if not found or found["State"]["Status"] != "running":
        return False
    hashes = dict(line.split() for line in compose(folder, file, "config", "--hash", "*", name=name)[1].splitlines()
                  if len(line.split()) == 2)  # fmt: skip
    labels = found["Config"]["Labels"]
    if hashes.get(SERVICE) != labels.get("com.docker.compose.config-hash"):
        return False
    known = docker("ps", "--quiet", "--filter", f"label=com.docker.compose.project={name}")[1].split()
    if len(known) < len(hashes):  # another service of the project is not running
        return False
    code, image = docker("image", "inspect", "--format", "{{.Id}}", found["Config"]["Image"])
    return code != 0 or image == found["Image"]


def up(folder, name, recreate):
    """Start what compose.yaml describes; FilesError with docker's words if that cannot be.

    Not `--wait`: docker looks at a container's health after the first interval only, and HAProxy is up in no time.
    """
    anew = ["--force-recreate"] if recreate else []
    options = ["--detach", "--remove-orphans", *anew]
    code, said = compose(folder, folder / COMPOSE_FILE, "up", *options, name=name, limit=180)
    if code != 0:
        raise FilesError("docker compose did not start the gateway: " + "\n".join(said.splitlines()[-3:]))


def check_alive(name):
    """Raise FilesError with the end of its log if the container has ended since it was made or started."""
    found = container(name)
    if found and found["State"]["Status"] == "running" and found["RestartCount"] == 0:
        return
    log = docker("logs", "--tail", str(LOG_LINES), found["Id"])[1] if found else ""
    raise FilesError(f"the gateway ended as soon as it was started; the last lines of its log:\n{log or '(nothing)'}")


def stop(folder, name):
    """Stop a gateway that cannot run: its restart policy would go on for ever."""
    compose(folder, folder / COMPOSE_FILE, "stop", "--timeout", "3", name=name)
