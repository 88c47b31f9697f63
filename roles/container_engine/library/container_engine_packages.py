"""Ansible module: install Docker Engine with Compose v2 from the sources that the host has.

It runs apt-get and dnf itself: ansible.builtin.apt wants python3-apt and fetches every package list to get it, which
fails where only the site's mirrors answer; ansible.builtin.dnf does not run on RHEL 8 from ansible-core 2.17 on.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, NamedTuple

from ansible.module_utils import container_engine_apt as engine_apt
from ansible.module_utils import container_engine_dnf as engine_dnf
from ansible.module_utils import onprem_llm_apt as apt
from ansible.module_utils import onprem_llm_dnf as dnf
from ansible.module_utils import onprem_llm_record as record
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.onprem_llm_apt_get import PackageError
from ansible.module_utils.onprem_llm_command import numbers, use_proxy
from ansible.module_utils.onprem_llm_package_source import apt_files

DOCUMENTATION = r"""
module: container_engine_packages
short_description: Install Docker Engine with Compose v2
description:
  - C(docker-ce) where a repository on the host has it, the distribution's packages otherwise.
options:
  min_engine: {description: The oldest Docker Engine that will do., type: str, required: true}
  min_compose: {description: The oldest Compose that will do., type: str, required: true}
  mirrors: {description: Mirrors by name; debian debian_security ubuntu docker., type: dict, default: {}}
  fingerprints: {description: The keys that docker's mirror may be signed with., type: list, elements: str, default: []}
  source: {description: The source of apt or dnf that alone is asked, type: path}
  extra: {description: Packages to install in the same go, type: list, elements: str, default: []}
  engine: {description: The engine is wanted, not O(extra) alone., type: bool, default: true}
  proxy: {description: The proxy for fetching packages as http https no_proxy., type: dict}
author: [onprem-llm]
"""

OPTIONS: dict[str, Any] = {
    "min_engine": {"type": "str", "required": True},
    "min_compose": {"type": "str", "required": True},
    "mirrors": {"type": "dict", "default": {}},
    "fingerprints": {"type": "list", "elements": "str", "default": [], "no_log": False},
    "source": {"type": "path"},
    "extra": {"type": "list", "elements": "str", "default": []},
    "engine": {"type": "bool", "default": True},
    # A proxy's address may hold a password.
    "proxy": {"type": "dict", "no_log": True},
}


class System(NamedTuple):
    """What /etc/os-release says."""

    os_id: str
    codename: str


def system() -> System:
    """Read /etc/os-release, which host_preflight has checked already."""
    entries: dict[str, str] = {}
    for line in Path("/etc/os-release").read_text(encoding="utf-8").splitlines():
        key, _, value = line.strip().partition("=")
        entries[key] = value.strip("\"'")
    return System(entries.get("ID", ""), entries.get("VERSION_CODENAME", ""))


def by_apt(options: dict[str, Any], check_mode: bool) -> list[str]:
    """Return what was (or would be) installed. Package lists are fetched only where something is to be installed."""
    with apt.only(options["source"]):
        return _by_apt(options, check_mode)


def _by_apt(options: dict[str, Any], check_mode: bool) -> list[str]:
    here = system()
    known = ("debian", "debian_security", "ubuntu", "docker")  # a mirror of something else brings no engine
    mirrors = {} if options["source"] else {name: one for name, one in options["mirrors"].items() if name in known}
    complaints = ""
    if not check_mode:
        if mirrors:
            paths = [str(path) for path in (engine_apt.DOCKER_KEY, engine_apt.DOCKER_KEY.parent)]
            record.note_absent([*apt_files(engine_apt.SOURCES), *paths], check_mode)
            engine_apt.write_sources(mirrors, here.os_id, here.codename, options["fingerprints"])
        complaints = apt.refresh([engine_apt.SOURCES] if mirrors else [])
    try:
        wanted = apt.missing(_wanted_by_apt(options))
    except PackageError as problem:
        if check_mode:
            return ["a container engine, if the package lists have one (they are not fetched in check mode)"]
        raise PackageError(f"{problem}\n{complaints}".strip()) from problem
    if wanted and not check_mode:
        record.begin_packages(apt.installed())
        apt.install(wanted)
        record.end_packages(apt.installed())
    return wanted


def _wanted_by_apt(options: dict[str, Any]) -> list[str]:
    if not options["engine"]:
        return apt.offered(options["extra"])
    minimum = numbers(options["min_engine"]), numbers(options["min_compose"])
    return engine_apt.packages(shutil.which("dockerd") is not None, *minimum, options["extra"])


def by_dnf(options: dict[str, Any], check_mode: bool) -> list[str]:
    """Return what was (or would be) installed."""
    with dnf.only(options["source"]):
        return _by_dnf(options, check_mode)


def _by_dnf(options: dict[str, Any], check_mode: bool) -> list[str]:
    if not check_mode and not options["source"]:
        if options["mirrors"]:
            record.note_absent([str(engine_dnf.REPOSITORY), str(engine_dnf.KEY)], check_mode)
        engine_dnf.write_repository(options["mirrors"], system().os_id, options["fingerprints"])
    extra = dnf.offered(dnf.missing(options["extra"]))
    wanted = dnf.missing(engine_dnf.packages(extra)) if options["engine"] else extra
    if wanted and not check_mode:
        record.begin_packages(dnf.installed())
        dnf.install(wanted)
        record.end_packages(dnf.installed())
    return wanted


def main() -> None:
    """Choose by what the host has: apt-get or dnf."""
    module = AnsibleModule(argument_spec=OPTIONS, supports_check_mode=True)
    use_proxy(module.params["proxy"] or {})
    install = by_apt if shutil.which("apt-get") else by_dnf
    try:
        installed = install(module.params, module.check_mode)
    except (PackageError, OSError, ValueError) as problem:
        module.fail_json(msg=f"packages: {problem}")
        return
    module.exit_json(changed=bool(installed), installed=installed)


if __name__ == "__main__":
    main()
