# SPDX-License-Identifier: Apache-2.0
"""The docker engine's API on its socket: a `docker` command a question would cost a process each."""

from __future__ import annotations

import contextlib
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
ERRORS = (OSError, ValueError)


def ask(path):
    """GET `path` of the engine's API and return the decoded answer. Raises one of ERRORS."""
    status, body = _got(path)
    if status != 200:
        said = body[:200].decode("utf-8", "replace")
        kind = FileNotFoundError if status == NOT_THERE else OSError
        raise kind(f"the docker engine answered {status} to {path}: {said}")
    return json.loads(body.decode("utf-8"))


def _got(path):
    """Return status and body. HTTP/1.0, whose answers end with the connection: http.client costs 50 ms to import."""
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as connection:
        connection.settimeout(TIME_LIMIT)
        connection.connect(SOCKET)
        connection.sendall(f"GET {path} HTTP/1.0\r\nHost: docker\r\n\r\n".encode("ascii"))
        parts = iter(lambda: connection.recv(1 << 16), b"")
        head, blank, body = b"".join(parts).partition(b"\r\n\r\n")
    words = head.split(b" ", 2)
    if not blank or len(words) < 3 or not words[1].isdigit():
        raise OSError(f"the docker engine's answer to {path} is none of HTTP: {head[:100]!r}")
    return int(words[1]), body


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
