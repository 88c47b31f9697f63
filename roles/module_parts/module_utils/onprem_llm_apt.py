# SPDX-License-Identifier: Apache-2.0
"""Debian and Ubuntu: what apt has and has installed, from which sources, and installing it."""

from __future__ import annotations

import contextlib
import re
import tempfile
from pathlib import Path
from typing import Iterator, NamedTuple, Sequence

from ansible.module_utils.onprem_llm_apt_get import apt_get, complaints, scope
from ansible.module_utils.onprem_llm_command import run

UNFINISHED = ("half-installed", "unpacked", "half-configured")


class Policy(NamedTuple):
    """What apt knows about a package: the installed version and the one it would install, empty when there is none."""

    installed: str
    candidate: str


@contextlib.contextmanager
def only(source: str | None) -> Iterator[None]:
    """Have every command below ask this source alone, where there is one: the host's others may be out of reach.

    With package lists of its own, made anew each time: the host's stay as they are, and none of a mirror's offers a
    version that cannot be fetched.
    """
    if not source:
        yield
        return
    with tempfile.TemporaryDirectory(prefix="onprem-llm-apt-") as lists:
        # As root: what a bundle brought need not lie where apt's own user may look.
        options = {
            "Dir::Etc::sourcelist": source,
            "Dir::Etc::sourceparts": "-",
            "Dir::State::lists": lists,
            "Dir::Cache::pkgcache": "",
            "Dir::Cache::srcpkgcache": "",
            "APT::Sandbox::User": "root",
        }
        scope[:] = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        try:
            yield
        finally:
            scope.clear()


def refresh(files: Sequence[Path] = ()) -> str:
    """Fetch the package lists: of these source files alone where there are some, since others may be out of reach.

    Return apt's warnings: a source that does not answer matters only when a package is then missing.
    """
    scopes = [
        ["-o", f"Dir::Etc::sourcelist={path}", "-o", "Dir::Etc::sourceparts=-", "-o", "APT::Get::List-Cleanup=0"]
        for path in files
    ] or [[]]
    texts = [apt_get(["update", *one], "the package lists could not be fetched") for one in scopes]
    return "\n".join(text for text in map(complaints, texts) if text)


def missing(names: list[str]) -> list[str]:
    """Return those that are not installed, or not to the end: installing those again configures them."""
    known, cut_off = policies(names), unfinished(names)
    return [name for name in names if not known[name].installed or name in cut_off]


def unfinished(names: list[str]) -> list[str]:
    """Return those that dpkg began to install and did not finish: a script of theirs failed, say."""
    text = run(["dpkg-query", "--show", "--showformat", "${Package} ${db:Status-Status}\\n", *names], 60)[1]
    states = dict(line.split() for line in text.splitlines() if len(line.split()) == 2)
    return [name for name in names if states.get(name) in UNFINISHED]


def offered(names: list[str]) -> list[str]:
    """Return those that a source of the host has."""
    known = policies(names)
    return [name for name in names if known[name].candidate]


def installed() -> list[str]:
    """Return every package that is installed, as dpkg names it."""
    text = run(["dpkg-query", "--show", "--showformat", "${db:Status-Abbrev} ${binary:Package}\\n"], 60)[1]
    return [line.split()[1] for line in text.splitlines() if line.startswith("ii ")]


def install(names: list[str], *more: str) -> None:
    """Install without a question, without recommended packages, without touching a changed configuration file."""
    options = ["--yes", "--no-install-recommends", "-o", "Dpkg::Options::=--force-confold", *more]
    apt_get(["install", *options, *names], f"{', '.join(names)} could not be installed")


def policies(names: list[str]) -> dict[str, Policy]:
    """Return apt's policy of every name; names that apt does not know have empty versions."""
    return parse_policies(run(["env", "LC_ALL=C", "apt-cache", *scope, "policy", *names], 60)[1], names)


def parse_policies(text: str, names: list[str]) -> dict[str, Policy]:
    """Read what `apt-cache policy` printed for names."""
    known = {name: Policy("", "") for name in names}
    for block in re.split(r"\n(?=\S)", text):
        lines = block.splitlines()
        if lines and lines[0].rstrip(":") in known:
            known[lines[0].rstrip(":")] = Policy(_field(lines, "Installed"), _field(lines, "Candidate"))
    return known


def paragraph(address: str, suites: str, components: str, keyring: str) -> str:
    """Return a source in deb822; the keyring is a file, or the text of a key."""
    return f"Types: deb\nURIs: {address}\nSuites: {suites}\nComponents: {components}\nSigned-By: {keyring}"


def _field(lines: list[str], name: str) -> str:
    for line in lines:
        key, _, value = line.strip().partition(": ")
        if key == name:
            return "" if value == "(none)" else value
    return ""
