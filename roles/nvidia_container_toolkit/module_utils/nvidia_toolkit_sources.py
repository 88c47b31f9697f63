# SPDX-License-Identifier: Apache-2.0
"""Where the toolkit's packages come from: NVIDIA's repository libnvidia-container, or a mirror of it, and its key."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import urllib.request
from pathlib import Path

from ansible.module_utils.onprem_llm_apt_get import PackageError
from ansible.module_utils.onprem_llm_write import put

APT_SOURCES = Path("/etc/apt/sources.list.d/onprem-llm-nvidia-container-toolkit.sources")
APT_KEY = Path("/etc/apt/keyrings/onprem-llm-nvidia-container-toolkit.asc")
DNF_REPOSITORY = Path("/etc/yum.repos.d/onprem-llm-nvidia-container-toolkit.repo")
DNF_KEY = Path("/etc/pki/rpm-gpg/RPM-GPG-KEY-onprem-llm-nvidia-container-toolkit")
KEY_FILE = "gpgkey"  # in the repository, beside stable/
MARK = "# Written by onprem-llm: where the NVIDIA Container Toolkit comes from"
ARMOR = re.compile(r"-----BEGIN PGP PUBLIC KEY BLOCK-----(.*?)-----END PGP PUBLIC KEY BLOCK-----", re.DOTALL)
LARGEST = 1 << 20  # bytes of a key; more is something else
PUBLIC_KEY = 6  # OpenPGP's number of such a packet


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


def fetch_key(mirror: str, path: Path, fingerprints: list[str]) -> None:
    """Fetch the repository's key where the host has none. The fingerprint says that it is the one. PackageError."""
    if path.exists():
        return
    address = f"{mirror}/{KEY_FILE}"
    remedy = f"Put the key of NVIDIA's repository libnvidia-container at {path} on the host, then run bootstrap again."
    try:
        # Whichever way it came, a fingerprint is expected of it below; a mirror may be a folder.
        with urllib.request.urlopen(address, timeout=60) as answer:  # noqa: S310
            data = answer.read(LARGEST)
    except (OSError, ValueError) as error:
        raise PackageError(f"found no key at {address} ({error}), expected that of the repository. {remedy}") from error
    found = fingerprint(data)
    if found not in [one.replace(" ", "").upper() for one in fingerprints]:
        raise PackageError(
            f"found the key {found or '(none that can be read)'} at {address}, expected {' or '.join(fingerprints)}: "
            f"whoever holds that other key could install anything. Correct the mirror. {remedy}"
        )
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    put(path, data, 0o644)


def fingerprint(data: bytes) -> str:
    """Return the fingerprint of the first key in a file, armored or not; empty where there is none.

    Version 4 (RFC 4880, 12.2): SHA-1 over 0x99, the packet's length in two bytes, and the packet.
    """
    match = ARMOR.search(data.decode("latin-1"))
    if match:
        # Headers end at an empty line; a checksum begins with =.
        lines = match.group(1).replace("\r", "").partition("\n\n")[2].splitlines()
        try:
            data = base64.b64decode("".join(line for line in lines if not line.startswith("=")))
        except binascii.Error:
            return ""
    body = _first_packet(data)
    if body[:1] != b"\x04":
        return ""
    packet = b"\x99" + len(body).to_bytes(2, "big") + body
    return hashlib.sha1(packet).hexdigest().upper()  # noqa: S324 - what such a fingerprint is


def _first_packet(data: bytes) -> bytes:
    """Return the body of a file's first packet, where that is a public key."""
    if len(data) < 4 or not data[0] & 0x80:
        return b""
    if data[0] & 0x40:  # the new format
        number, first = data[0] & 0x3F, data[1]
        if first < 192:
            start, size = 2, first
        elif first < 224:
            start, size = 3, ((first - 192) << 8) + data[2] + 192
        else:
            start, size = 6, int.from_bytes(data[2:6], "big")
    else:
        number, width = (data[0] >> 2) & 0xF, (1, 2, 4, 0)[data[0] & 3]
        start, size = 1 + width, int.from_bytes(data[1 : 1 + width], "big")
    return data[start : start + size] if number == PUBLIC_KEY else b""
