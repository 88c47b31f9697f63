#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Remove images that nothing uses."""

from __future__ import annotations

import subprocess

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.onprem_llm_images import ImageError, docker, image_id

DOCUMENTATION = r"""
module: image_remove
short_description: Remove images that nothing uses
description: An image that a container uses, running or stopped, stays and is named in the result.
options:
  ids:
    description: Ids of the images.
    type: list
    elements: str
    required: true
author: the onprem-llm authors
"""

EXAMPLES = r"""
- name: Remove the image
  image_remove:
    ids: ["sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"]
"""

RETURN = r"""
kept:
  description: Images that a container uses.
  type: list
  returned: success
"""


def used():
    """Return the ids of the images that containers use."""
    code, text = docker("ps", "--all", "--quiet", "--no-trunc")
    if code != 0:
        raise ImageError(f"docker ps failed: {text}")
    containers = text.split()
    if not containers:
        return set()
    code, text = docker("inspect", "--format", "{{.Image}}", *containers)
    return set(text.split())


def run(ids, check_mode):
    """Return (changed, kept)."""
    busy, changed, kept = used(), False, []
    for wanted in ids:
        identity = image_id(wanted)
        if identity is None:
            continue
        if identity in busy:
            kept.append(wanted)
            continue
        if not check_mode:
            code, text = docker("image", "rm", "--force", identity, limit=600)
            if code != 0 and "conflict" in text:
                # Somebody made an image from this one, or started it just now: theirs stays.
                kept.append(wanted)
                continue
            if code != 0:
                raise ImageError(f"cannot remove {identity}: {text}")
        changed = True
    return changed, kept


def main():
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={"ids": {"type": "list", "elements": "str", "required": True}}, supports_check_mode=True
    )
    try:
        changed, kept = run(module.params["ids"], module.check_mode)
    except (ImageError, OSError, subprocess.SubprocessError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=changed, kept=kept)


if __name__ == "__main__":
    main()
