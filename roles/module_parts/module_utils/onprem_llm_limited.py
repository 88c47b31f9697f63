# SPDX-License-Identifier: Apache-2.0
"""Running a command that may never answer, as tools of a sick driver do."""

from __future__ import annotations

import os
import signal
import subprocess


def call(argv, limit):
    """Run `argv`, `limit` seconds at most; return (exit code, output with its errors), (None, "") where it hangs.

    What cannot be killed (it waits in the kernel) is left behind, not waited for. OSError where it cannot be started.
    """
    process = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        env=dict(os.environ, LC_ALL="C"),
    )
    try:
        output, _ = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return None, ""
    return process.returncode, output.decode("utf-8", "replace")
