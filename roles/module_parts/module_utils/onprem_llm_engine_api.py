# SPDX-License-Identifier: Apache-2.0
"""The docker engine's API on its socket: a `docker` command a question would cost a process each."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import socket
from pathlib import Path

SOCKET = "/var/run/docker.sock"
TIME_LIMIT = 10.0  # seconds a question
NOT_THERE = 404
CDI_SUFFIXES = (".yaml", ".yml", ".json")
CDI_DEVICE = re.compile(r"^[\s-]*\"?name\"?:\s*[\"']?([^\"',\s]+)", re.MULTILINE)
# What can go wrong when the engine is asked.
ERRORS = (OSError, ValueError, http.client.HTTPException)


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over the engine's socket."""

    def connect(self):
        """Open the socket; the host name is a formality."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(TIME_LIMIT)
        self.sock.connect(SOCKET)


def ask(path):
    """GET `path` of the engine's API and return the decoded answer. Raises one of ERRORS."""
    connection = _UnixConnection("docker", timeout=TIME_LIMIT)
    with contextlib.closing(connection):
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
    if answer.status != 200:
        said = body[:200].decode("utf-8", "replace")
        kind = FileNotFoundError if answer.status == NOT_THERE else OSError
        raise kind(f"the docker engine answered {answer.status} to {path}: {said}")
    return json.loads(body.decode("utf-8"))


def cdi_devices(folders):
    """Return the GPUs that CDI offers, as docker takes them: nvidia.com/gpu=0, …=all, …=GPU-…."""
    names = []
    for folder in folders:
        with contextlib.suppress(OSError):
            for path in Path(folder).iterdir():
                text = path.read_text(encoding="utf-8", errors="replace") if path.suffix in CDI_SUFFIXES else ""
                if "nvidia.com/gpu" in text:
                    names += CDI_DEVICE.findall(text)
    return sorted({f"nvidia.com/gpu={name}" for name in names})
