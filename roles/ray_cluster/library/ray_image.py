#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Ask an image which versions of Python, Ray and vLLM it has."""

from __future__ import annotations

import json
import subprocess

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.onprem_llm_docker import docker

DOCUMENTATION = r"""
module: ray_image
short_description: Ask an image which versions of Python, Ray and vLLM it has
description:
  - Runs python3 in a container of the image, without a network, which is gone afterwards. An image without Ray is a
    failure. Changes nothing.
options:
  image:
    description: The image, as docker on this host knows it.
    type: str
    required: true
author: the onprem-llm authors
"""

EXAMPLES = r"""
- name: See what is in it
  ray_image:
    image: rayproject/ray-llm:2.60.0-py311-cu129
"""

RETURN = r"""
versions:
  description: Versions by name (python, ray, vllm); one that is not there has none.
  type: dict
  returned: success
said:
  description: The same, for a person.
  type: str
  returned: success
"""

# Distributions' own records: importing vLLM takes half a minute.
PROGRAM = """
import importlib.metadata as m, json, platform
found = {"python": platform.python_version()}
for name in ("ray", "vllm"):
    try:
        found[name] = m.version(name)
    except m.PackageNotFoundError:
        found[name] = None
print(json.dumps(found))
"""
LIMIT = 120  # seconds
NAMES = {"python": "Python", "ray": "Ray", "vllm": "vLLM"}


class ImageError(Exception):
    """What was found and expected, and what to do; for a person."""


def versions(image):
    """Return what the image has; ImageError where that cannot be said, or where it has no Ray."""
    code, said = docker(
        *("run", "--rm", "--network", "none", "--pull", "never", "--entrypoint", "python3", image, "-c", PROGRAM),
        limit=LIMIT,
    )
    try:
        found = json.loads(said.splitlines()[-1]) if code == 0 else None
    except (ValueError, IndexError):
        found = None
    if not isinstance(found, dict):
        raise ImageError(
            f"the image {image} could not be asked for its Ray: docker run ended with {code}: {said[-300:]}. "
            "Expected an image with python3 and Ray in it: onprem_llm_site.ray.image"
        )
    if not found["ray"]:
        raise ImageError(
            f"found no Ray in the image {image} ({spelled(found)}), expected one with Ray: vLLM's own images are "
            "without it. Name another in onprem_llm_site.ray.image: one of rayproject/ray-llm, or your own "
            "(docs/images.md). Nothing was started."
        )
    return found


def spelled(found):
    """Return `Python 3.11.2, Ray 2.60.0, vLLM 0.29.0`."""
    return ", ".join(f"{NAMES[name]} {found.get(name) or '(none)'}" for name in NAMES)


def main():
    """Run as an Ansible module."""
    module = AnsibleModule(argument_spec={"image": {"type": "str", "required": True}}, supports_check_mode=True)
    try:
        found = versions(module.params["image"])
    except (ImageError, OSError, subprocess.SubprocessError) as error:
        module.fail_json(msg=f"ray_image: {error}")
    module.exit_json(changed=False, versions=found, said=spelled(found))


if __name__ == "__main__":
    main()
