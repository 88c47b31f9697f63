#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Load images from archives or pull them by digest, and check that they are what was wanted."""

from __future__ import annotations

import subprocess
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.onprem_llm_docker import docker
from ansible.module_utils.onprem_llm_images import TIME_LIMIT, WANTED, ImageError, find, image_id, point_tag

DOCUMENTATION = r"""
module: image_fetch
short_description: Load or pull images and compare their ids
description:
  - An image with an archive is loaded from the file of that name in O(incoming), which is removed afterwards. Others
    are pulled by digest, with the credentials in root's docker configuration.
options:
  images:
    description: Images that are not here, as M(image_tag) returns them.
    type: list
    elements: dict
    required: true
  incoming:
    description: Folder on the host with the archives.
    type: path
    required: true
author: the onprem-llm authors
"""

EXAMPLES = r"""
- name: Bring the images in
  image_fetch:
    images: "{{ images_here.missing }}"
    incoming: /srv/onprem-llm/incoming
"""

RETURN = r"""#"""


# What the client says when the daemon goes while it waits.
CUT_OFF = ("unexpected EOF", "Cannot connect to the Docker daemon", "error during connect")


def load(archive):
    """Load an archive and return the ids of what was in it."""
    code, text = docker("load", "--input", str(archive), limit=TIME_LIMIT)
    if code != 0:
        raise ImageError(f"docker load of {archive.name} failed: {text[-500:]}")
    names = [line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("Loaded image")]
    return {name: image_id(name) for name in names}


def pull(reference):
    """Pull by digest."""
    code, text = docker("pull", "--quiet", reference, limit=TIME_LIMIT)
    if code != 0:
        hint = "see onprem_llm_site.registry for its address and credentials, and run bootstrap after a change"
        if any(words in text for words in CUT_OFF):
            hint = (
                "docker ended meanwhile, or was cut off from the registry: `journalctl --unit docker` there says which"
            )
        raise ImageError(f"docker pull {reference} failed: {text[-500:]}; {hint}")


def fetch(images, incoming):
    """Bring every image in; archives are removed even where one of them is wrong."""
    archives = {one["archive"]: Path(incoming, Path(one["archive"]).name) for one in images if one.get("archive")}
    try:
        loaded = {name: load(path) for name, path in archives.items()}
    finally:
        for path in archives.values():
            if path.exists():
                path.unlink()
    for wanted in images:
        if not wanted.get("archive"):
            pull(wanted["pull"])
        settle(wanted, loaded.get(wanted.get("archive"), {}))


def settle(wanted, loaded):
    """Check that the image is here now, and point its tag at it."""
    identity = find(wanted)
    if identity is None and not wanted.get("id") and not wanted.get("pull"):
        identity = loaded.get(wanted["ref"])
    if identity is None:
        held = ", ".join(f"{name} = {one}" for name, one in loaded.items()) or "nothing with a name"
        source = wanted.get("archive") or wanted["pull"]
        expected = wanted.get("id") or wanted.get("pull") or wanted["ref"]
        raise ImageError(f"{source} is not the image that was wanted: it holds {held}; expected {expected}")
    point_tag(wanted["ref"], identity)


def main():
    """Run as an Ansible module."""
    module = AnsibleModule(argument_spec={"images": WANTED, "incoming": {"type": "path", "required": True}})
    try:
        fetch(module.params["images"], module.params["incoming"])
    except (ImageError, OSError, subprocess.SubprocessError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=bool(module.params["images"]))


if __name__ == "__main__":
    main()
