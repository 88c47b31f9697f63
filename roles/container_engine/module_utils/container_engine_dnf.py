"""The RHEL family: docker-ce and its plugins, by dnf. podman, which is at hand there, is not Docker Engine."""

from __future__ import annotations

from pathlib import Path
from typing import Collection

from ansible.module_utils.container_engine_apt import DOCKER_CE, docker_key
from ansible.module_utils.onprem_llm_apt_get import PackageError
from ansible.module_utils.onprem_llm_command import run
from ansible.module_utils.onprem_llm_dnf import scope
from ansible.module_utils.onprem_llm_package_key import present
from ansible.module_utils.onprem_llm_package_source import write_dnf

REPOSITORY = Path("/etc/yum.repos.d/onprem-llm-docker-ce.repo")
KEY = Path("/etc/pki/rpm-gpg/RPM-GPG-KEY-onprem-llm-docker-ce")


def packages(extra: list[str]) -> list[str]:
    """Return the packages that are wanted. PackageError when no repository has docker-ce."""
    asks = ["dnf", "--quiet", *scope, "list", "docker-ce"]
    if run(["rpm", "--query", "docker-ce"])[0] != 0 and run(asks, 300)[0] != 0:
        raise PackageError(
            "found no docker-ce in the host's package repositories, expected one. Configure docker-ce's repository on "
            "the host, or name a mirror of it: onprem_llm_site.package_mirrors.docker ("
            "container_engine_package_mirrors without the onprem-llm command)."
        )
    return DOCKER_CE + extra


def write_repository(mirrors: dict[str, str], os_id: str, known: Collection[str]) -> bool:
    """Write docker-ce's repository where the site names a mirror; say whether the file changed. PackageError.

    `known`: fingerprints of docker's keys.
    """
    if "docker" not in mirrors:
        return False
    present(docker_key(_tree(mirrors["docker"], os_id), KEY, known))
    return write_dnf(REPOSITORY, repository_text(mirrors["docker"], os_id))


def repository_text(mirror: str, os_id: str) -> str:
    """Return a .repo file. Its key is a file that was checked: dnf believes whatever an address gives it."""
    return (
        "# Written by onprem-llm from onprem_llm_site.package_mirrors\n"
        "[onprem-llm-docker-ce]\nname=Docker CE\n"
        f"baseurl={_tree(mirror, os_id)}/$releasever/$basearch/stable\nenabled=1\ngpgcheck=1\ngpgkey=file://{KEY}\n"
    )


def _tree(mirror: str, os_id: str) -> str:
    """Return the folder of a system: docker keeps one for RHEL and one, named centos, for its rebuilds."""
    return f"{mirror}/linux/{'rhel' if os_id == 'rhel' else 'centos'}"
