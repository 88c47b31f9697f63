"""Ansible module: put a registry's credentials into root's docker config.json, beside those that are there."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.onprem_llm_write import put

DOCUMENTATION = r"""
module: container_engine_login
short_description: Put a registry's credentials into docker's config.json
options:
  registry: {description: The registry's address as image names begin with it., type: str, required: true}
  username: {description: The user., type: str, required: true}
  password: {description: The password., type: str, required: true}
  path: {description: The file., type: path, default: /root/.docker/config.json}
author: [onprem-llm]
"""

OPTIONS: dict[str, Any] = {
    "registry": {"type": "str", "required": True},
    "username": {"type": "str", "required": True},
    "password": {"type": "str", "required": True, "no_log": True},
    "path": {"type": "path", "default": "/root/.docker/config.json"},
}


def with_login(config: dict[str, Any], registry: str, username: str, password: str) -> dict[str, Any]:
    """Return the configuration with this registry's credentials; other registries and keys stay."""
    login = base64.b64encode(f"{username}:{password}".encode()).decode()
    return {**config, "auths": {**config.get("auths", {}), registry: {"auth": login}}}


def write_private(path: Path, config: dict[str, Any]) -> None:
    """Write the file in one go, for root alone."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    put(path, json.dumps(config, indent=2) + "\n")


def main() -> None:
    """Merge, and write only what differs; fail where docker would not look into the file."""
    module = AnsibleModule(argument_spec=OPTIONS, supports_check_mode=True)
    path, registry = Path(module.params["path"]), module.params["registry"]
    config: dict[str, Any] = {}
    try:
        if path.exists():
            config = json.loads(path.read_text(encoding="utf-8"))
        helper = config.get("credHelpers", {}).get(registry) or config.get("credsStore")
        wanted = with_login(config, registry, module.params["username"], module.params["password"])
    except (ValueError, AttributeError, TypeError):
        module.fail_json(
            msg=f"{path}: found no JSON object, expected docker's client settings. Mend the file; nothing was written."
        )
        return
    if helper:
        module.fail_json(
            msg=f"{path}: found the credential helper {helper} for {registry}, expected none: docker asks it alone. "
            f"Run `docker login {registry}` as root on the host and leave registry.username out, or remove the helper."
        )
    private = not path.exists() or path.stat().st_mode & 0o077 == 0
    changed = wanted != config or not private
    if changed and not module.check_mode:
        write_private(path, wanted)
    module.exit_json(changed=changed)


if __name__ == "__main__":
    main()
