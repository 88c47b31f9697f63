"""Debian and Ubuntu: which packages make up the engine, and where they come from."""

from __future__ import annotations

from pathlib import Path
from typing import Collection

from ansible.module_utils.onprem_llm_apt import Policy, paragraph, policies
from ansible.module_utils.onprem_llm_apt_get import PackageError, scope
from ansible.module_utils.onprem_llm_command import Version, dotted, numbers
from ansible.module_utils.onprem_llm_package_key import Key, present
from ansible.module_utils.onprem_llm_package_source import write_apt

SOURCES = Path("/etc/apt/sources.list.d/onprem-llm.sources")
DOCKER_KEY = Path("/etc/apt/keyrings/docker.asc")
DOCKER_CE = ["docker-ce", "docker-ce-cli", "containerd.io", "docker-compose-plugin"]
# Compose v2 has another name in every distribution: Ubuntu's, a docker-ce repository's, Debian 13's.
COMPOSE_NAMES = ["docker-compose-v2", "docker-compose-plugin", "docker-compose"]
CANDIDATES = [*DOCKER_CE, *COMPOSE_NAMES, "docker.io", "docker-cli"]


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


def write_sources(mirrors: dict[str, str], os_id: str, codename: str, known: Collection[str]) -> bool:
    """Write the site's mirrors as apt sources beside the host's own; say whether a file changed. PackageError.

    `known`: fingerprints of docker's keys.
    """
    if "docker" in mirrors:
        present(docker_key(f"{mirrors['docker']}/linux/{os_id}", DOCKER_KEY, known))
    return write_apt(SOURCES, sources_text(mirrors, os_id, codename))


def docker_key(tree: str, path: Path, known: Collection[str]) -> Key:
    """Return the key of docker's repository; `tree`: the folder of a system in it."""
    return Key(f"{tree}/gpg", path, "docker's repository", known, "container_engine_fingerprints")


def sources_text(mirrors: dict[str, str], os_id: str, codename: str, more: tuple[str, ...] = ()) -> str:
    """Return a deb822 file with one paragraph a mirror that fits this system; `more`: components beside the usual."""
    keyring = f"/usr/share/keyrings/{os_id}-archive-keyring.gpg"
    components = " ".join(["main", *(["universe"] if os_id == "ubuntu" else []), *more])
    paragraphs = ["# Written by onprem-llm from onprem_llm_site.package_mirrors"]
    if os_id in mirrors:
        suites = f"{codename} {codename}-updates" + (f" {codename}-security" if os_id == "ubuntu" else "")
        paragraphs.append(paragraph(mirrors[os_id], suites, components, keyring))
    if os_id == "debian" and "debian_security" in mirrors:
        paragraphs.append(paragraph(mirrors["debian_security"], f"{codename}-security", components, keyring))
    if "docker" in mirrors:
        paragraphs.append(paragraph(f"{mirrors['docker']}/linux/{os_id}", codename, "stable", str(DOCKER_KEY)))
    return "\n\n".join(paragraphs) + "\n"


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
