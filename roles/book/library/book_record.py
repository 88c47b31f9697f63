#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Write a deployment's revision into the book, or that it was taken down."""

from __future__ import annotations

import datetime
import json
import os
import re
import tempfile
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: book_record
short_description: Write a deployment's revision into the book
description:
  - C(<path>/<deployment>/<revision>.yaml) is model.yaml, C(<revision>.json) what it was resolved to, C(current) names
    the revision that counts. C(events.jsonl) has a line for everything that happened.
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
  removed:
    description: The deployment was taken down.
    type: bool
    default: false
  event:
    description: What to add to the line in events.jsonl.
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

NAME = re.compile(r"^[a-z0-9][a-z0-9-]{0,39}$")


class BookError(Exception):
    """What is wrong with what is to be recorded; for a person."""


def now():
    """Return the host's time, to the second, in UTC."""
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def put(path, text):
    """Write a file in one piece, readable by root alone."""
    descriptor, temporary = tempfile.mkstemp(prefix=".new-", dir=str(path.parent))
    with os.fdopen(descriptor, "w", encoding="utf-8") as handle:
        handle.write(text)
        handle.flush()
        os.fsync(handle.fileno())
    Path(temporary).replace(path)


def text_of(path):
    """Return a file's text, or None."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return None


def images_of(path):
    """Return the images that were recorded, or None."""
    try:
        return json.loads(text_of(path) or "")["images"]
    except (ValueError, KeyError):
        return None


def record(params, check_mode):
    """Write the revision; return whether the book said something else before."""
    folder, revision = Path(params["path"], params["deployment"]), params["revision"]
    if not revision or revision < 1 or not params["model_yaml"]:
        raise BookError("a revision needs a number from 1 on and the text of model.yaml")
    files = {"text": folder / f"{revision}.yaml", "about": folder / f"{revision}.json", "current": folder / "current"}
    same = text_of(files["text"]) == params["model_yaml"] and images_of(files["about"]) == params["images"]
    if same and (text_of(files["current"]) or "").strip() == str(revision):
        return False
    if not check_mode:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        put(files["text"], params["model_yaml"])
        put(files["about"], json.dumps({"images": params["images"], "recorded_at": now()}, sort_keys=True) + "\n")
        put(files["current"], f"{revision}\n")  # last: a run that is cut off leaves the old one current
    return True


def remove(params, check_mode):
    """Take the deployment out of what is current; return whether it was in it."""
    current = Path(params["path"], params["deployment"], "current")
    if not current.exists():
        return False
    if not check_mode:
        current.unlink()
    return True


def note(params):
    """Append a line to events.jsonl."""
    event = {"at": now(), "deployment": params["deployment"], **params["event"]}
    event.update({"removed": True} if params["removed"] else {"revision": params["revision"]})
    descriptor = os.open(str(Path(params["path"], "events.jsonl")), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    with os.fdopen(descriptor, "a", encoding="utf-8") as handle:
        handle.write(json.dumps(event, sort_keys=True) + "\n")


def main():
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "default": "/var/lib/onprem-llm"},
            "deployment": {"type": "str", "required": True},
            "revision": {"type": "int"},
            "model_yaml": {"type": "str"},
            "images": {"type": "dict", "default": {}},
            "removed": {"type": "bool", "default": False},
            "event": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    params = module.params
    try:
        if not NAME.match(params["deployment"]):
            raise BookError(f"{params['deployment']!r} cannot be the name of a deployment")
        if not module.check_mode:
            Path(params["path"]).mkdir(mode=0o700, parents=True, exist_ok=True)
        changed = remove(params, module.check_mode) if params["removed"] else record(params, module.check_mode)
        if changed and not module.check_mode:
            note(params)
    except (BookError, OSError) as error:
        module.fail_json(msg=f"cannot write the book in {params['path']}: {error}", invocation={})
    module.exit_json(changed=changed, invocation={})


if __name__ == "__main__":
    main()
