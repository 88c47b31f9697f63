# SPDX-License-Identifier: Apache-2.0
"""The RHEL family: what is installed, and installing it."""

from __future__ import annotations

import contextlib
from typing import Iterator

from ansible.module_utils.onprem_llm_apt_get import PackageError
from ansible.module_utils.onprem_llm_command import run

# The repository that a bundle brought, as the role package_repository calls it.
BROUGHT = "onprem-llm-packages"
# dnf's options for one repository alone; empty where all that the host has are asked.
scope: list[str] = []


@contextlib.contextmanager
def only(source: str | None) -> Iterator[None]:
    """Have every command ask a bundle's repository alone, where there is one: the host's may be out of reach."""
    # Its key, which bootstrap sent, is taken without a question, also by commands that only look.
    scope[:] = ["--assumeyes", "--disablerepo=*", f"--enablerepo={BROUGHT}"] if source else []
    try:
        yield
    finally:
        scope.clear()


def missing(names: list[str]) -> list[str]:
    """Return those that are not installed."""
    return [name for name in names if run(["rpm", "--query", name])[0] != 0]


def offered(names: list[str]) -> list[str]:
    """Return those that a repository has; the others are left out, as apt's are.

    Where dnf fails otherwise, nothing is left out: installing says why.
    """
    asked = {name: run(["dnf", "--quiet", *scope, "list", "--available", name], 300) for name in names}
    return [name for name, (code, text) in asked.items() if code == 0 or "no matching packages" not in text.lower()]


def installed() -> list[str]:
    """Return every package that is installed."""
    return run(["rpm", "--query", "--all", "--queryformat", "%{NAME}.%{ARCH}\\n"], 60)[1].split()


def install(names: list[str], *more: str) -> None:
    """Install without a question, with more options of dnf's. It waits for its own lock."""
    code, text = run(["dnf", "--assumeyes", "--quiet", *scope, *more, "install", *names], 1800)
    if code != 0:
        raise PackageError(
            f"{', '.join(names)} could not be installed: dnf says\n{text[-800:]}\nCorrect the host's repositories."
        )
