"""Tables, JSON, questions and progress: the only code that prints."""

import io
import json
import sys
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Protocol, Self, TextIO

import click

from onprem_llm.errors import DeclinedError, UsageError


def say(text: str = "") -> None:
    """Print a line for a person on stdout."""
    click.echo(text)


def note(text: str) -> None:
    """Print a line beside the result, on stderr: stdout stays what a script reads."""
    click.echo(text, err=True)


def show_json(value: object) -> None:
    """Print one JSON document on stdout."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def table_text(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Lay out rows under upper-case headings, two spaces between columns; no colours, so that it can be piped."""
    cells = [[column.upper() for column in columns]] + [["-" if c is None else str(c) for c in row] for row in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in cells)


def show_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table on stdout."""
    click.echo(table_text(columns, rows))


def confirm(question: str, *, yes: bool) -> bool:
    """Ask on the terminal; `yes` answers for the person. Without a terminal a question is an error, never a hang."""
    if yes:
        return True
    if not sys.stdin.isatty():
        raise UsageError(f"{question} - there is no terminal to ask on", hint="add --yes to go on without a question")
    return click.confirm(question, default=False, err=True)


def agree(question: str, *, yes: bool) -> None:
    """As `confirm`, before something is changed: DeclinedError where the answer is no."""
    if not confirm(question, yes=yes):
        raise DeclinedError


def human_bytes(count: float) -> str:
    """Write a size in bytes as people say it: 1.8 GB (powers of 1000)."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def human_seconds(seconds: float) -> str:
    """Write a duration in seconds as people say it: 42s, 3m07s, 2h05m, 3d4h."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d{whole % 86400 // 3600}h"


class Progress(Protocol):
    """What long work reports to: a step has a title and hosts; a host has a state, and bytes where some travel."""

    def step(self, title: str, hosts: Sequence[str]) -> None:
        """Begin a step; the one before has ended."""

    def host(self, host: str, state: str, detail: str = "") -> None:
        """Say where a host is: `running`, `ok`, `changed`, `failed`, `unreachable`; `detail` names the task."""

    def bytes(self, host: str, done: int, total: int) -> None:
        """Say how many bytes of how many have reached a host."""

    def count(self, host: str, done: int, total: int, unit: str) -> None:
        """Say how many of something a host is through with."""

    def __enter__(self) -> Self:
        """Begin to draw."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the terminal as it was."""


class PlainProgress:
    """Progress as lines, for logs and pipes: one a step, one a host at its end, bytes every ten seconds."""

    def __init__(self, stream: TextIO | None = None) -> None:
        """Write to `stream`, stderr by default."""
        self._stream = stream
        self._began = time.monotonic()
        self._shown: dict[str, float] = {}

    def step(self, title: str, hosts: Sequence[str]) -> None:
        """Print the step's title."""
        self._shown.clear()
        names = ", ".join(hosts) if len(hosts) <= 4 else f"{len(hosts)} hosts"
        self._line(f"{title} ({names})" if names else title)

    def host(self, host: str, state: str, detail: str = "") -> None:
        """Print ends only: a task a line would drown them."""
        if state != "running":
            self._line(f"  {host}: {state}{' - ' + detail if detail else ''}")

    def bytes(self, host: str, done: int, total: int) -> None:
        """Print at most one line in ten seconds for a host, and the last."""
        now = time.monotonic()
        if done < total and now - self._shown.get(host, self._began) < 10:
            return
        self._shown[host] = now
        self._line(f"  {host}: {human_bytes(done)} of {human_bytes(total)}")

    def count(self, host: str, done: int, total: int, unit: str) -> None:
        """As for bytes."""
        now = time.monotonic()
        if done < total and now - self._shown.get(host, self._began) < 10:
            return
        self._shown[host] = now
        self._line(f"  {host}: {done} of {total} {unit}")

    def _line(self, text: str) -> None:
        elapsed = human_seconds(time.monotonic() - self._began)
        click.echo(f"[{elapsed:>6}] {text}", file=self._stream, err=self._stream is None)

    def __enter__(self) -> Self:
        """Nothing to prepare."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing to restore."""


def progress() -> Progress:
    """Return live progress on a terminal, lines elsewhere."""
    if sys.stderr.isatty():
        from onprem_llm.live import LiveProgress  # rich costs 60 ms: only where it is seen

        return LiveProgress()
    return PlainProgress()


def glimpse() -> Progress:
    """Return progress for a look of seconds: live on a terminal, nothing elsewhere."""
    return progress() if sys.stderr.isatty() else PlainProgress(io.StringIO())


def mapping_text(values: Mapping[str, object]) -> str:
    """Lay out `name  value` lines for the end of a command."""
    width = max((len(name) for name in values), default=0)
    return "\n".join(f"{name.ljust(width)}  {value}" for name, value in values.items())
