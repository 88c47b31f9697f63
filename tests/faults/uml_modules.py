"""Load kernel modules where there is no kmod: python3 uml_modules.py MODULE.ko..."""

import ctypes
import os
import sys

# finit_module(2) on x86_64; user mode Linux is that.
FINIT_MODULE = 313

kernel = ctypes.CDLL(None, use_errno=True)
for path in sys.argv[1:]:
    with open(path, "rb") as module:  # noqa: PTH123 - as small as can be
        if kernel.syscall(FINIT_MODULE, module.fileno(), b"", 0):
            sys.exit(f"{path}: {os.strerror(ctypes.get_errno())}")
