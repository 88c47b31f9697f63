"""Who does this, and on which machine: for the book, the lock, and the record of keys."""

import getpass
import os
import socket


def person() -> str:
    """Return name@machine."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # a user id without a name, as in many containers
        name = f"uid {os.getuid()}"
    return f"{name}@{socket.gethostname()}"
