# SPDX-License-Identifier: Apache-2.0
"""What a registry's folder on a host has whole. Reads only: names, sizes, and small files."""

from __future__ import annotations

import json
from pathlib import Path

PROJECT = "registry"  # the project's folder
ROOT = Path("data", "docker", "registry", "v2")
LARGEST = 4 * 1024 * 1024  # bytes of a manifest


def stored(folder):
    """Return the digests of the images whose blobs are all there, sorted; sizes are compared, sums are not."""
    links = (folder / ROOT / "repositories").glob("**/_manifests/revisions/sha256/*/link")
    found = {link.parent.name for link in links}
    return sorted("sha256:" + sha256 for sha256 in found if _is_whole(folder, sha256))


def _is_whole(folder, sha256):
    try:
        manifest = _blob(folder, sha256)
        if manifest.stat().st_size > LARGEST:
            return False
        content = json.loads(manifest.read_bytes().decode("utf-8"))
        parts = [(part["digest"].partition(":")[2], part["size"]) for part in (content["config"], *content["layers"])]
        return all(_blob(folder, name).stat().st_size == size for name, size in parts)
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return False


def _blob(folder, sha256):
    return folder / ROOT / "blobs" / "sha256" / sha256[:2] / sha256 / "data"
