#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""The storage of the site's own registry: which blobs are here, and the small files that say what a repository has."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.onprem_llm_sums import below, is_right, make_between
from ansible.module_utils.onprem_llm_write import put

DOCUMENTATION = r"""
module: registry_store
short_description: The storage of docker-registry, filled without a push
description:
  - C(look) says which blobs are missing or not as their names say. C(linked) writes the files that name them, once all
    blobs are there. Images that are no longer named stay, but for C(kept), which removes all others than O(keep), first
    what names them.
options:
  state:
    description: What to do.
    type: str
    choices: [look, linked, kept]
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
  keep:
    description: Digests of the images that stay, for C(kept).
    type: list
    elements: str
    default: []
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

ROOT = "docker/registry/v2"
BLOBS = f"{ROOT}/blobs/sha256"
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


def content_of(folder, digest):
    """Return the sums of an image's blobs, its manifest's with them; None where that is not what its name says."""
    sha256 = digest.partition(":")[2]
    try:
        data = (folder / BLOBS / sha256[:2] / sha256 / "data").read_bytes()
        if hashlib.sha256(data).hexdigest() != sha256:
            return None
        manifest = json.loads(data.decode("utf-8"))
        parts = [part["digest"].partition(":")[2] for part in (manifest["config"], *manifest["layers"])]
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None
    return {sha256, *parts}


def links_of(folder):
    """Return (path, kind, repository, digest) of every file that names a blob."""
    found = []
    for path in sorted((folder / ROOT / "repositories").glob("**/link")):
        kind = "_layers" if "_layers" in path.parts else "_manifests"
        digest = path.read_bytes().decode("ascii", "replace")
        found.append((path, kind, str(path).partition(f"/{kind}/")[0], digest))
    return found


def others(folder, keep):
    """Return (files that name what is not of the images to keep, folders of blobs that only others have).

    What a kept image has is unknown where its manifest is damaged: all that its repository names stays, so that the
    manifest alone has to come again.
    """
    wrong = sorted(digest for digest in keep if not DIGEST.match(digest))
    if wrong:
        raise ValueError(f"keep: found {wrong[0]!r}, expected sha256: and 64 hex digits")
    links, content, unknown = links_of(folder), {}, set()
    for _, kind, repository, digest in links:
        if kind == "_manifests" and digest in keep:
            parts = content_of(folder, digest)
            if parts is None:
                unknown.add(repository)
            content.setdefault(repository, set()).update(parts or {digest.partition(":")[2]})
    for _, kind, repository, digest in links:
        if kind == "_layers" and repository in unknown:
            content[repository].add(digest.partition(":")[2])
    going = [
        path
        for path, kind, repository, digest in links
        if (kind == "_manifests" and digest not in keep)
        or (kind == "_layers" and digest.partition(":")[2] not in content.get(repository, ()))
    ]
    whole = set().union(*content.values())
    return going, [blob for blob in sorted((folder / BLOBS).glob("*/*")) if blob.name not in whole]


def keep_only(folder, keep, check_mode):
    """Remove all images but those; return whether there was anything to remove."""
    links, blobs = others(folder, keep)
    if not check_mode:
        for link in links:
            link.unlink()
            remove_empty(link.parent, folder / ROOT)
        # After what names them: nothing is served that is not whole.
        for blob in blobs:
            shutil.rmtree(str(blob))
            remove_empty(blob.parent, folder / ROOT)
    return bool(links or blobs)


def remove_empty(path, top):
    """Remove a folder and those above it that are left empty, below `top`."""
    while path != top and not any(path.iterdir()):
        path.rmdir()
        path = path.parent


def main():
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["look", "linked", "kept"], "required": True},
            "path": {"type": "path", "required": True},
            "source": {"type": "path"},
            "files": {"type": "list", "elements": "dict", "default": []},
            "links": {"type": "dict", "default": {}},
            "keep": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    options = module.params
    folder = Path(options["path"])
    try:
        if options["state"] == "look":
            answer = {"changed": False, "folders": look(folder, options)}
        elif options["state"] == "kept":
            answer = {"changed": keep_only(folder, set(options["keep"]), module.check_mode)}
        else:
            answer = {"changed": link(folder, options["links"], module.check_mode)}
    except (OSError, ValueError) as error:
        module.fail_json(msg=f"registry in {folder}: {error}", invocation={})
        return
    module.exit_json(invocation={}, **answer)


if __name__ == "__main__":
    main()
