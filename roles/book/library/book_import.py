#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Keep a copy of the first gateway host's book."""

from __future__ import annotations

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.onprem_llm_book import BookError
from ansible.module_utils.onprem_llm_book_copy import differing, unpacked, written

DOCUMENTATION = r"""
module: book_import
short_description: Keep a copy of the first gateway host's book
description:
  - What M(book_export) returned becomes files again, each in one piece, for root alone. Revisions that only this
    host has are kept, and do not count.
  - Refused on the host whose book counts.
options:
  path:
    description: Folder of the book.
    type: path
    default: /var/lib/onprem-llm
  keys:
    description: Folder of the keys.
    type: path
    required: true
  copy:
    description: What M(book_export) returned.
    type: str
    required: true
author: the onprem-llm authors
"""

EXAMPLES = r"""
- name: Keep a copy
  book_import:
    keys: /srv/onprem-llm/secrets
    copy: "{{ book.copy }}"
"""

RETURN = r"""#"""


def main():
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "default": "/var/lib/onprem-llm"},
            "keys": {"type": "path", "required": True, "no_log": False},
            "copy": {"type": "str", "required": True, "no_log": True},
        },
        supports_check_mode=True,
    )
    roots = {"book": module.params["path"], "keys": module.params["keys"]}
    try:
        if Path(roots["book"], "gateway").exists():
            raise BookError("this host is recorded as the gateway: its own book counts")
        changes = differing(roots, unpacked(module.params["copy"]))
        if not module.check_mode:
            written(changes)
    except (BookError, OSError, ValueError) as error:
        module.fail_json(msg=f"cannot keep a copy of the book in {roots['book']}: {error}", invocation={})
    module.exit_json(changed=bool(changes), invocation={})


if __name__ == "__main__":
    main()
