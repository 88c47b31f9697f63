#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""The storage of the site's own registry: which blobs are here, and the small files that say what a repository has."""

from __future__ import annotations

import re
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.onprem_llm_sums import below, is_right, make_between
from ansible.module_utils.onprem_llm_write import put

DOCUMENTATION = r"""
module: registry_store
short_description: The storage of docker-registry, filled without a push
description:
  - C(look) says which blobs are missing or not as their names say. C(linked) writes the files that name them, once all
    blobs are there. Images that are no longer named stay.
options:
  state:
    description: What to do.
    type: str
    choices: [look, linked]
    required: true
  path:
    description: Folder of the storage on the host.
    type: path
    required: true
  source:
    description: Folder on the control host that blobs come from, for what C(look) returns.
    type: path
  files:
    description: Path, size and sha256 of every blob.
    type: list
    elements: dict
    default: []
  links:
    description: Path and digest of every file that names a blob.
    type: dict
    default: {}
author: the onprem-llm authors
"""

EXAMPLES = r"""
- name: Name the blobs
  registry_store:
    state: linked
    path: /srv/onprem-llm/registry/data
    links: "{{ image_registry_links }}"
"""

RETURN = r"""
folders:
  description: What is missing, as M(send_files) takes it.
  type: list
  returned: look
"""

DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")


def look(folder, options):
    """Return the folders that send_files takes: none where all blobs are here."""
    send = [one["path"] for one in options["files"] if not is_right(folder, one)]
    order = {"source": options["source"], "path": str(folder), "files": options["files"], "send": send}
    return [order] if send else []


def link(folder, links, check_mode):
    """Write the links that differ; return whether there were any."""
    changed = False
    for name, digest in sorted(links.items()):
        path = below(folder, name)
        if not DIGEST.match(digest):
            raise ValueError(f"{name}: found {digest!r}, expected sha256: and 64 hex digits")
        if path.is_file() and path.read_bytes() == digest.encode("ascii"):
            continue
        changed = True
        if not check_mode:
            make_between(folder, name)
            put(path, digest, 0o644)
    return changed


def main():
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["look", "linked"], "required": True},
            "path": {"type": "path", "required": True},
            "source": {"type": "path"},
            "files": {"type": "list", "elements": "dict", "default": []},
            "links": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    options = module.params
    folder = Path(options["path"])
    try:
        if options["state"] == "look":
            answer = {"changed": False, "folders": look(folder, options)}
        else:
            answer = {"changed": link(folder, options["links"], module.check_mode)}
    except (OSError, ValueError) as error:
        module.fail_json(msg=f"registry in {folder}: {error}", invocation={})
        return
    module.exit_json(invocation={}, **answer)


if __name__ == "__main__":
    main()
