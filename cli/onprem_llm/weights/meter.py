"""Bytes of many files at once, told as one line of progress."""

import threading
import time

from onprem_llm.output import Progress

# Often enough to look alive; a terminal does not draw more.
EVERY = 0.2


class Meter:
    """Adds up what threads report, and tells the progress now and then."""

    def __init__(self, progress: Progress, label: str, total: int, done: int = 0) -> None:
        """Begin with what an earlier run has fetched."""
        self._progress, self._label, self._total, self._done = progress, label, total, done
        self._lock = threading.Lock()
        self._told = 0.0
        self.fetched = 0

    def moved(self, count: int) -> None:
        """Hear of bytes that came; fewer than none where some were thrown away."""
        with self._lock:
            self._done += count
            self.fetched += max(0, count)
            now = time.monotonic()
            if now - self._told >= EVERY:
                self._told = now
                self._progress.bytes(self._label, self._done, self._total)
