# SPDX-License-Identifier: Apache-2.0
"""Running the docker command."""

from __future__ import annotations

import subprocess


def docker(*arguments, limit=60):
    """Run docker, `limit` seconds at most, and return (exit code, output with its errors)."""
    done = subprocess.run(
        ["docker", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=limit,
        check=False,
    )
    return done.returncode, done.stdout.decode("utf-8", "replace").strip()
