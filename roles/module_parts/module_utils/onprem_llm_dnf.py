# SPDX-License-Identifier: Apache-2.0
"""The RHEL family: what is installed, and installing it."""

from __future__ import annotations

from ansible.module_utils.onprem_llm_apt_get import PackageError
from ansible.module_utils.onprem_llm_command import run


def missing(names: list[str]) -> list[str]:
    """Return those that are not installed."""
    return [name for name in names if run(["rpm", "--query", name])[0] != 0]


def installed() -> list[str]:
    """Return every package that is installed."""
    return run(["rpm", "--query", "--all", "--queryformat", "%{NAME}.%{ARCH}\\n"], 60)[1].split()


def install(names: list[str], *more: str) -> None:
    """Install without a question, with more options of dnf's. It waits for its own lock."""
    code, text = run(["dnf", "--assumeyes", "--quiet", *more, "install", *names], 1800)
    if code != 0:
        raise PackageError(
            f"{', '.join(names)} could not be installed: dnf says\n{text[-800:]}\nCorrect the host's repositories."
        )
