# SPDX-License-Identifier: Apache-2.0
"""Where the driver's packages come from: sources beside those that the host has, and whose keys. Pure."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Collection, Mapping

from ansible.module_utils import onprem_llm_apt as apt
from ansible.module_utils.nvidia_driver_packages import RHEL_FAMILY
from ansible.module_utils.onprem_llm_package_key import Key

APT_SOURCES = Path("/etc/apt/sources.list.d/onprem-llm-nvidia.sources")
DNF_REPOSITORY = Path("/etc/yum.repos.d/onprem-llm-nvidia.repo")
CUDA_KEY = Path("/etc/apt/keyrings/onprem-llm-cuda.asc")
DNF_KEY = Path("/etc/pki/rpm-gpg/RPM-GPG-KEY-onprem-llm-cuda")
MARK = "# Written by onprem-llm: where NVIDIA's driver comes from"
# Components that Debian and Ubuntu keep the driver in, apart from main.
COMPONENTS = {"debian": ["contrib", "non-free", "non-free-firmware"], "ubuntu": ["restricted", "multiverse"]}
# File of the repository's public key in each tree of NVIDIA's repository, by how the tree begins: the longest fits.
KEYS = {"rhel": "D42D0685.pub", "ubuntu": "3bf863cc.pub", "debian": "3bf863cc.pub", "debian13": "8793F200.pub"}
TARGETS = "$(CREATED_BY)\t$(REPO_URI)\t$(RELEASE)\t$(COMPONENT)\t$(SOURCESENTRY)\t$(SIGNED_BY)"


def tree(facts: Mapping[str, Any]) -> str:
    """Return the folder of a system in NVIDIA's repository: ubuntu2404/x86_64, rhel9/sbsa."""
    name = "rhel" if facts["os"] in RHEL_FAMILY else facts["os"]
    version = facts["version"] if facts["os"] == "ubuntu" else facts["version"].partition(".")[0]
    return f"{name}{version.replace('.', '')}/{'sbsa' if facts['machine'] == 'aarch64' else 'x86_64'}"


def key_address(facts: Mapping[str, Any], mirror: str) -> str:
    """Return where the key of a system's folder in NVIDIA's repository is."""
    here = tree(facts)
    name = max((one for one in KEYS if here.startswith(one)), key=len)
    return f"{mirror}/{here}/{KEYS[name]}"


def apt_text(facts: Mapping[str, Any], mirrors: Mapping[str, str], targets: str) -> str:
    """Return the apt source, empty where none is wanted: the host's own have the driver's components already.

    `targets`: what `apt-get indextargets` says, a line each as TARGETS.
    """
    keyring = f"/usr/share/keyrings/{facts['os']}-archive-keyring.gpg"
    # main, too: kernels' headers are there.
    components, codename = " ".join(["main", *COMPONENTS[facts["os"]]]), facts["codename"]
    parts = []
    if facts["os"] in mirrors:
        suites = [codename, f"{codename}-updates", *([f"{codename}-security"] if facts["os"] == "ubuntu" else [])]
        parts.append(apt.paragraph(mirrors[facts["os"]], " ".join(suites), components, keyring))
        if "debian_security" in mirrors and facts["os"] == "debian":
            parts.append(apt.paragraph(mirrors["debian_security"], f"{codename}-security", components, keyring))
    elif "cuda" not in mirrors:
        parts += _beside(targets, facts, keyring)
    if "cuda" in mirrors:
        # A flat repository: its suite is a folder.
        parts.append(f"Types: deb\nURIs: {mirrors['cuda']}/{tree(facts)}/\nSuites: /\nSigned-By: {CUDA_KEY}")
    return "\n\n".join([MARK, *parts]) + "\n" if parts else ""


def _beside(targets: str, facts: Mapping[str, Any], keyring: str) -> list[str]:
    """Return the components that the host's own sources lack, at the places where they have main."""
    rows = [line.split("\t") for line in targets.splitlines() if line.startswith("Packages\t")]
    rows = [row for row in rows if len(row) == len(TARGETS.split("\t")) and str(APT_SOURCES) not in row[4]]
    known = {(row[1], row[2], row[3]) for row in rows}
    # Another release's or another maker's source has its own packages.
    found = {(row[1], row[2]): row[5] for row in rows if row[3] == "main" and row[2].split("-")[0] == facts["codename"]}
    parts = []
    for (address, suite), signed_by in sorted(found.items()):
        wanted = [one for one in COMPONENTS[facts["os"]] if (address, suite, one) not in known]
        if wanted:
            key = signed_by if signed_by.startswith("/") else keyring
            parts.append(apt.paragraph(address.rstrip("/"), suite, " ".join(wanted), key))
    return parts


def dnf_text(facts: Mapping[str, Any], mirrors: Mapping[str, str]) -> str:
    """Return the .repo file, empty where the site names no mirror of NVIDIA's repository.

    Its key is a file that was checked: dnf believes whatever an address gives it.
    """
    if "cuda" not in mirrors:
        return ""
    address = f"{mirrors['cuda']}/{tree(facts)}"
    return (
        f"{MARK}\n[onprem-llm-nvidia]\nname=NVIDIA\nbaseurl={address}\nenabled=1\ngpgcheck=1\ngpgkey=file://{DNF_KEY}\n"
    )


def key(facts: Mapping[str, Any], mirror: str, known: Collection[str]) -> Key:
    """Return the key of NVIDIA's repository; `known`: its fingerprints."""
    path = DNF_KEY if facts["os"] in RHEL_FAMILY else CUDA_KEY
    return Key(key_address(facts, mirror), path, "NVIDIA's repository", known, "nvidia_driver_fingerprints")
