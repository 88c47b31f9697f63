# SPDX-License-Identifier: Apache-2.0
"""Running a command, and reading a version in what it says."""

from __future__ import annotations

import os
import re
import subprocess
from typing import Any, Mapping, Tuple

# The spelling of types here is that of Python 3.8, the oldest that ansible-core 2.19 runs on.
Version = Tuple[int, ...]


def run(argv: list[str], timeout: float = 30) -> tuple[int, str]:
    """Return the exit code and what was printed on both channels; 127 when it is missing, 124 when it hangs."""
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout,
            check=False,
        )
    except FileNotFoundError:
        return 127, f"{argv[0]}: not found"
    except subprocess.TimeoutExpired:
        return 124, f"{' '.join(argv)}: no end after {timeout:g} s"
    return done.returncode, done.stdout.decode("utf-8", "replace").strip()


def numbers(version: str) -> Version:
    """Return (26, 1, 5) for `Docker version 26.1.5+dfsg1, build a72d7cd`, and () where there is no version."""
    match = re.search(r"\d+(\.\d+)+", version)
    return tuple(int(part) for part in match.group().split(".")) if match else ()


def dotted(version: Version) -> str:
    """Return `26.1.5`, and `none` for ()."""
    return ".".join(str(part) for part in version) or "none"


def use_proxy(proxy: Mapping[str, Any]) -> None:
    """Have apt-get and dnf use the proxy: both read the usual variables, and nothing is left on the host."""
    values = {"http": proxy.get("http"), "https": proxy.get("https"), "no": ",".join(proxy.get("no_proxy") or [])}
    os.environ.update({f"{name}_proxy": value for name, value in values.items() if value})
