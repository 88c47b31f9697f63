#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Add what happened to the book's events.jsonl, failures too."""

from __future__ import annotations

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.onprem_llm_book import BookError, append_event, check_name

DOCUMENTATION = r"""
module: book_event
short_description: Add what happened to the book's events
description:
  - C(<path>/events.jsonl) gets a line; nothing in it is ever changed. Every run of this module adds one.
options:
  path:
    description: Folder of the book.
    type: path
    default: /var/lib/onprem-llm
  event:
    description:
      - C(action) is required. C(deployment), C(revision), C(by), C(result) (ok or failed) and C(message) are what
        C(onprem-llm events) shows. The time is the host's.
    type: dict
    required: true
author: the onprem-llm authors
"""

EXAMPLES = r"""
- name: Say that an update failed
  book_event:
    event: {action: deploy, deployment: tiny, revision: 3, by: ops@control, result: failed, message: no answer}
"""

RETURN = r"""#"""

RESULTS = ("ok", "failed")


def checked(event):
    """Return the event; BookError where `onprem-llm events` could not show it."""
    if not event.get("action"):
        raise BookError("an event needs an action")
    if event.get("result", "ok") not in RESULTS:
        raise BookError(f"an event's result is {' or '.join(RESULTS)}, found {event['result']!r}")
    if event.get("deployment"):
        check_name(event["deployment"])
    return event


def main():
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "default": "/var/lib/onprem-llm"},
            "event": {"type": "dict", "required": True},
        },
        supports_check_mode=True,
    )
    params = module.params
    try:
        event = checked(params["event"])
        if not module.check_mode:
            Path(params["path"]).mkdir(mode=0o700, parents=True, exist_ok=True)
            append_event(params["path"], event)
    except (BookError, OSError) as error:
        module.fail_json(msg=f"cannot write the events in {params['path']}: {error}", invocation={})
    module.exit_json(changed=True, invocation={})


if __name__ == "__main__":
    main()
