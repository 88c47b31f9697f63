"""What the docker engine says, asked through its socket."""

from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path
from urllib.parse import quote

from ansible.module_utils.onprem_llm_cdi import missing
from ansible.module_utils.onprem_llm_engine_api import ERRORS, SOCKET, TIME_LIMIT, ask, cdi_devices

PLUGIN_FOLDERS = (
    "/usr/local/lib/docker/cli-plugins",
    "/usr/local/libexec/docker/cli-plugins",
    "/usr/lib/docker/cli-plugins",
    "/usr/libexec/docker/cli-plugins",
)


def compose_version():
    """Return the version of the Compose plugin, or None where there is none."""
    for folder in PLUGIN_FOLDERS:
        plugin = f"{folder}/docker-compose"
        if os.access(plugin, os.X_OK):
            with contextlib.suppress(OSError, subprocess.SubprocessError):
                said = subprocess.check_output([plugin, "version", "--short"], timeout=TIME_LIMIT)
                return said.decode("utf-8", "replace").strip().lstrip("v") or None
    return None


def engine():
    """Return the `engine` part of the probe."""
    found = {
        "running": False, "version": None, "compose": None, "cdi": False, "cdi_devices": [],
        "cdi_missing": [],
        "runtimes": [], "root": None, "error": None,
    }  # fmt: skip
    if not Path(SOCKET).exists():
        found["error"] = f"no docker engine: {SOCKET} does not exist"
        return found
    try:
        info = ask("/info")
    except ERRORS as error:
        found["error"] = f"the docker engine does not answer on {SOCKET}: {error}"
        return found
    folders = info.get("CDISpecDirs") or []
    devices = cdi_devices(folders)
    found.update(
        running=True,
        version=info.get("ServerVersion"),
        cdi=bool(devices),
        cdi_devices=devices,
        cdi_missing=missing(folders),
        runtimes=sorted(info.get("Runtimes") or {}),
        root=info.get("DockerRootDir"),
    )
    return found


def images():
    """Return the images on the host, those without a name too: they are found by id."""
    found = []
    # all: an image that lost its tag to one made from it counts as intermediate, and is still what we started.
    for image in ask("/images/json?all=true"):
        tags = [tag for tag in image.get("RepoTags") or [] if tag != "<none>:<none>"]
        digests = [digest for digest in image.get("RepoDigests") or [] if not digest.startswith("<none>@")]
        found.append({"id": image["Id"], "tags": sorted(tags), "digests": sorted(digests)})
    return sorted(found, key=lambda one: one["id"])


def _container(listed):
    """Return one container; `inspect` knows what the list does not: health, exit code, restarts."""
    detail = ask(f"/containers/{quote(listed['Id'])}/json")
    state = detail["State"]
    labels = detail["Config"].get("Labels") or {}
    return {
        "service": labels.get("com.docker.compose.service"),
        "id": detail["Id"],
        "name": detail["Name"].lstrip("/"),
        "image": detail["Image"],
        "state": state["Status"],
        "health": (state.get("Health") or {}).get("Status"),
        "exit_code": state.get("ExitCode"),
        "started_at": state.get("StartedAt"),
        "restarts": detail.get("RestartCount", 0),
        "labels": {key: value for key, value in labels.items() if key.startswith("onprem-llm.")},
    }


def _published(listed):
    """Yield the (address, port) pairs that a container publishes on the host."""
    for port in listed.get("Ports") or []:
        if port.get("PublicPort") and port.get("Type") == "tcp":
            yield port.get("IP"), port["PublicPort"]


def containers(data_root):
    """Return ({project: [container, …]}, {(address, port): container name}).

    A project is ours where its folder is right below `data_root`; ports are those of every container on the host.
    """
    projects = {}
    ports = {}
    for listed in ask("/containers/json?all=1"):
        name = listed["Names"][0].lstrip("/") if listed.get("Names") else listed["Id"][:12]
        ports.update((pair, name) for pair in _published(listed))
        labels = listed.get("Labels") or {}
        if Path(labels.get("com.docker.compose.project.working_dir", "")).parent == Path(data_root):
            with contextlib.suppress(FileNotFoundError):  # it went between the list and this question
                projects.setdefault(labels["com.docker.compose.project"], []).append(_container(listed))
    for found in projects.values():
        found.sort(key=lambda one: one["name"])
    return projects, ports
