# SPDX-License-Identifier: Apache-2.0
"""What a registry's folder on a host has whole, and what of no image at all. Reads only: names, sizes, small files."""

from __future__ import annotations

import json
import os
from pathlib import Path

PROJECT = "registry"  # the project's folder
ROOT = Path("data", "docker", "registry", "v2")
LARGEST = 4 * 1024 * 1024  # bytes of a manifest
RUN = Path("/run")
# A chain's folder and its unit: blobs come first, and are named when all are there.
AT_WORK = ("onprem-llm-fan-out-*", "systemd/transient/onprem-llm-fan-out-*")


def stored(folder):
    """Return the digests of the images whose blobs are all there, sorted; sizes are compared, sums are not."""
    links = (folder / ROOT / "repositories").glob("**/_manifests/revisions/sha256/*/link")
    found = {link.parent.name for link in links}
    return sorted("sha256:" + sha256 for sha256 in found if _is_whole(folder, sha256))


def strays(folder):
    """Return the bytes on the disk of blobs that no image here has; 0 while hosts pass one on.

    A chain that was cut off leaves them, whole or in part. What remains is what `registry_store` takes for no image's.
    """
    if any(path for pattern in AT_WORK for path in RUN.glob(pattern)):
        return 0
    links = {link.parent.name for link in (folder / ROOT / "repositories").glob("**/link")}
    named = links | {name for sha256 in links for name, _ in _parts(folder, sha256) or ()}
    blobs = (folder / ROOT / "blobs" / "sha256").glob("*/*")
    return sum(_taken(blob) for blob in blobs if blob.name not in named)


def _taken(blob):
    """Return what a blob's folder takes of the disk; a file that grows is as long as it will be."""
    try:
        with os.scandir(str(blob)) as files:
            return sum(file.stat(follow_symlinks=False).st_blocks * 512 for file in files)
    except OSError:  # it is gone, or is none
        return 0


def _is_whole(folder, sha256):
    parts = _parts(folder, sha256)
    try:
        return parts is not None and all(_blob(folder, name).stat().st_size == size for name, size in parts)
    except OSError:
        return False


def _parts(folder, sha256):
    """Return (sha256, size) of what a manifest names; None where it is not there, or is no image's manifest."""
    try:
        manifest = _blob(folder, sha256)
        if manifest.stat().st_size > LARGEST:
            return None
        content = json.loads(manifest.read_bytes().decode("utf-8"))
        return [(part["digest"].partition(":")[2], part["size"]) for part in (content["config"], *content["layers"])]
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None


def _blob(folder, sha256):
    return folder / ROOT / "blobs" / "sha256" / sha256[:2] / sha256 / "data"
