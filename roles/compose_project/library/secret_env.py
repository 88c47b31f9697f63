#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Compose a project's secrets/env from key files on this host and values of the user."""

from __future__ import annotations

import hashlib
import re
import shlex
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.onprem_llm_write import put

DOCUMENTATION = r"""
module: secret_env
short_description: Write the secret environment of a Compose project
description:
  - Writes C(secrets/env) (0600, root) below O(path), a file that a POSIX shell reads with C(. file), from the keys in
    O(keys_dir) and from O(values); and C(.env) with C(ONPREM_LLM_SECRETS), a digest of it. Compose puts the digest into
    a label, so that a changed secret starts the container anew.
options:
  path:
    description: Folder of the project on the host.
    type: path
    required: true
  keys_dir:
    description: Folder of the host's keys.
    type: path
    required: true
  entries:
    description: Variables made of keys.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the variable.
        type: str
        required: true
      keys:
        description: Names of the keys, in order.
        type: list
        elements: str
        required: true
      separator:
        description: Text between two keys.
        type: str
        default: ";"
  names:
    description:
      - Variables whose value the user gives in O(values). One that is not given keeps the value it has on the host.
    type: list
    elements: str
    default: []
  values:
    description: Values of the user, by name of the variable.
    type: dict
    default: {}
author: the onprem-llm authors
"""

EXAMPLES = r"""
- name: Write the engine's secrets
  secret_env:
    path: /srv/onprem-llm/tiny-0
    keys_dir: /srv/onprem-llm/secrets
    entries:
      - name: VLLM_API_KEY
        keys: [tiny]
"""

RETURN = r"""
digest:
  description: First 16 hexadecimal digits of the file's sha256.
  type: str
  returned: always
"""

NAME = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*$")
ARGUMENTS = {
    "path": {"type": "path", "required": True},
    "keys_dir": {"type": "path", "required": True, "no_log": False},
    "entries": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "name": {"type": "str", "required": True},
            "keys": {"type": "list", "elements": "str", "required": True, "no_log": False},
            "separator": {"type": "str", "default": ";"},
        },
    },
    "names": {"type": "list", "elements": "str", "default": []},
    "values": {"type": "dict", "default": {}, "no_log": True},
}


class SecretError(Exception):
    """What is missing or wrong, without the value; for a person."""


def quoted(value):
    """Return the value between single quotes, as every POSIX shell reads it."""
    return "'" + value.replace("'", "'\\''") + "'"


def content(pairs):
    """Return the file's text for {name: value}."""
    for name, value in pairs.items():
        if not NAME.fullmatch(name):
            raise SecretError(f"{name!r} cannot be the name of an environment variable")
        if "\0" in value:
            raise SecretError(f"the value of {name} holds a NUL character, which no environment can carry")
    return "".join(f"{name}={quoted(value)}\n" for name, value in sorted(pairs.items()))


def present(path):
    """Return the {name: value} that secrets/env holds now."""
    try:
        words = shlex.split(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {name: value for name, _, value in (word.partition("=") for word in words)}


def key(keys_dir, name):
    """Return a key of this host."""
    path = Path(keys_dir, name)
    try:
        value = path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise SecretError(f"the key {name} cannot be read from {path}: {error.strerror}") from None
    if not value:
        raise SecretError(f"the key file {path} is empty; remove it and deploy again")
    return value


def compose(params):
    """Return {name: value} of everything the project wants."""
    pairs = {}
    for entry in params["entries"]:
        pairs[entry["name"]] = entry["separator"].join(key(params["keys_dir"], name) for name in entry["keys"])
    before = present(Path(params["path"], "secrets", "env"))
    for name in params["names"]:
        value = params["values"].get(name, before.get(name))
        if value is None:
            raise SecretError(f"no value was given for the secret {name}, and the host has none from before")
        pairs[name] = str(value)
    return pairs


def update(path, text, mode, check_mode):
    """Write a file with its mode from the start; return whether it differed."""
    try:
        if path.read_bytes() == text.encode() and path.stat().st_mode & 0o777 == mode:
            return False
    except OSError:
        pass
    if not check_mode:
        put(path, text, mode)
    return True


def run(params, check_mode):
    """Return (changed, digest)."""
    folder = Path(params["path"])
    secrets = folder / "secrets"
    text = content(compose(params))
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    if not check_mode:
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        secrets.mkdir(mode=0o700, exist_ok=True)
        secrets.chmod(0o700)
    changed = update(secrets / "env", text, 0o600, check_mode)
    changed |= update(folder / ".env", f"ONPREM_LLM_SECRETS={digest}\n", 0o644, check_mode)
    return changed, digest


def main():
    """Run as an Ansible module."""
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    try:
        changed, digest = run(module.params, module.check_mode)
    except SecretError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"cannot write the secrets of {module.params['path']}: {error}")
    module.exit_json(changed=changed, digest=digest)


if __name__ == "__main__":
    main()
