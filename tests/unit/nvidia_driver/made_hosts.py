"""Hosts as the role's facts say them, for tests."""

from typing import Any

T4, L4, A100, H100, GH200, B200, RTX5090, GB10, V100, P40, M60, K80 = (
    0x1EB8, 0x27B8, 0x20B0, 0x2330, 0x2342, 0x2901, 0x2B85, 0x2E12, 0x1DB1, 0x1B38, 0x13F2, 0x102D,
)  # fmt: skip
RUNNING, NEWEST = "6.12.48+deb13-amd64", "6.12.117+deb13-amd64"

BARE: dict[str, Any] = {
    "os": "debian", "version": "13", "codename": "trixie", "machine": "x86_64", "gpus": [], "switches": 0,
    "running": RUNNING, "newest": NEWEST, "headers": [], "built": {}, "loaded": None, "nouveau": False,
    "secure_boot": False,
}  # fmt: skip
STATE: dict[str, Any] = {
    "installed": {}, "there": [], "held": False, "stream": None, "nouveau_blocked": False, "enabled": {},
    "key": "/var/lib/dkms/mok.pub", "enrolled": False,
}  # fmt: skip
