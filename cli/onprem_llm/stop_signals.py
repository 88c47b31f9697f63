"""The signals that end us: SIGINT (Ctrl-C), SIGTERM (systemd, `timeout`), SIGHUP (a closed terminal)."""

import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType

Handler = Callable[[int, FrameType | None], None] | signal.Handlers


def _nothing(signum: int, frame: FrameType | None) -> None:
    """Take a signal, and do nothing for it."""


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

    with _handled(dict.fromkeys(UNHEARD, stop)):
        yield stopped


@contextmanager
def no_stops() -> Iterator[None]:
    """Let none of them end what takes seconds and must be whole: a second Ctrl-C comes while the first is obeyed."""
    with _handled(UNHEARD):
        yield


@contextmanager
def _handled(handlers: Mapping[signal.Signals, Handler]) -> Iterator[None]:
    """Set them in the main thread, the only one that may, for the signals that are heard so far."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {
        number: signal.signal(number, handler)
        for number, handler in handlers.items()
        if signal.getsignal(number) not in (signal.SIG_IGN, _nothing)
    }
    try:
        yield
    finally:
        for number, was in before.items():
            signal.signal(number, was)
