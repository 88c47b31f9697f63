"""A few things at a time, told as one line of progress, and an end at once.

What is in flight dies with the process, as it must be able to anyway.
"""

import threading
import time
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from threading import Event, Thread

from onprem_llm.output import Progress

Job = Callable[[], object]
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


def run_all(jobs: Sequence[Job], workers: int, stop: Event) -> None:
    """Run the jobs on `workers` threads; the first error, or Ctrl-C, stops the others and is raised."""
    waiting: SimpleQueue[Job] = SimpleQueue()
    ended: SimpleQueue[BaseException | None] = SimpleQueue()
    for job in jobs:
        waiting.put(job)

    # Daemons: one that waits on a silent connection must not keep a person's Ctrl-C waiting.
    threads = [Thread(target=_work, args=(waiting, ended, stop), daemon=True) for _ in range(min(workers, len(jobs)))]
    for thread in threads:
        thread.start()
    try:
        for _ in jobs:
            error = ended.get()
            if error is not None:
                raise error
    except BaseException:
        stop.set()
        for thread in threads:
            thread.join(timeout=2)
        raise


def _work(waiting: "SimpleQueue[Job]", ended: "SimpleQueue[BaseException | None]", stop: Event) -> None:
    while not stop.is_set():
        try:
            job = waiting.get_nowait()
        except Empty:
            return
        try:
            job()
            ended.put(None)
        except BaseException as error:
            # Raised again where somebody can act on it.
            ended.put(error)
            return
