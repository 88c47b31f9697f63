"""Ansible module: note what a host is like before bootstrap changes it, for `uninstall`."""

from __future__ import annotations

import grp
from pathlib import Path
from typing import Any

from ansible.module_utils import onprem_llm_record as record
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.onprem_llm_command import run

DOCUMENTATION = r"""
module: container_engine_note
short_description: Note what a host is like before bootstrap changes it
description:
  - Adds to C(/var/lib/onprem-llm/bootstrap.json), and changes nothing that stands there.
options:
  paths: {description: Files and folders that bootstrap may make., type: list, elements: path, default: []}
  services: {description: Units that bootstrap may enable., type: list, elements: str, default: []}
  registries: {description: Registries that bootstrap logs in to., type: list, elements: str, default: []}
author: [onprem-llm]
"""

OPTIONS: dict[str, Any] = {
    "paths": {"type": "list", "elements": "path", "default": []},
    "services": {"type": "list", "elements": "str", "default": []},
    "registries": {"type": "list", "elements": "str", "default": []},
}
GROUPS = ("docker",)  # that docker's packages make and leave behind
FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")


def note_state(services: list[str], registries: list[str], check_mode: bool) -> bool:
    """Note the services, the registries and the kernel's state, once; return whether that was new."""
    noted = record.load()
    known = noted.setdefault("services", {})
    new = [name for name in services if name not in known]
    known.update({name: is_enabled(name) for name in new})
    logins = [name for name in registries if name not in noted.get("registries", [])]
    if logins:
        noted["registries"] = [*noted.get("registries", []), *logins]
    first = "kernel" not in noted
    if first:
        noted["groups"] = sorted(one.gr_name for one in grp.getgrall() if one.gr_name in GROUPS)
        noted["kernel"] = {"ip_forward": FORWARDING.read_text().strip(), "tables": tables()}
    if (new or first or logins) and not check_mode:
        record.save(noted)
    return bool(new or first or logins)


def is_enabled(name: str) -> str:
    """Return systemd's word: enabled, disabled, not-found …"""
    lines = run(["systemctl", "is-enabled", name])[1].splitlines()
    return lines[-1].strip() if lines else "unknown"


def tables() -> list[str]:
    """Return nftables' tables, as `ip nat`; none where there is no nft to make any."""
    code, text = run(["nft", "list", "tables"])
    return sorted(line[len("table ") :] for line in text.splitlines() if line.startswith("table ")) if code == 0 else []


def main() -> None:
    """Note paths, services, kernel."""
    module = AnsibleModule(argument_spec=OPTIONS, supports_check_mode=True)
    try:
        changed = record.note_absent(module.params["paths"], module.check_mode)
        changed = note_state(module.params["services"], module.params["registries"], module.check_mode) or changed
    except (OSError, ValueError) as error:
        module.fail_json(msg=f"cannot note what the host was like: {error}")
        return
    module.exit_json(changed=changed)


if __name__ == "__main__":
    main()
