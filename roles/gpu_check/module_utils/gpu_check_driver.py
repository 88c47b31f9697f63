# SPDX-License-Identifier: Apache-2.0
"""What there is of a driver: what is loaded, what is built for this kernel, what may keep it from loading."""

from __future__ import annotations

import platform
import re
from pathlib import Path
from typing import Any

from ansible.module_utils.gpu_check_bus import text_of

# The firmware's variable: four bytes of attributes, then 1 where Secure Boot is on.
SECURE_BOOT = "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
# Debian names its builds nvidia-current.ko.
MODULE = re.compile(r"/nvidia(-current(-open)?)?\.ko(\.(xz|zst|gz))?:")
VERSION = re.compile(r"\b(\d{3}\.\d+(?:\.\d+)?)\b")
MAKE_ERROR = re.compile(r"error:|\*\*\*|No such file", re.IGNORECASE)
OTHER_DRIVERS = ("nouveau", "nova_core")


def state(root: Path = Path("/"), kernel: str | None = None) -> dict[str, Any]:
    """Return the module that is loaded and what is known of one that is not; `dkms` lists the trees of NVIDIA's."""
    kernel = kernel or platform.release()
    loaded = text_of(root / "proc/driver/nvidia/version")
    modules = root / "lib/modules" / kernel
    version = VERSION.search(loaded)
    return {
        "kernel": kernel,
        "loaded": version.group(1) if version else None,
        "open": "Open Kernel Module" in loaded if loaded else None,
        "built": MODULE.search("/" + text_of(modules / "modules.dep")) is not None,
        "headers": (modules / "build").exists(),
        "secure_boot": _secure_boot(root / SECURE_BOOT),
        "others": [name for name in OTHER_DRIVERS if (root / "sys/module" / name).is_dir()],
        "dkms": [_tree(path, kernel) for path in sorted((root / "var/lib/dkms").glob("nvidia*/*")) if _is_tree(path)],
    }


def _secure_boot(variable: Path) -> bool | None:
    """Say whether Secure Boot is on; None on machines without UEFI."""
    try:
        return variable.read_bytes()[-1:] == b"\x01"
    except OSError:
        return None


def _is_tree(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink() and VERSION.fullmatch(path.name) is not None


def _tree(path: Path, kernel: str) -> dict[str, Any]:
    """Return name, version, whether it is built for `kernel`, and the first error of its last build."""
    built = (path / kernel).is_dir()
    wrong = [line for line in text_of(path / "build/make.log").splitlines() if MAKE_ERROR.search(line)]
    error = None if built or not wrong else wrong[0].strip()[:200]
    return {"name": path.parent.name, "version": path.name, "built": built, "error": error}
