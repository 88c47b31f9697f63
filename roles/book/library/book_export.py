#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Return the whole book, secrets too, as one text for another gateway host."""

from __future__ import annotations

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.onprem_llm_book import BookError
from ansible.module_utils.onprem_llm_book_copy import packed

DOCUMENTATION = r"""
module: book_export
short_description: Return the whole book for another gateway host
description:
  - Revisions, events, marks of hosts, the authority and the keys of engines and pages. The result holds secrets, so the
    task needs C(no_log); what is wrong is in C(problem), which the next task can say.
options:
  path:
    description: Folder of the book.
    type: path
    default: /var/lib/onprem-llm
  keys:
    description: Folder of the keys.
    type: path
    required: true
author: the onprem-llm authors
"""

EXAMPLES = r"""
- name: Read the whole book
  book_export:
    keys: /srv/onprem-llm/secrets
  no_log: true
  register: book
"""

RETURN = r"""
copy:
  description: The book as one text.
  type: str
  returned: success
problem:
  description: Why there is none; empty where all is well.
  type: str
  returned: always
"""


def main():
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "default": "/var/lib/onprem-llm"},
            "keys": {"type": "path", "required": True, "no_log": False},
        },
        supports_check_mode=True,
    )
    roots = {"book": module.params["path"], "keys": module.params["keys"]}
    try:
        module.exit_json(changed=False, copy=packed(roots), problem="")
    except (BookError, OSError, ValueError) as error:
        module.exit_json(changed=False, copy="", problem=f"cannot read the book in {roots['book']}: {error}")


if __name__ == "__main__":
    main()
