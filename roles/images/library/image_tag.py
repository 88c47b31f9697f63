#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Point the tags at images that are here; tell which are not."""

from __future__ import annotations

import subprocess
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.onprem_llm_images import WANTED, ImageError, find, point_tag

DOCUMENTATION = r"""
module: image_tag
short_description: Point the tags at images that are here
description: An image is looked for by id. What is missing is returned, with the archives to send for it.
options:
  images:
    description: Images that are wanted, each with C(ref), and C(id) or C(pull), and C(archive) on the control host.
    type: list
    elements: dict
    required: true
  incoming:
    description: Folder on the host for archives.
    type: path
    required: true
author: the onprem-llm authors
"""

EXAMPLES = r"""
- name: Point the tags at images that are here
  image_tag:
    images: "{{ images_wanted }}"
    incoming: /srv/onprem-llm/incoming
"""

RETURN = r"""
missing:
  description: The wanted images that are not here.
  type: list
  returned: success
folders:
  description: Their archives, as M(send_files) takes them.
  type: list
  returned: success
"""


def folders(missing, incoming):
    """Return the archives to send, each once."""
    archives = sorted({one["archive"] for one in missing if one.get("archive")})
    found = []
    for archive in map(Path, archives):
        files = [{"path": archive.name}]
        found.append({"source": str(archive.parent), "path": incoming, "files": files, "send": [archive.name]})
    return found


def run(images, check_mode):
    """Return (changed, missing). Raises ImageError for one that nothing can bring."""
    changed, missing = False, []
    for wanted in images:
        identity = find(wanted)
        if identity:
            changed = point_tag(wanted["ref"], identity, check_mode) or changed
        elif wanted.get("archive") or wanted.get("pull"):
            missing.append(wanted)
        else:
            raise ImageError(
                f"image {wanted['ref']} ({wanted['id']}) is not on this host, and the order names neither an archive "
                "nor a registry for it; make the plan again"
            )
    return changed, missing


def main():
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={"images": WANTED, "incoming": {"type": "path", "required": True}}, supports_check_mode=True
    )
    try:
        changed, missing = run(module.params["images"], module.check_mode)
    except (ImageError, OSError, subprocess.SubprocessError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=changed, missing=missing, folders=folders(missing, module.params["incoming"]))


if __name__ == "__main__":
    main()
