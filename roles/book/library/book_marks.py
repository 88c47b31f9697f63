#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Write what a person says of hosts into the book: drained, removed, lost."""

from __future__ import annotations

import json
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.onprem_llm_book import BookError, append_event, now, text_of
from ansible.module_utils.onprem_llm_write import put

DOCUMENTATION = r"""
module: book_marks
short_description: Write what is said of hosts into the book
description:
  - C(<path>/hosts.json) has C(state), C(by) and C(at) for every host that something is said of. Other hosts' entries
    stay as they are. One that was drained and is now something else has C(was_drained) too: it still gets no requests.
  - What a command drained for its own sake has C(purpose), and is let in by that command. What a person says takes the
    place of that; not the other way round.
  - A change adds a line to C(events.jsonl).
options:
  path:
    description: Folder of the book.
    type: path
    default: /var/lib/onprem-llm
  marks:
    description: By host, C(drained), C(removed) or C(lost); an empty text takes away what was said.
    type: dict
    required: true
  purpose:
    description: What a command says it for, such as C(driver upgrade); empty for a person's word.
    type: str
    default: ""
  event:
    description: What to add to the line in events.jsonl (by, action, message); C(by) is kept with the mark too.
    type: dict
    default: {}
author: the onprem-llm authors
"""

EXAMPLES = r"""
- name: A host gets no more requests
  book_marks:
    marks: {server-2: drained}
    event: {action: host drain, message: server-2, by: ops@control}
"""

RETURN = r"""#"""

STATES = ("drained", "removed", "lost")
FILE = "hosts.json"


def read(path):
    """Return the marks; BookError where the file cannot be read: what it says must not be lost."""
    text = text_of(path)
    if text is None and not path.exists():
        return {}
    try:
        value = json.loads(text or "")
    except ValueError as error:
        raise BookError(f"{path} is no JSON: {error}; mend it, or move it away") from error
    if not isinstance(value, dict):
        raise BookError(f"{path} holds no object; mend it, or move it away")
    return value


def change(known, marks, by, purpose=""):
    """Return the marks with `marks` in them; an entry that says the same already keeps its person and time.

    Not one that a command made for a purpose of its own, where a person says the same now.
    """
    found = dict(known)
    for host, state in marks.items():
        if not state:
            found.pop(host, None)
            continue
        if state not in STATES:
            raise BookError(f"a host is {', '.join(STATES)}, found {state!r} for {host}")
        before = found[host] if isinstance(found.get(host), dict) else {}
        if before.get("state") == state and (purpose or not before.get("purpose")):
            continue
        found[host] = {"state": state, "by": by, "at": now(), **({"purpose": purpose} if purpose else {})}
        if before.get("was_drained") or before.get("state") == "drained" != state:
            found[host]["was_drained"] = True
    return found


def run(params, check_mode):
    """Return whether the book said something else before."""
    path = Path(params["path"], FILE)
    known = read(path)
    wanted = change(known, params["marks"], params["event"].get("by"), params["purpose"])
    if wanted == known:
        return False
    if not check_mode:
        put(path, json.dumps(wanted, sort_keys=True) + "\n")
        if params["event"].get("action"):
            append_event(params["path"], params["event"])
    return True


def main():
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "default": "/var/lib/onprem-llm"},
            "marks": {"type": "dict", "required": True},
            "purpose": {"type": "str", "default": ""},
            "event": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    params = module.params
    try:
        changed = run(params, module.check_mode)
    except (BookError, OSError) as error:
        module.fail_json(msg=f"cannot write the marks in {params['path']}: {error}", invocation={})
    module.exit_json(changed=changed, invocation={})


if __name__ == "__main__":
    main()
