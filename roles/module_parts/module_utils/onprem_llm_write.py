# SPDX-License-Identifier: Apache-2.0
"""Writing a file in one piece."""

import contextlib
import os
import tempfile
from pathlib import Path


def put(path, content, mode=0o600):
    """Write text or bytes to `path`, whose folder is there; a reader sees the old file or the new one.

    It is flushed to the disk before it takes its place, and never open to more than `mode` says. Where that fails the
    old file stays, nothing is left beside it, and OSError says why.
    """
    descriptor, temporary = tempfile.mkstemp(prefix=".new-", dir=str(Path(path).parent))  # 0600 from the start
    try:
        with os.fdopen(descriptor, "wb") as handle:
            handle.write(content if isinstance(content, bytes) else content.encode("utf-8"))
            handle.flush()
            os.fsync(handle.fileno())
        Path(temporary).chmod(mode)
        Path(temporary).replace(path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            Path(temporary).unlink()
