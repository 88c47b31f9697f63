#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Remove what is left of onprem-llm on a host: named files, and folders in which nothing is left."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: uninstall_remains
short_description: Remove what is left of onprem-llm on a host
options:
  paths:
    description: Files, and folders with all that is in them.
    type: list
    elements: path
    default: []
  folders:
    description: Folders that are removed where they are empty. Those that stay are returned.
    type: list
    elements: path
    default: []
author: the onprem-llm authors
"""

EXAMPLES = r"""
- name: Remove the keys
  uninstall_remains:
    paths: [/srv/onprem-llm/secrets]
    folders: [/srv/onprem-llm]
"""

RETURN = r"""
onprem_llm:
  description: C(left), what is still there in O(folders), as paths.
  type: dict
  returned: always
"""

MOST = 12  # of what is left in a folder, named


def remove(path):
    """Remove a file or a folder; return whether it was there."""
    if not os.path.lexists(str(path)):
        return False
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(str(path))
    else:
        path.unlink()
    return True


def settle(folder):
    """Remove an empty folder; return (whether it went, what is left in it)."""
    if not folder.is_dir() or folder.is_symlink():
        return False, []
    left = sorted(str(entry) for entry in folder.iterdir())
    if left:
        return False, left[:MOST]
    folder.rmdir()
    return True, []


def main():
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "paths": {"type": "list", "elements": "path", "default": []},
            "folders": {"type": "list", "elements": "path", "default": []},
        }
    )
    try:
        removed = [remove(Path(path)) for path in module.params["paths"]]
        # Inner folders first, so that an outer one can be empty.
        folders = sorted(module.params["folders"], key=len, reverse=True)
        settled = {folder: settle(Path(folder)) for folder in folders}
    except OSError as error:
        module.fail_json(msg=f"cannot remove what is left: {error}")
    inner = set(folders)
    left = sorted(path for _, paths in settled.values() for path in paths if path not in inner)
    changed = any(removed) or any(went for went, _ in settled.values())
    module.exit_json(changed=changed, onprem_llm={"left": left})


if __name__ == "__main__":
    main()
