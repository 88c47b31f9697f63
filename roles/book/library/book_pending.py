#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Write into the book which revisions of a deployment are under way."""

from __future__ import annotations

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.onprem_llm_book import BookError, check_name, note_rollout

DOCUMENTATION = r"""
module: book_pending
short_description: Write into the book which revisions of a deployment are under way
description:
  - C(<path>/<deployment>/rollout.json) has C(pending), revisions that replicas may run and that no record has ended,
    and C(last), the last number that was given. It is written before the first replica gets a number, so that a gateway
    goes on to let such replicas in when a change was cut off, and no number is given twice.
options:
  path:
    description: Folder of the book.
    type: path
    default: /var/lib/onprem-llm
  deployment:
    description: Name of the deployment.
    type: str
    required: true
  pending:
    description: The revisions under way; none once they are taken back.
    type: list
    elements: int
    required: true
  last:
    description: The last number that was given. A higher one in the book stays.
    type: int
    required: true
author: the onprem-llm authors
"""

EXAMPLES = r"""
- name: Revision 2 of tiny begins
  book_pending:
    deployment: tiny
    pending: [2]
    last: 2
"""

RETURN = r"""#"""


def main():
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "default": "/var/lib/onprem-llm"},
            "deployment": {"type": "str", "required": True},
            "pending": {"type": "list", "elements": "int", "required": True},
            "last": {"type": "int", "required": True},
        },
        supports_check_mode=True,
    )
    params = module.params
    try:
        check_name(params["deployment"])
        folder = Path(params["path"], params["deployment"])
        changed = note_rollout(folder, params["pending"], params["last"], module.check_mode)
    except (BookError, OSError) as error:
        module.fail_json(msg=f"cannot write the book in {params['path']}: {error}", invocation={})
    module.exit_json(changed=changed, invocation={})


if __name__ == "__main__":
    main()
