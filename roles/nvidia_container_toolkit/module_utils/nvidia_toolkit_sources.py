# SPDX-License-Identifier: Apache-2.0
"""Where the toolkit's packages come from: NVIDIA's repository libnvidia-container, or a mirror of it, and its key."""

from __future__ import annotations

import base64
import hashlib
import re
import urllib.request
from pathlib import Path
from typing import Iterator

from ansible.module_utils.onprem_llm_apt_get import PackageError
from ansible.module_utils.onprem_llm_write import put

APT_SOURCES = Path("/etc/apt/sources.list.d/onprem-llm-nvidia-container-toolkit.sources")
APT_KEY = Path("/etc/apt/keyrings/onprem-llm-nvidia-container-toolkit.asc")
DNF_REPOSITORY = Path("/etc/yum.repos.d/onprem-llm-nvidia-container-toolkit.repo")
DNF_KEY = Path("/etc/pki/rpm-gpg/RPM-GPG-KEY-onprem-llm-nvidia-container-toolkit")
KEY_FILE = "gpgkey"  # in the repository, beside stable/
MARK = "# Written by onprem-llm: where the NVIDIA Container Toolkit comes from"
ARMOR = re.compile(r"-----BEGIN PGP PUBLIC KEY BLOCK-----(.*?)-----END PGP PUBLIC KEY BLOCK-----", re.DOTALL)
OWN = (
    "Packages that the site signs itself: configure their repository on the host, and name no mirror "
    "(onprem_llm_site.package_mirrors.nvidia_container_toolkit)"
)
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


def fingerprints(data: bytes) -> list[str]:
    """Return the fingerprints of all keys in a file, armored or not; none where a part of it cannot be read.

    Version 4 (RFC 4880, 12.2): SHA-1 over 0x99, the packet's length in two bytes, and the packet.
    """
    text = data.decode("latin-1")
    blocks = ARMOR.findall(text)
    # What is beside armor could be another key to whoever reads on.
    if blocks and ARMOR.sub("", text).strip():
        return []
    try:
        parts = [_plain(block) for block in blocks] or [data]
        bodies = [body for part in parts for number, body in _packets(part) if number == PUBLIC_KEY]
    except (ValueError, IndexError):
        return []
    if any(body[:1] != b"\x04" for body in bodies):
        return []
    packets = [b"\x99" + len(body).to_bytes(2, "big") + body for body in bodies]
    return [hashlib.sha1(one).hexdigest().upper() for one in packets]  # noqa: S324 - what such a fingerprint is


def _plain(block: str) -> bytes:
    """Return what armor holds. ValueError."""
    # Headers end at an empty line; a checksum begins with =.
    lines = block.replace("\r", "").partition("\n\n")[2].splitlines()
    return base64.b64decode("".join(one.strip() for one in lines if not one.startswith("=")), validate=True)


def _packets(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Go through a file's packets: number and body. ValueError, IndexError for what is none, or cut off."""
    while data:
        first = data[0]
        if not first & 0x80:
            raise ValueError("no packet")
        number, start, size = _new(data) if first & 0x40 else _old(data)
        if size < 0 or len(data) < start + size:
            raise ValueError("a packet that is cut off")
        yield number, data[start : start + size]
        data = data[start + size :]


def _new(data: bytes) -> tuple[int, int, int]:
    """Return a packet's number, and where in the data its body is; a length in parts is not for keys."""
    number, first = data[0] & 0x3F, data[1]
    if first < 192:
        return number, 2, first
    if first < 224:
        return number, 3, ((first - 192) << 8) + data[2] + 192
    return number, 6, int.from_bytes(data[2:6], "big") if first == 255 else -1


def _old(data: bytes) -> tuple[int, int, int]:
    """As `_new`, for packets in the old format; one of an unknown length is not for keys."""
    number, kind = (data[0] >> 2) & 0xF, data[0] & 3
    width = (1, 2, 4, 0)[kind]
    return number, 1 + width, int.from_bytes(data[1 : 1 + width], "big") if width else -1
