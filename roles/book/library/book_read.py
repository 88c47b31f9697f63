#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Read a deployment's revisions and the events from the book. Changes nothing."""

from __future__ import annotations

import collections
import json
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.onprem_llm_book import EVENTS, ROLLOUT, BookError, check_name, json_of, text_of

DOCUMENTATION = r"""
module: book_read
short_description: Read revisions and events from the book
description:
  - Reads what C(book_record) and C(book_event) wrote. A host without a book returns C(mark) null.
options:
  path:
    description: Folder of the book.
    type: path
    default: /var/lib/onprem-llm
  deployment:
    description: Whose revisions, and whose events alone; none means no revisions, and everybody's events.
    type: str
    default: ""
  events:
    description: How many events, counted from the end.
    type: int
    default: 0
author: the onprem-llm authors
"""

EXAMPLES = r"""
- name: Read the history of tiny and its last ten events
  book_read:
    deployment: tiny
    events: 10
"""

RETURN = r"""
onprem_llm:
  description:
    - C(mark) is C(gateway) or C(second) on a gateway host, null elsewhere; C(deployments) names all that the book has
      revisions of; C(history) has a list of revisions for the deployment that was asked for, C(last) the last number
      that it gave, C(events) the events, the oldest first; C(hosts) is what the book says of hosts (drained, removed,
      lost); C(problems) says what could not be read.
  type: dict
  returned: always
"""

MARKS = ("gateway", "second")


def mark(root):
    """Return what this host is for the book: `gateway`, `second` or None."""
    return next((name for name in MARKS if (root / name).is_file()), None)


def numbers(folder):
    """Return the numbers of a deployment's revisions."""
    return sorted(int(path.stem) for path in folder.glob("*.yaml") if path.stem.isdigit())


def names(root):
    """Name the deployments that have a revision."""
    try:
        return sorted(one.name for one in root.iterdir() if one.is_dir() and numbers(one))
    except OSError:
        return []


def history(folder):
    """Return (revisions of a deployment, problems)."""
    current, found, problems = (text_of(folder / "current") or "").strip(), [], []
    for number in numbers(folder):
        text = text_of(folder / f"{number}.yaml")
        if text is None:
            problems.append(f"{folder}/{number}.yaml cannot be read")
            continue
        about = {"images": {}, "recorded_at": None, "by": None, **json_of(folder / f"{number}.json")}
        found.append({**about, "revision": number, "model_yaml": text, "current": current == str(number)})
    return found, problems


def events(path, deployment, last):
    """Return (the last events, problems). A line that was cut off by a power failure hides no other."""
    found, torn = collections.deque(maxlen=last), 0
    try:
        with path.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                try:
                    event = json.loads(line)
                except ValueError:
                    torn += 1
                    continue
                if isinstance(event, dict) and deployment in ("", event.get("deployment")):
                    found.append(event)
    except FileNotFoundError:
        return [], []
    return list(found), [f"{path}: {torn} lines are not whole, and are left out"] if torn else []


def read(path, deployment, last):
    """Return everything that is asked for."""
    root = Path(path)
    answer = {"mark": mark(root), "deployments": names(root), "history": {}, "last": 0, "events": [], "problems": []}
    answer["hosts"] = json_of(root / "hosts.json")
    if deployment:
        check_name(deployment)
        answer["history"][deployment], answer["problems"] = history(root / deployment)
        answer["last"] = json_of(root / deployment / ROLLOUT).get("last", 0)
    if last:
        answer["events"], problems = events(root / EVENTS, deployment, last)
        answer["problems"] = answer["problems"] + problems
    return answer


def main():
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "default": "/var/lib/onprem-llm"},
            "deployment": {"type": "str", "default": ""},
            "events": {"type": "int", "default": 0},
        },
        supports_check_mode=True,
    )
    params = module.params
    try:
        answer = read(params["path"], params["deployment"], params["events"])
    except (BookError, OSError) as error:
        module.fail_json(msg=f"cannot read the book in {params['path']}: {error}", invocation={})
    module.exit_json(changed=False, onprem_llm=answer, invocation={})


if __name__ == "__main__":
    main()
