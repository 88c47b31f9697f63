# SPDX-License-Identifier: Apache-2.0
"""Which keys a file of OpenPGP's has: hosts have no gpg that could be counted on. Pure."""

from __future__ import annotations

import base64
import hashlib
import re
from typing import Iterator

ARMOR = re.compile(r"-----BEGIN PGP PUBLIC KEY BLOCK-----(.*?)-----END PGP PUBLIC KEY BLOCK-----", re.DOTALL)
# OpenPGP's numbers of packets: a key, and what else a file of keys has (signatures, trust, names, subkeys, pictures).
PUBLIC_KEY = 6
BESIDE = (2, 12, 13, 14, 17)
HEADER = re.compile(r"[A-Za-z][A-Za-z-]*:.*")


def fingerprints(data: bytes) -> list[str]:
    """Return the fingerprints of all keys in a file, armored or not; none where a part of it cannot be read.

    Whoever reads the file after us may be more lenient, and find keys in what we could not read.

    Version 4 (RFC 4880, 12.2): SHA-1 over 0x99, the packet's length in two bytes, and the packet.
    """
    text = data.decode("latin-1")
    blocks = ARMOR.findall(text)
    # What is beside armor could be another key to whoever reads on.
    if blocks and ARMOR.sub("", text).strip():
        return []
    try:
        parts = [_plain(block) for block in blocks] or [data]
        packets = [packet for part in parts for packet in _packets(part)]
    except (ValueError, IndexError):
        return []
    bodies = [body for number, body in packets if number == PUBLIC_KEY]
    # Another key may be packed in a packet of another kind: compressed, for one.
    if any(number not in (PUBLIC_KEY, *BESIDE) for number, _ in packets) or any(one[:1] != b"\x04" for one in bodies):
        return []
    hashed = [b"\x99" + len(body).to_bytes(2, "big") + body for body in bodies]
    return [hashlib.sha1(one).hexdigest().upper() for one in hashed]  # noqa: S324 - what such a fingerprint is


def _plain(block: str) -> bytes:
    """Return what armor holds. ValueError."""
    # Headers end at an empty line (to some also at one of blanks); a checksum begins with =.
    headers, _, rest = block.replace("\r", "").partition("\n\n")
    if not all(HEADER.fullmatch(line) for line in headers.split("\n")[1:]):
        raise ValueError("headers that are none")
    lines = rest.split("\n")
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
