#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Return keys; the task that calls this is no_log."""

from __future__ import annotations

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: engine_key_read
short_description: Return the keys of engines
description: Returns keys in clear, to be written on other hosts. The task must set C(no_log).
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
author: the onprem-llm authors
"""

EXAMPLES = r"""
- name: Read the keys
  engine_key_read:
    path: /srv/onprem-llm/secrets
    names: [tiny]
  no_log: true
  register: engine_keys_read
"""

RETURN = r"""
engine_keys:
  description: Keys by name.
  type: dict
  returned: success
"""


def main():
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "names": {"type": "list", "elements": "str", "required": True},
        },
        supports_check_mode=True,
    )
    folder = Path(module.params["path"])
    try:
        found = {name: (folder / name).read_text(encoding="utf-8").strip() for name in module.params["names"]}
    except OSError as error:
        module.fail_json(msg=f"cannot read a key: {error}")
    module.exit_json(changed=False, engine_keys=found)


if __name__ == "__main__":
    main()
