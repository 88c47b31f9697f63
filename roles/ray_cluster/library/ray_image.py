#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Ask an image which versions of Python, Ray and vLLM it has."""

from __future__ import annotations

import json
import re
import subprocess

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.onprem_llm_docker import docker

DOCUMENTATION = r"""
module: ray_image
short_description: Ask an image which versions of Python, Ray and vLLM it has
description:
  - Runs python3 in a container of the image, without a network, which is gone afterwards. An image without Ray, or
    with one that is too old, is a failure. Changes nothing.
options:
  image:
    description: The image, as docker on this host knows it.
    type: str
    required: true
  standing:
    description: Another image on this host, whose versions are returned, too; whatever they are.
    type: str
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
name:
  description: A tag of the image.
  type: str
  returned: success
onprem_llm:
  description: C(ray_image) with C(versions), and C(standing), those of O(standing).
  type: dict
  returned: success
"""

# What Ray's own record asks for with its extra llm: `vllm[audio]==0.29.0; extra == "llm"`.
PIN = r"""vllm(?:\[[^\]]*\])?\s*\(?==\s*([^\s;,)]+).*\bextra\s*==\s*["']llm["']"""
# Distributions' own records: importing vLLM takes half a minute.
PROGRAM = """
import importlib.metadata as m, json, platform, re
found = {"python": platform.python_version()}
for name in ("ray", "vllm"):
    try:
        found[name] = m.version(name)
    except m.PackageNotFoundError:
        found[name] = None
asks = [re.match(PIN, one) for one in (m.requires("ray") or ())] if found["ray"] else []
found["made_for"] = next((one.group(1) for one in asks if one), None)
print(json.dumps(found))
""".replace("PIN", repr(PIN))
LIMIT = 120  # seconds
# Serve starts a new replica before it ends the old one since then: max_surge_percent (docs/multi-node.md).
LEAST = (2, 60)
NAMES = {"python": "Python", "ray": "Ray", "vllm": "vLLM"}


class ImageError(Exception):
    """What was found and expected, and what to do; for a person."""


def versions(image):
    """Return what the image has; ImageError where that cannot be said, where it has no Ray, or one that will not do."""
    found, name = asked(image), called(image)
    if not found["ray"]:
        raise ImageError(
            f"found no Ray in the image {name} ({spelled(found)}), expected one with Ray: vLLM's own images are "
            "without it. Name another in onprem_llm_site.ray.image: one of rayproject/ray-llm, or your own "
            "(docs/images.md). Nothing was started."
        )
    if release(found["ray"]) < LEAST:
        least = ".".join(str(part) for part in LEAST)
        raise ImageError(
            f"found Ray {found['ray']} in the image {name}, expected {least} or newer: older ones stop a model's only "
            "replica before they start the one that takes its place. Name another in onprem_llm_site.ray.image: a "
            "newer one of rayproject/ray-llm, or your own (docs/images.md). Nothing was started."
        )
    made_for = found.pop("made_for", None)
    if made_for and found["vllm"] and found["vllm"].partition("+")[0] != made_for:
        raise ImageError(
            f"found {spelled(found)} in the image {name}, expected vLLM {made_for}, which this Ray is made for. "
            "Name another in onprem_llm_site.ray.image: one of rayproject/ray-llm, or your own (docs/images.md). "
            "Nothing was started."
        )
    return found


def release(version):
    """Return the first two numbers of a version: (2, 60) of 2.60.0rc1."""
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])


def asked(image):
    """Return what the image has, None for what it has not; ImageError where that cannot be said."""
    code, said = docker(
        *("run", "--rm", "--network", "none", "--pull", "never", "--entrypoint", "python3", image, "-c", PROGRAM),
        limit=LIMIT,
    )
    try:
        found = json.loads(said.splitlines()[-1]) if code == 0 else None
    except (ValueError, IndexError):
        found = None
    if code == 127:  # docker's own words are a line of what runs in what
        raise ImageError(
            f"found no python3 in the image {called(image)}, expected an image with Ray in it. Name another in "
            "onprem_llm_site.ray.image: one of rayproject/ray-llm, or your own (docs/images.md). Nothing was started."
        )
    if not isinstance(found, dict):
        raise ImageError(
            f"the image {called(image)} could not be asked for its Ray: docker run ended with {code}: {said[-300:]} "
            "Expected an image with python3 and Ray in it: onprem_llm_site.ray.image"
        )
    return found


def called(image):
    """Return a tag of an image, which a person knows rather than its id."""
    code, said = docker("image", "inspect", "--format", '{{join .RepoTags " "}}', image)
    return said.split()[0] if code == 0 and said.split() else image


def spelled(found):
    """Return `Python 3.11.2, Ray 2.60.0, vLLM 0.29.0`."""
    return ", ".join(f"{NAMES[name]} {found.get(name) or '(none)'}" for name in NAMES)


def main():
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={"image": {"type": "str", "required": True}, "standing": {"type": "str"}},
        supports_check_mode=True,
    )
    standing = module.params["standing"]
    try:
        found = versions(module.params["image"])
        before = asked(standing) if standing else None
    except (ImageError, OSError, subprocess.SubprocessError) as error:
        module.fail_json(msg=f"ray_image: {error}")
    seen = {"ray_image": {"versions": found, "standing": before}}
    module.exit_json(
        changed=False, versions=found, said=spelled(found), name=called(module.params["image"]), onprem_llm=seen
    )


if __name__ == "__main__":
    main()
