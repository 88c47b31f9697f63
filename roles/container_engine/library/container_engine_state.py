"""Ansible module: say which container engine a host has, and whether it will do. It changes nothing."""

from __future__ import annotations

import os
import shutil
from typing import Any

from ansible.module_utils import onprem_llm_apt as apt
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.container_engine_apt import CANDIDATES
from ansible.module_utils.container_engine_run import Finding, docker_info, finding
from ansible.module_utils.onprem_llm_command import Version, dotted, numbers, run

DOCUMENTATION = r"""
module: container_engine_state
short_description: Say which container engine a host has
options:
  min_engine: {description: The oldest Docker Engine that will do., type: str, required: true}
  min_compose: {description: The oldest Compose that will do., type: str, required: true}
  extra: {description: Packages whose commands shall be there too., type: list, elements: str, default: []}
  required: {description: A missing or stopped engine is an error., type: bool, default: false}
author: [onprem-llm]
"""

OPTIONS: dict[str, Any] = {
    "min_engine": {"type": "str", "required": True},
    "min_compose": {"type": "str", "required": True},
    "extra": {"type": "list", "elements": "str", "default": []},
    "required": {"type": "bool", "default": False},
}
# By the command that a package brings, since packages have no state of their own here.
COMMANDS = {"nftables": "nft", "openssl": "openssl", "rsync": "rsync"}
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
OLD_REMEDY = (
    "Bootstrap never replaces an engine that is there, since containers may run on it: "
    "upgrade it with the host's package manager, then run bootstrap again."
)


def main() -> None:
    """Return the engine's and Compose's versions, whether both will do, and the findings."""
    module = AnsibleModule(argument_spec=OPTIONS, supports_check_mode=True)
    min_engine, min_compose = numbers(module.params["min_engine"]), numbers(module.params["min_compose"])
    engine, compose = engine_version(), compose_version()
    findings = [each for each in (_imposter(), _too_old(engine, min_engine), _swarm(docker_info())) if each]
    if module.params["required"]:
        findings += required_findings(engine, compose, min_compose, docker_info())
    errors = [each for each in findings if each["level"] == "error"]
    family = "Debian" if shutil.which("apt-get") else "RedHat"
    # Its files may be there, and the user or the unit that its script makes may not.
    cut_off = apt.unfinished([*CANDIDATES, *module.params["extra"]]) if family == "Debian" else []
    module.exit_json(
        changed=False,
        family=family,
        engine=dotted(engine),
        compose=dotted(compose),
        missing=[name for name in module.params["extra"] if _is_missing(name) or name in cut_off],
        complete=not errors and engine >= min_engine and compose >= min_compose and not {*cut_off} & {*CANDIDATES},
        failure="\n".join(
            f"{each['check']}: found {each['found']}, expected {each['expected']}. {each['remedy']}" for each in errors
        ),
        onprem_llm={"findings": findings},
    )


def _is_missing(package: str) -> bool:
    return package in COMMANDS and shutil.which(COMMANDS[package], path=SYSTEM_PATH) is None


def engine_version() -> Version:
    """Return the version of the dockerd that is installed, running or not."""
    code, text = run(["dockerd", "--version"])
    return numbers(text) if code == 0 else ()


def compose_version() -> Version:
    """Return the version of `docker compose`; the old docker-compose script (version 1) does not count."""
    code, text = run(["docker", "compose", "version", "--short"])
    return numbers(text) if code == 0 else ()


def _imposter() -> Finding | None:
    """Name what answers to `docker` and is something else."""
    path = os.path.realpath(shutil.which("docker") or "")
    expected = "Docker Engine from packages, or no engine yet"
    if "snap" in path:
        remedy = "It keeps its own settings and cannot see /srv: `snap remove docker`, then run bootstrap again."
        return finding("engine", "error", "docker from a snap", expected, remedy)
    if path and "podman" in run(["docker", "--version"])[1].lower():
        return finding(
            "engine", "error", "podman as docker", expected, "Remove podman-docker, then run bootstrap again."
        )
    return None


def _too_old(engine: Version, minimum: Version) -> Finding | None:
    if not engine or engine >= minimum:
        return None
    return finding("engine", "error", f"Docker Engine {dotted(engine)}", f"{dotted(minimum)} or newer", OLD_REMEDY)


def _swarm(info: dict[str, Any]) -> Finding | None:
    state = info.get("Swarm", {}).get("LocalNodeState", "inactive")
    if state == "inactive":
        return None
    remedy = (
        "An engine in a swarm cannot keep its containers over a restart (live-restore): `docker swarm leave` first."
    )
    return finding("swarm", "error", f"a swarm node ({state})", "an engine of its own", remedy)


def required_findings(engine: Version, compose: Version, min_compose: Version, info: dict[str, Any]) -> list[Finding]:
    """Judge the engine as bootstrap leaves it."""
    if not info:
        remedy = "Read `journalctl --unit docker` on the host, mend it, and run bootstrap again."
        return [finding("engine", "error", "no engine that answers", "a running Docker Engine", remedy)]
    if compose < min_compose:
        remedy = "Install the package docker-compose-plugin or docker-compose-v2, then run bootstrap again."
        return [finding("compose", "error", f"Compose {dotted(compose)}", f"{dotted(min_compose)} or newer", remedy)]
    return [
        finding("engine", "ok", f"Docker Engine {dotted(engine)}, Compose {dotted(compose)}", "running"),
        _live_restore(bool(info.get("LiveRestoreEnabled"))),
        finding("logs", "ok", f"log driver {info.get('LoggingDriver')}", "any driver; json-file is rotated"),
        _cdi(bool(info.get("CDISpecDirs"))),
    ]


def _live_restore(enabled: bool) -> Finding:
    if enabled:
        return finding("live_restore", "ok", "on", "on")
    remedy = "Set live-restore to true in /etc/docker/daemon.json, then `systemctl reload docker`."
    return finding("live_restore", "error", "off: an engine that restarts stops every model", "on", remedy)


def _cdi(enabled: bool) -> Finding:
    if enabled:
        return finding("cdi", "ok", "on", "on")
    remedy = "GPUs are given out with gpu_access: gpus then. Docker Engine 25 or newer knows CDI."
    return finding("cdi", "warning", "off", "on", remedy)


if __name__ == "__main__":
    main()
