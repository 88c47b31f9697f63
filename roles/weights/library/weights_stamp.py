#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Check weights against their manifest and write down that it was done."""

from __future__ import annotations

import concurrent.futures
import json
import os
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.onprem_llm_sums import sha256
from ansible.module_utils.onprem_llm_write import put

DOCUMENTATION = r"""
module: weights_stamp
short_description: Check weights against their manifest
description:
  - The stamp C(<path>.json) holds size, date and sha256 of every file at the time its digest was checked. A file that
    has not changed since then is not read again.
  - C(stamped) checks the weights of which something was sent to this host, and writes their stamps. C(checked) compares
    the others with the stamp that is there, for a folder that another host has written.
options:
  weights:
    description: Folders with their manifests.
    type: list
    elements: dict
    required: true
  verified:
    description: Paths whose content has just been checked and need not be read again.
    type: list
    elements: str
    default: []
  state:
    description: Write stamps, or compare with those that are there.
    type: str
    choices: [stamped, checked]
    default: stamped
author: the onprem-llm authors
"""

EXAMPLES = r"""
- name: Check the weights
  weights_stamp:
    weights: "{{ weights_wanted }}"
"""

RETURN = r"""
checked:
  description: Number of files whose content was read.
  type: int
  returned: success
"""

SCHEMA = 1
SHOWN = 5  # files that are named in an error


class WeightsError(Exception):
    """Which files are wrong; for a person."""


def stamp_path(folder):
    """Return where a folder's stamp is: beside it, so that the engine sees only the model."""
    return folder.with_name(folder.name + ".json")


def stamped_files(folder):
    """Return {path: [size, mtime_ns, sha256]} of the stamp."""
    try:
        return json.loads(stamp_path(folder).read_text(encoding="utf-8"))["files"]
    except (OSError, ValueError, KeyError):
        return {}


def entry(folder, wanted, stamp, verified):
    """Return (the stamp's entry or what is wrong, whether the file was read)."""
    path = folder / wanted["path"]
    try:
        stat = path.stat()
    except OSError as error:
        return f"{wanted['path']}: {error.strerror}", False
    if stat.st_size != wanted["size"]:
        return f"{wanted['path']}: {stat.st_size} bytes instead of {wanted['size']}", False
    right = [stat.st_size, stat.st_mtime_ns, wanted["sha256"]]
    if stamp.get(wanted["path"]) == right or str(path) in verified:
        return right, False
    found = sha256(path)
    return (right if found == wanted["sha256"] else f"{wanted['path']}: sha256 {found} instead of {right[2]}"), True


def refuse(wrong, folder, remedy):
    """Raise WeightsError that names the first few files."""
    if wrong:
        more = f" and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
        raise WeightsError(
            f"the weights in {folder} are not what was planned: {'; '.join(wrong[:SHOWN])}{more}; {remedy}"
        )


def write_stamp(folder, identity, files):
    """Write the stamp in one piece."""
    text = json.dumps({"schema": SCHEMA, "id": identity, "files": files}, sort_keys=True)
    put(stamp_path(folder), text, 0o644)


def stamp(item, verified):
    """Check one folder and write its stamp; return (changed, files that were read)."""
    folder = Path(item["path"])
    before = stamped_files(folder)
    with concurrent.futures.ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        found = list(pool.map(lambda one: entry(folder, one, before, verified), item["files"]))
    wrong = [answer for answer, _ in found if isinstance(answer, str)]
    refuse(wrong, folder, "deploy again, and what differs is sent")
    after = {one["path"]: answer for one, (answer, _) in zip(item["files"], found)}
    if after != before:
        write_stamp(folder, item["id"], after)
    return after != before, sum(read for _, read in found)


def check(item):
    """Compare one folder with its stamp."""
    folder = Path(item["path"])
    before = stamped_files(folder)
    if not before:
        raise WeightsError(f"this host does not see {folder}: is the shared folder mounted here, at the same path?")
    wrong = []
    for one in item["files"]:
        known = before.get(one["path"])
        try:
            stat = (folder / one["path"]).stat()
            same = known == [stat.st_size, stat.st_mtime_ns, one["sha256"]]
        except OSError:
            same = False
        if not same:
            wrong.append(f"{one['path']} is not as it was checked")
    refuse(wrong, folder, "is the shared folder mounted here, and at the same path?")


def main():
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "weights": {"type": "list", "elements": "dict", "required": True},
            "verified": {"type": "list", "elements": "str", "default": []},
            "state": {"type": "str", "choices": ["stamped", "checked"], "default": "stamped"},
        }
    )
    changed, read = False, 0
    try:
        for item in module.params["weights"]:
            if module.params["state"] == "checked" and not item["send"]:
                check(item)
            if module.params["state"] == "stamped" and item["send"]:
                wrote, count = stamp(item, set(module.params["verified"]))
                changed, read = changed or wrote, read + count
    except WeightsError as error:
        module.fail_json(msg=str(error), invocation={})
    except OSError as error:
        module.fail_json(msg=f"cannot check the weights: {error}", invocation={})
    module.exit_json(changed=changed, checked=read, invocation={})


if __name__ == "__main__":
    main()
