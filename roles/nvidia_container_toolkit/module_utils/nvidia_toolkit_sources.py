# SPDX-License-Identifier: Apache-2.0
"""Where the toolkit's packages come from: NVIDIA's repository libnvidia-container, or a mirror of it, and its key."""

from __future__ import annotations

import urllib.request
from pathlib import Path

from ansible.module_utils.onprem_llm_apt_get import PackageError
from ansible.module_utils.onprem_llm_openpgp import fingerprints
from ansible.module_utils.onprem_llm_write import put

APT_SOURCES = Path("/etc/apt/sources.list.d/onprem-llm-nvidia-container-toolkit.sources")
APT_KEY = Path("/etc/apt/keyrings/onprem-llm-nvidia-container-toolkit.asc")
DNF_REPOSITORY = Path("/etc/yum.repos.d/onprem-llm-nvidia-container-toolkit.repo")
DNF_KEY = Path("/etc/pki/rpm-gpg/RPM-GPG-KEY-onprem-llm-nvidia-container-toolkit")
KEY_FILE = "gpgkey"  # in the repository, beside stable/
MARK = "# Written by onprem-llm: where the NVIDIA Container Toolkit comes from"
OWN = (
    "Packages that the site signs itself: configure their repository on the host, and name no mirror "
    "(onprem_llm_site.package_mirrors.nvidia_container_toolkit)"
)
LARGEST = 1 << 20  # bytes of a key; more is something else


def apt_text(mirror: str, machine: str) -> str:
    """Return the apt source: a flat repository for each architecture."""
    architecture = {"x86_64": "amd64", "aarch64": "arm64"}[machine]
    return f"{MARK}\nTypes: deb\nURIs: {mirror}/stable/deb/{architecture}/\nSuites: /\nSigned-By: {APT_KEY}\n"


def dnf_text(mirror: str) -> str:
    """Return the .repo file. NVIDIA signs the repository, which has its packages' sums, and not the packages."""
    return (
        f"{MARK}\n[onprem-llm-nvidia-container-toolkit]\nname=NVIDIA Container Toolkit\n"
        f"baseurl={mirror}/stable/rpm/$basearch\nenabled=1\ngpgcheck=0\nrepo_gpgcheck=1\ngpgkey=file://{DNF_KEY}\n"
    )


def fetch_key(mirror: str, path: Path, fingerprints_wanted: list[str]) -> None:
    """Fetch the repository's key where the host has none. Its fingerprint says that it is the one. PackageError.

    Every key of the file is looked at, whether it is fetched or there: apt and dnf trust them all.
    """
    if path.exists():
        _check(path.read_bytes(), str(path), fingerprints_wanted, "Remove it, and it is fetched anew. " + OWN)
        return
    address = f"{mirror}/{KEY_FILE}"
    remedy = f"Put the key of NVIDIA's repository libnvidia-container at {path} on the host, then run bootstrap again."
    try:
        # Whichever way it came, a fingerprint is expected of it below; a mirror may be a folder.
        with urllib.request.urlopen(address, timeout=60) as answer:  # noqa: S310
            data = answer.read(LARGEST)
    except (OSError, ValueError) as error:
        raise PackageError(f"found no key at {address} ({error}), expected that of the repository. {remedy}") from error
    _check(data, address, fingerprints_wanted, f"Correct the mirror. {OWN}")
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    put(path, data, 0o644)


def _check(data: bytes, place: str, wanted: list[str], remedy: str) -> None:
    found = fingerprints(data)
    if not found or not set(found) <= {one.replace(" ", "").upper() for one in wanted}:
        said = f"the key{'s' if len(found) > 1 else ''} {' and '.join(found) or '(none that can be read)'}"
        raise PackageError(
            f"found {said} at {place}, expected {' or '.join(wanted)} alone: whoever holds another key could install "
            f"anything. {remedy}"
        )
