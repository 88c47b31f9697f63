#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Make keys once, or write the keys that another host has made."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import tempfile
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: engine_key
short_description: Keep the keys of engines on a host
description:
  - Without O(keys) makes those of O(names) that are absent, 32 random bytes each, and never changes one that is there.
  - With O(keys) writes exactly these.
  - Files are 0600 and the folder 0700, both root's.
options:
  path:
    description: Folder of the keys.
    type: path
    required: true
  names:
    description: Names of the keys.
    type: list
    elements: str
    required: true
  keys:
    description: Keys by name.
    type: dict
  state:
    description: Whether they shall be there.
    type: str
    choices: [present, absent]
    default: present
author: the onprem-llm authors
"""

EXAMPLES = r"""
- name: Make the keys
  engine_key:
    path: /srv/onprem-llm/secrets
    names: [tiny]
"""

RETURN = r"""#"""

NAME = re.compile(r"^[a-z0-9][a-z0-9._-]*$")
KEY_BYTES = 32


class KeyFileError(Exception):
    """What is wrong with a key file; for a person, without the key."""


def write(path, value, replace):
    """Write a file that is never seen half-written or readable by others; return False if one is there already."""
    descriptor, temporary = tempfile.mkstemp(prefix=".new-", dir=str(path.parent))  # 0600 from the start
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as handle:
            handle.write(value + "\n")
            handle.flush()
            os.fsync(handle.fileno())
        if replace:
            Path(temporary).replace(path)
            return True
        try:
            os.link(temporary, str(path))  # fails where another run was faster: its key stays
        except FileExistsError:
            return False
        return True
    finally:
        with contextlib.suppress(FileNotFoundError):
            Path(temporary).unlink()


def present(folder, name, value, check_mode):
    """Make or write one key; return whether that changed anything."""
    path = folder / name
    found = path.read_text(encoding="utf-8").strip() if path.exists() else None
    if found == "":
        raise KeyFileError(f"the key file {path} is empty; remove it, and a new key is made")
    private = found is not None and path.stat().st_mode & 0o777 == 0o600
    if found is not None and value in (None, found) and private:
        return False
    if check_mode:
        return True
    if found is not None and value in (None, found):
        path.chmod(0o600)
        return True
    if value is None:
        return write(path, secrets.token_urlsafe(KEY_BYTES), replace=False)
    return write(path, value, replace=True)


def absent(folder, name, check_mode):
    """Remove one key; return whether it was there."""
    path = folder / name
    if not path.exists():
        return False
    if not check_mode:
        path.unlink()
    return True


def run(params, check_mode):
    """Return whether anything changed."""
    folder, given = Path(params["path"]), params["keys"]
    for name in params["names"]:
        if not NAME.fullmatch(name):
            raise KeyFileError(f"{name!r} cannot be the name of a key")
        if given is not None and not given.get(name) and params["state"] == "present":
            raise KeyFileError(f"no value was given for the key {name}")
    if params["state"] == "absent":
        removed = [absent(folder, name, check_mode) for name in params["names"]]
        return any(removed)
    if not check_mode:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
    written = [present(folder, name, (given or {}).get(name), check_mode) for name in params["names"]]
    return any(written)


def main():
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "names": {"type": "list", "elements": "str", "required": True},
            "keys": {"type": "dict", "no_log": True},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        supports_check_mode=True,
    )
    try:
        changed = run(module.params, module.check_mode)
    except (KeyFileError, OSError) as error:
        module.fail_json(msg=f"cannot keep the keys in {module.params['path']}: {error}")
    module.exit_json(changed=changed)


if __name__ == "__main__":
    main()
