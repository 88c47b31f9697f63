"""A few things at a time, and an end at once: what is in flight dies with the process, as it must be able to anyway."""

from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from threading import Event, Thread

Job = Callable[[], object]


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
