"""The signals that end us: SIGINT (Ctrl-C), SIGTERM (systemd, `timeout`), SIGHUP (a closed terminal)."""

import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType

Handler = Callable[[int, FrameType | None], None] | signal.Handlers


def _nothing(signum: int, frame: FrameType | None) -> None:
    """Take a signal, and do nothing for it."""


class _Keep:
    """Takes a signal, and remembers that it came."""

    def __init__(self) -> None:
        self.came = threading.Event()

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        self.came.set()


STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# A terminal sends SIGINT and SIGHUP to what we start as well: that inherits SIG_IGN. SIGTERM must still end it: so
# programs are ended that hang.
UNHEARD: Mapping[signal.Signals, Handler] = {
    signal.SIGINT: signal.SIG_IGN,
    signal.SIGTERM: _nothing,
    signal.SIGHUP: signal.SIG_IGN,
}


@contextmanager
def noted_stops() -> Iterator[threading.Event]:
    """Turn them into an event: an exception in the midst of ansible-runner leaves its children alive."""
    stopped = threading.Event()

    def stop(signum: int, frame: FrameType | None) -> None:
        stopped.set()

    with _handled(dict.fromkeys(STOPS, stop)):
        yield stopped


@contextmanager
def kept_stops() -> Iterator[threading.Event]:
    """Keep them for afterwards, where they show in the event: what is done meanwhile must be whole, and notes none.

    For what starts its programs in sessions of their own, as ansible-runner does: a terminal's signals reach others.
    """
    keep = _Keep()
    with _handled(dict.fromkeys(STOPS, keep)):
        yield keep.came


@contextmanager
def no_stops() -> Iterator[None]:
    """Let none of them end what takes seconds and must be whole, the programs that it starts among it."""
    with _handled(UNHEARD):
        yield


@contextmanager
def _handled(handlers: Mapping[signal.Signals, Handler]) -> Iterator[None]:
    """Set them in the main thread, the only one that may, for the signals that are heard so far."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with _held_back(handlers):  # one that comes in between finds all set, or none
        before = {
            number: signal.signal(number, handler)
            for number, handler in handlers.items()
            if not _is_unheard(signal.getsignal(number))
        }
    try:
        yield
    finally:
        with _held_back(handlers):
            for number, was in before.items():
                signal.signal(number, was)


def _is_unheard(handler: object) -> bool:
    return handler in (signal.SIG_IGN, _nothing) or isinstance(handler, _Keep)


@contextmanager
def _held_back(numbers: Iterable[signal.Signals]) -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
