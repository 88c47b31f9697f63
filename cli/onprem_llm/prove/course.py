"""The course of a rehearsal: its phases timed, their bytes counted, and what goes wrong in one written down as its own.

Hours may have passed by then: an error ends the course and never loses what was shown before it.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.client import HTTPException

from onprem_llm.errors import OnpremError
from onprem_llm.prove.proof import Kind, Phase, Proof

# What comes of files, networks and the reports of commands.
EXPECTED = (OnpremError, OSError, HTTPException, ValueError, LookupError)


class Course:
    """Writes phases into a proof. `received` says how many bytes have reached the hosts, None where nobody knows."""

    def __init__(self, proof: Proof, received: Callable[[], int | None], say: Callable[[str], None]) -> None:
        """Begin nothing yet."""
        self._proof, self._received, self._say = proof, received, say
        self.failed = False

    @contextmanager
    def phase(self, name: str, kind: Kind = "real", note: str | None = None) -> Iterator[Phase]:
        """Time a phase; an error ends it, and all that would come after."""
        phase = Phase(name, kind, note, began=datetime.now(UTC).isoformat(timespec="milliseconds"))
        self._proof.phases.append(phase)
        self._say(f"== {name}")
        began, before = time.monotonic(), self._received()
        try:
            yield phase
        except EXPECTED as error:
            self.failed = True
            phase.error = _words(error)
            self._say(f"   failed: {phase.error.partition(chr(10))[0]}")
        finally:
            phase.seconds = round(time.monotonic() - began, 1)
            if phase.bytes is None and before is not None and (after := self._received()) is not None:
                phase.bytes = max(after - before, 0)

    def untried(self, name: str, note: str) -> None:
        """Write down what was not tried, and why."""
        self._proof.phases.append(Phase(name, "not tried", note))


def _words(error: Exception) -> str:
    if isinstance(error, OnpremError):
        return "\n".join(part for part in (error.message, error.details) if part)
    if isinstance(error, LookupError):
        return f"the report of a command lacks {error}"
    return f"{type(error).__name__}: {error}"
