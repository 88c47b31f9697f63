# SPDX-License-Identifier: Apache-2.0
"""Which keys a file of OpenPGP's has: hosts have no gpg that could be counted on. Pure."""

from __future__ import annotations

import base64
import hashlib
import re
from typing import Iterator

ARMOR = re.compile(r"-----BEGIN PGP PUBLIC KEY BLOCK-----(.*?)-----END PGP PUBLIC KEY BLOCK-----", re.DOTALL)
PUBLIC_KEY = 6  # OpenPGP's number of such a packet


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
