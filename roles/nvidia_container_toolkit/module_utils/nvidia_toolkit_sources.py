# SPDX-License-Identifier: Apache-2.0
"""Where the toolkit's packages come from: NVIDIA's repository libnvidia-container, or a mirror of it, and its key."""

from __future__ import annotations

from pathlib import Path
from typing import Collection

from ansible.module_utils.onprem_llm_package_key import Key

APT_SOURCES = Path("/etc/apt/sources.list.d/onprem-llm-nvidia-container-toolkit.sources")
APT_KEY = Path("/etc/apt/keyrings/onprem-llm-nvidia-container-toolkit.asc")
DNF_REPOSITORY = Path("/etc/yum.repos.d/onprem-llm-nvidia-container-toolkit.repo")
DNF_KEY = Path("/etc/pki/rpm-gpg/RPM-GPG-KEY-onprem-llm-nvidia-container-toolkit")
KEY_FILE = "gpgkey"  # in the repository, beside stable/
MARK = "# Written by onprem-llm: where the NVIDIA Container Toolkit comes from"


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


def key(mirror: str, path: Path, known: Collection[str]) -> Key:
    """Return the repository's key; `known`: its fingerprints."""
    whose = "NVIDIA's repository libnvidia-container"
    return Key(f"{mirror}/{KEY_FILE}", path, whose, known, "nvidia_container_toolkit_fingerprints")
