#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Remove images that nothing uses."""

from __future__ import annotations

import json
import subprocess

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.onprem_llm_docker import docker
from ansible.module_utils.onprem_llm_images import ImageError, image_id

DOCUMENTATION = r"""
module: image_remove
short_description: Remove images that nothing uses
description:
  - Never by force. An image that a container uses (running or stopped), that another image is made from, or that has
    more tags than one stays whole and is named in the result.
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
  description: Why an image stayed, by id.
  type: dict
  returned: success
onprem_llm:
  description: The same as C(images_kept).
  type: dict
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


def names(identity):
    """Return (tags, digests) of an image."""
    code, text = docker("image", "inspect", "--format", "{{json .RepoTags}}\n{{json .RepoDigests}}", identity)
    if code != 0:
        raise ImageError(f"docker image inspect {identity} failed: {text}")
    tags, digests = (json.loads(line) or [] for line in text.splitlines())
    return tags, digests


def remove(identity):
    """Remove an image that has one tag at most; return why it stays, or None."""
    tags, digests = names(identity)
    if len(tags) > 1:
        return f"it has more tags than ours: {', '.join(tags)}"
    code, text = docker("image", "rm", identity, limit=600)
    if code != 0 and "multiple repositories" in text:
        # Pulled from a site's registry by digest and tagged as model.yaml names it. A digest is nobody's tag.
        for digest in digests:
            docker("image", "rm", digest)
        code, text = docker("image", "rm", identity, limit=600)
    if code != 0 and "conflict" in text:
        return text.rpartition(" - ")[2]  # an image was made from it, or somebody started it just now
    if code != 0 and image_id(identity) is not None:
        raise ImageError(f"cannot remove {identity}: {text}")
    return None


def run(ids, check_mode):
    """Return (changed, why by id of those that stay)."""
    busy, changed, kept = used(), False, {}
    for wanted in ids:
        identity = image_id(wanted)
        if identity is None:
            continue
        if identity in busy:
            why = "a container uses it"
        elif check_mode:
            why = None
        else:
            why = remove(identity)
        if why:
            kept[wanted] = why
        else:
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
    module.exit_json(changed=changed, kept=kept, onprem_llm={"images_kept": kept})


if __name__ == "__main__":
    main()
