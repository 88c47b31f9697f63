#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Say which host is the gateway host, and let another one forget that it was."""

from __future__ import annotations

import shutil
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.onprem_llm_backup import BackupError, folders, mark, names_of

DOCUMENTATION = r"""
module: backup_mark
short_description: Say what a host is, the gateway host, the other one, or neither
description:
  - The mark is a file in the book's folder, by which the probe knows the gateway host.
options:
  book:
    description: Folder of the book.
    type: path
    default: /var/lib/onprem-llm
  data_root:
    description: Folder of the projects and of the engines' keys.
    type: path
    default: /srv/onprem-llm
  mark:
    description: What this host is from then on; an empty text means neither.
    type: str
    choices: [gateway, second, ""]
    required: true
  forget:
    description:
      - Remove the book (with the authority and the client keys), the page's data and the keys that only a gateway host
        has. What bootstrap noted and the keys of the engines here stay.
    type: bool
    default: false
author: the onprem-llm authors
"""

EXAMPLES = r"""
- name: This host was the gateway
  backup_mark:
    mark: ""
    forget: true
"""

RETURN = r"""#"""

INTERNAL = ("client-*", "open-webui-session", "open-webui-admin")


def forget(book, data_root):
    """Remove what only a gateway host has."""
    where = folders(book, data_root)
    for name in names_of("book", where["book"]):
        (where["book"] / name).unlink()
    for folder in sorted((one for one in where["book"].rglob("*") if one.is_dir()), reverse=True):
        if not any(folder.iterdir()):
            folder.rmdir()
    for pattern in INTERNAL:
        for path in where["secrets"].glob(pattern):
            path.unlink()
    if where["ui"].is_dir():
        shutil.rmtree(str(where["ui"]))
    page = where["ui"].parent
    if page.is_dir() and not any(page.iterdir()):
        page.rmdir()


def main():
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "book": {"type": "path", "default": "/var/lib/onprem-llm"},
            "data_root": {"type": "path", "default": "/srv/onprem-llm"},
            "mark": {"type": "str", "choices": ["gateway", "second", ""], "required": True},
            "forget": {"type": "bool", "default": False},
        }
    )
    params = module.params
    try:
        if params["forget"] and params["mark"]:
            raise BackupError("a gateway host forgets nothing")
        changed = mark(Path(params["book"]), params["mark"])
        if params["forget"]:
            forget(params["book"], params["data_root"])
    except (BackupError, OSError) as error:
        module.fail_json(msg=f"cannot say what this host is in {params['book']}: {error}", invocation={})
    module.exit_json(changed=changed or params["forget"], invocation={})


if __name__ == "__main__":
    main()
