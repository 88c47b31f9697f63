"""onprem-llm as a person runs it: each step of the rehearsal is a command line, none a function of ours."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from onprem_llm.errors import OnpremError
from onprem_llm.prove import vault_passwords, within

PROGRAM = [
    sys.executable,
    "-c",
    "from onprem_llm.prove.within import begin; begin(); from onprem_llm.main import main; main()",
]
SHOWN = 15
# What a command that is stopped may take to put things in order.
STOP_S = 120
# The person's own habits, which are not the site's; of what names vaults' passwords, more is said there.
OURS = ("ONPREM_LLM_INVENTORY", "ANSIBLE_CONFIG", *vault_passwords.NAMES)


@dataclass(frozen=True)
class Ended:
    """A command that succeeded: what it printed."""

    words: tuple[str, ...]
    stdout: str

    @property
    def json(self) -> Any:
        """Return its --json document."""
        return json.loads(self.stdout)


class Tool:
    """Runs onprem-llm in a folder; what it says of its progress goes to `say`, a line at a time."""

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        """Run commands in `folder`."""
        self._folder, self._say = folder, say

    def __call__(self, *words: str) -> Ended:
        """Run a command; OnpremError where it fails, with its own last words."""
        environment = {key: value for key, value in os.environ.items() if key not in OURS}
        environment |= {**vault_passwords.taken(os.environ, Path.cwd()), within.PARENT: str(os.getpid())}
        # A group of its own: a Ctrl-C comes to it from us, once.
        with subprocess.Popen(
            [*PROGRAM, *words], cwd=self._folder, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, encoding="utf-8", errors="replace", start_new_session=True,
        ) as child:  # fmt: skip
            try:  # from its first moment on: `with` alone would let go of it after a quarter of a second
                last: deque[str] = deque(maxlen=SHOWN)
                reader = threading.Thread(target=self._pass_on, args=(child.stderr, last), daemon=True)
                reader.start()
                stdout = child.stdout.read() if child.stdout else ""
                code = child.wait()
            except BaseException:
                _stop(child)
                raise
            reader.join(10)
        if code:
            raise OnpremError(f"onprem-llm {' '.join(words)}: exit code {code}", details="\n".join(last))
        return Ended(words, stdout)

    def _pass_on(self, stream: IO[str] | None, last: deque[str]) -> None:
        for line in stream or ():
            last.append(line.rstrip("\n"))
            self._say(line.rstrip("\n"))


def _stop(child: subprocess.Popen[str]) -> None:
    """End a command as Ctrl-C does, and wait until it has put things in order."""
    for number, seconds in ((signal.SIGINT, STOP_S), (signal.SIGKILL, 10)):
        if child.poll() is not None:
            return
        child.send_signal(number)
        try:
            child.wait(seconds)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            continue
