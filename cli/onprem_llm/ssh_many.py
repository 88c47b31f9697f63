"""Programs on many hosts at once, each with output that streams: for `top`, and for `logs --follow`."""

import os
import selectors
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import IO, Final, Self

from onprem_llm.errors import OnpremError
from onprem_llm.ssh import Route, failure, started

END_SECONDS: Final = 3  # for all of them together; a host that is dead must not hold us


@dataclass(frozen=True, slots=True)
class Piece:
    """What came from a program: some bytes, or its end, with the error where it failed."""

    name: str
    data: bytes = b""
    ended: bool = False
    error: OnpremError | None = None


@dataclass(frozen=True, slots=True)
class _Program:
    name: str
    route: Route
    argv: Sequence[str]
    process: subprocess.Popen[bytes]
    errors: IO[bytes]
    stack: ExitStack


class Streams:
    """A set of running programs. Leaving it ends them all, over there too. One that fails does not touch the others."""

    def __init__(self) -> None:
        """Begin with none."""
        self._selector = selectors.DefaultSelector()
        self._programs: dict[str, _Program] = {}

    def start(self, name: str, route: Route, argv: Sequence[str], *, stdin: bytes = b"") -> None:
        """Start `argv` as root on a host; its pieces carry `name`."""
        stack = ExitStack()
        process, errors = stack.enter_context(_opened(route, argv, stdin))
        program = _Program(name, route, argv, process, errors, stack)
        self._programs[name] = program
        self._selector.register(_output(process), selectors.EVENT_READ, program)

    @property
    def running(self) -> bool:
        """Tell whether a program is left."""
        return bool(self._programs)

    def read(self, seconds: float | None = None) -> list[Piece]:
        """Return what has come; waits for it, `seconds` at most."""
        if not self._programs and seconds is not None:
            time.sleep(seconds)
        return [self._piece(key.data) for key, _ in self._selector.select(seconds)] if self._programs else []

    def _piece(self, program: _Program) -> Piece:
        data = os.read(_output(program.process).fileno(), 65536)
        if data:
            return Piece(program.name, data)
        self._selector.unregister(_output(program.process))
        del self._programs[program.name]
        with program.stack:
            code = program.process.wait()
            program.errors.seek(0)
            said = program.errors.read().decode(errors="replace").strip()
        error = failure(program.route, program.argv, code, said) if code else None
        return Piece(program.name, ended=True, error=error)

    def __enter__(self) -> Self:
        """Nothing to prepare."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End all programs: their stdin first, which ends them over there, then whatever is left here."""
        deadline = time.monotonic() + END_SECONDS
        for program in self._programs.values():
            _close_stdin(program.process)
        for program in self._programs.values():
            try:
                program.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                program.process.terminate()
            program.stack.close()
        self._programs.clear()
        self._selector.close()


@contextmanager
def _opened(route: Route, argv: Sequence[str], stdin: bytes) -> Iterator[tuple[subprocess.Popen[bytes], IO[bytes]]]:
    with tempfile.TemporaryFile() as errors, started(route, argv, stdin, errors) as process:
        yield process, errors


def _output(process: subprocess.Popen[bytes]) -> IO[bytes]:
    if process.stdout is None:
        raise AssertionError("stdout is a pipe")
    return process.stdout


def _close_stdin(process: subprocess.Popen[bytes]) -> None:
    try:
        if process.stdin:
            process.stdin.close()
    except BrokenPipeError:
        return


class Lines:
    """Cuts what comes in pieces into whole lines."""

    def __init__(self) -> None:
        """Begin with an empty line."""
        self._rest = b""

    def add(self, data: bytes) -> list[bytes]:
        """Return the lines that are whole now, without their ends."""
        *whole, self._rest = (self._rest + data).split(b"\n")
        return whole

    def end(self) -> list[bytes]:
        """Return what is left: the last line of a program that wrote no newline."""
        rest, self._rest = self._rest, b""
        return [rest] if rest else []
