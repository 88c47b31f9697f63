"""A command as a part of a rehearsal: it ends when its rehearsal is killed, and the next one can wait for its end.

Otherwise it would go on by itself, and work on the hosts or in the folder of the rehearsal that comes next.
"""

import ctypes
import fcntl
import os
import signal
import sys
from pathlib import Path
from typing import TextIO

from onprem_llm.errors import ExitCode

# In the environment: the rehearsal's process.
PARENT = "ONPREM_LLM_REHEARSAL"
# In the folder that commands run in; who holds it is at work.
LOCK = "command.lock"
SET_PARENT_DEATH_SIGNAL = 1  # prctl(2)

_held: list[TextIO] = []


def begin() -> None:
    """Bind this process to its rehearsal, as the first thing that it does."""
    # Its rehearsal ends it so. In the background of a script a shell has it ignored, in all that is started there.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # As a stop by systemd: what was begun is put in order. It is Linux's, as rehearsals are.
    ctypes.CDLL(None).prctl(SET_PARENT_DEATH_SIGNAL, signal.SIGTERM)
    if os.getppid() != int(os.environ[PARENT]):  # it was killed before the line above
        sys.exit(ExitCode.INTERRUPTED)
    # Children do not get it (PEP 446): a shared ssh connection stays for a while, and is nobody's work.
    stream = Path(LOCK).open("w", encoding="utf-8")  # noqa: SIM115 - held until the process ends
    fcntl.flock(stream, fcntl.LOCK_SH)
    _held.append(stream)
