#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Write a deployment's revision into the book, or that it was taken down."""

from __future__ import annotations

import json
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.onprem_llm_book import (
    ROLLOUT,
    BookError,
    append_event,
    check_name,
    json_of,
    note_rollout,
    now,
    text_of,
)
from ansible.module_utils.onprem_llm_write import put

DOCUMENTATION = r"""
module: book_record
short_description: Write a deployment's revision into the book
description:
  - C(<path>/<deployment>/<revision>.yaml) is model.yaml, C(<revision>.json) what it was resolved to, C(current) names
    the revision that counts. No other one is under way from then on (C(rollout.json)).
  - C(events.jsonl) has a line for everything that happened.
  - A deployment that was taken down has no C(current); its revisions stay.
options:
  path:
    description: Folder of the book.
    type: path
    default: /var/lib/onprem-llm
  deployment:
    description: Name of the deployment.
    type: str
    required: true
  revision:
    description: Number of the revision.
    type: int
  model_yaml:
    description: Text of model.yaml.
    type: str
  images:
    description: Image ids by reference.
    type: dict
    default: {}
  placement:
    description: Where each replica is and which revision it answers as, by project (C(host), C(revision)).
    type: dict
    default: {}
  removed:
    description: The deployment was taken down.
    type: bool
    default: false
  event:
    description: What to add to the line in events.jsonl (by, action, message); C(by) is kept with the revision too.
    type: dict
    default: {}
author: the onprem-llm authors
"""

EXAMPLES = r"""
- name: Record the deployment
  book_record:
    deployment: tiny
    revision: 1
    model_yaml: "name: tiny"
"""

RETURN = r"""#"""


def about_of(path):
    """Return what was recorded beside model.yaml, without the time and the person."""
    return {name: value for name, value in json_of(path).items() if name not in ("recorded_at", "by")}


def record(params, check_mode):
    """Write the revision; return whether the book said something else before."""
    folder, revision = Path(params["path"], params["deployment"]), params["revision"]
    if not revision or revision < 1 or not params["model_yaml"]:
        raise BookError("a revision needs a number from 1 on and the text of model.yaml")
    files = {"text": folder / f"{revision}.yaml", "about": folder / f"{revision}.json", "current": folder / "current"}
    about = {"images": params["images"], **({"placement": params["placement"]} if params["placement"] else {})}
    same = text_of(files["text"]) == params["model_yaml"]
    current = (text_of(files["current"]) or "").strip() == str(revision)
    if same and current and about_of(files["about"]) == about:
        return settle(folder, check_mode)
    if not check_mode:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        put(files["text"], params["model_yaml"])
        # A revision that is put back, or whose replicas moved, stays the one that somebody made back then.
        made = json_of(files["about"]) if same else {}
        about["recorded_at"] = made.get("recorded_at") or now()
        about["by"] = made.get("by") if made else params["event"].get("by")
        put(files["about"], json.dumps(about, sort_keys=True) + "\n")
        put(files["current"], f"{revision}\n")  # last: a run that is cut off leaves the old one current
    settle(folder, check_mode)
    return True


def settle(folder, check_mode):
    """End what was under way: replicas run what was recorded. Return whether anything was."""
    known = json_of(folder / ROLLOUT)
    return bool(known.get("pending")) and note_rollout(folder, [], known.get("last", 0), check_mode)


def remove(params, check_mode):
    """Take the deployment out of what is current; return whether it was in it."""
    current = Path(params["path"], params["deployment"], "current")
    if not current.exists():
        return False
    if not check_mode:
        current.unlink()
    settle(current.parent, check_mode)
    return True


def note(params):
    """Append a line to events.jsonl."""
    event = {"deployment": params["deployment"], **params["event"]}
    event.update({"removed": True} if params["removed"] else {"revision": params["revision"]})
    append_event(params["path"], event)


def main():
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "default": "/var/lib/onprem-llm"},
            "deployment": {"type": "str", "required": True},
            "revision": {"type": "int"},
            "model_yaml": {"type": "str"},
            "images": {"type": "dict", "default": {}},
            "placement": {"type": "dict", "default": {}},
            "removed": {"type": "bool", "default": False},
            "event": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    params = module.params
    try:
        check_name(params["deployment"])
        if not module.check_mode:
            Path(params["path"]).mkdir(mode=0o700, parents=True, exist_ok=True)
        changed = remove(params, module.check_mode) if params["removed"] else record(params, module.check_mode)
        # A restart writes the same revision again, and is something that was done all the same.
        changed = changed or bool(params["event"].get("action") and not params["removed"])
        if changed and not module.check_mode:
            note(params)
    except (BookError, OSError) as error:
        module.fail_json(msg=f"cannot write the book in {params['path']}: {error}", invocation={})
    module.exit_json(changed=changed, invocation={})


if __name__ == "__main__":
    main()
