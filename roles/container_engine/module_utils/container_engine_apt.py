"""Debian and Ubuntu: which packages make up the engine, where they come from, how they are installed."""

from __future__ import annotations

import contextlib
import re
import tempfile
from pathlib import Path
from typing import Iterator, NamedTuple

from ansible.module_utils.container_engine_apt_get import PackageError, apt_get, complaints, scope
from ansible.module_utils.container_engine_run import Version, dotted, numbers, run

SOURCES = Path("/etc/apt/sources.list.d/onprem-llm.sources")
DOCKER_KEY = Path("/etc/apt/keyrings/docker.asc")
DOCKER_CE = ["docker-ce", "docker-ce-cli", "containerd.io", "docker-compose-plugin"]
# Compose v2 has another name in every distribution: Ubuntu's, a docker-ce repository's, Debian 13's.
COMPOSE_NAMES = ["docker-compose-v2", "docker-compose-plugin", "docker-compose"]
CANDIDATES = [*DOCKER_CE, *COMPOSE_NAMES, "docker.io", "docker-cli"]
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


def refresh(mirrors: dict[str, str]) -> str:
    """Fetch the package lists: of the site's mirrors alone where there are some, since others may be out of reach.

    Return apt's warnings: a source that does not answer matters only when a package is then missing.
    """
    only_ours = [
        "-o",
        f"Dir::Etc::sourcelist={SOURCES}",
        "-o",
        "Dir::Etc::sourceparts=-",
        "-o",
        "APT::Get::List-Cleanup=0",
    ]
    text = apt_get(["update", *(only_ours if mirrors else [])], "the package lists could not be fetched")
    return complaints(text)


def packages(engine_installed: bool, min_engine: Version, min_compose: Version, extra: list[str]) -> list[str]:
    """Return the packages that are wanted. PackageError when no repository has an engine with Compose v2."""
    return chosen(policies([*CANDIDATES, *extra]), engine_installed, min_engine, min_compose, extra)


def chosen(
    known: dict[str, Policy], engine_installed: bool, min_engine: Version, min_compose: Version, extra: list[str]
) -> list[str]:
    """Choose among what apt knows; `known` has every candidate and every extra package."""
    others = [name for name in extra if known[name].candidate]
    if known["docker-ce"].installed or (known["docker-ce"].candidate and not known["docker.io"].installed):
        return DOCKER_CE + others
    compose = _compose_package(known, min_compose)
    has_engine = engine_installed or numbers(known["docker.io"].candidate) >= min_engine
    if not has_engine or not compose:
        raise PackageError(_nothing_fits(known, min_engine, min_compose))
    if engine_installed and not known["docker.io"].installed:
        return [compose, *others]
    client = ["docker-cli"] if known["docker-cli"].candidate else []
    return ["docker.io", compose, *client, *others]


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


def install(names: list[str]) -> None:
    """Install without a question, without recommended packages, without touching a changed configuration file."""
    options = ["--yes", "--no-install-recommends", "-o", "Dpkg::Options::=--force-confold"]
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


def write_sources(mirrors: dict[str, str], os_id: str, codename: str) -> bool:
    """Write the site's mirrors as apt sources beside the host's own; say whether the file changed."""
    text = sources_text(mirrors, os_id, codename)
    if SOURCES.exists() and SOURCES.read_text(encoding="utf-8") == text:
        return False
    if "docker" in mirrors:
        _docker_key(mirrors["docker"], os_id)
    SOURCES.write_text(text, encoding="utf-8")
    return True


def sources_text(mirrors: dict[str, str], os_id: str, codename: str) -> str:
    """Return a deb822 file with one paragraph a mirror that fits this system."""
    keyring = f"/usr/share/keyrings/{os_id}-archive-keyring.gpg"
    components = "main universe" if os_id == "ubuntu" else "main"
    paragraphs = ["# Written by onprem-llm from onprem_llm_site.package_mirrors"]
    if os_id in mirrors:
        suites = f"{codename} {codename}-updates" + (f" {codename}-security" if os_id == "ubuntu" else "")
        paragraphs.append(_paragraph(mirrors[os_id], suites, components, keyring))
    if os_id == "debian" and "debian_security" in mirrors:
        paragraphs.append(_paragraph(mirrors["debian_security"], f"{codename}-security", components, keyring))
    if "docker" in mirrors:
        paragraphs.append(_paragraph(f"{mirrors['docker']}/linux/{os_id}", codename, "stable", str(DOCKER_KEY)))
    return "\n\n".join(paragraphs) + "\n"


def _paragraph(address: str, suites: str, components: str, keyring: str) -> str:
    return f"Types: deb\nURIs: {address}\nSuites: {suites}\nComponents: {components}\nSigned-By: {keyring}"


def _docker_key(mirror: str, os_id: str) -> None:
    """Fetch the repository's key, over TLS alone: it decides whose packages run as root."""
    if DOCKER_KEY.exists():
        return
    address = f"{mirror}/linux/{os_id}/gpg"
    remedy = f"Put docker's repository key at {DOCKER_KEY} on the host (mode 0644), then run bootstrap again."
    if not address.startswith("https://"):
        raise PackageError(
            f"found no {DOCKER_KEY}, and {address} is not https, expected a key from a safe place. {remedy}"
        )
    DOCKER_KEY.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    # apt's own downloader knows apt's proxies.
    code, text = run(["/usr/lib/apt/apt-helper", "download-file", address, str(DOCKER_KEY)], 60)
    if code != 0:
        raise PackageError(f"found no key at {address}, expected docker's repository key. {remedy}\n{complaints(text)}")


def _compose_package(known: dict[str, Policy], minimum: Version) -> str | None:
    for name in COMPOSE_NAMES:
        if numbers(known[name].candidate) >= minimum:
            return name
    return None


def _nothing_fits(known: dict[str, Policy], min_engine: Version, min_compose: Version) -> str:
    remedy = (
        "Make a bundle for this release and load it."
        if scope
        else "Configure docker-ce's repository on the host, or name a mirror of it: "
        "onprem_llm_site.package_mirrors.docker (container_engine_package_mirrors without the onprem-llm command)."
    )
    offered = [f"{name} {known[name].candidate}" for name in ("docker.io", *COMPOSE_NAMES) if known[name].candidate]
    return (
        f"found {', '.join(offered) or 'neither docker-ce nor docker.io'} in the host's package sources, expected "
        f"docker-ce, or docker.io {dotted(min_engine)} and Compose {dotted(min_compose)} or newer. {remedy}"
    )


def _field(lines: list[str], name: str) -> str:
    for line in lines:
        key, _, value = line.strip().partition(": ")
        if key == name:
            return "" if value == "(none)" else value
    return ""
