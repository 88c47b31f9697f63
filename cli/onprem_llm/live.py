"""Progress on a terminal: the current step's hosts, each with its state, task and bytes, drawn by rich."""

from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from onprem_llm.output import human_bytes

MARKS = {"ok": "[green]ok[/]", "changed": "[yellow]changed[/]", "failed": "[red]failed[/]"}


class LiveProgress:
    """One line a host in the running step; finished steps stay above as text."""

    def __init__(self, console: Console | None = None) -> None:
        """Draw on `console`, stderr by default: stdout is the result."""
        self._console = console or Console(stderr=True, highlight=False)
        self._bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.fields[host]}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[detail]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(compact=True),
            console=self._console,
            transient=True,
        )
        self._tasks: dict[str, TaskID] = {}

    def step(self, title: str, hosts: Sequence[str]) -> None:
        """Begin a step with a line a host."""
        for task in self._tasks.values():
            self._bars.remove_task(task)
        self._console.print(f"[bold]{title}[/]")
        self._tasks = {host: self._bars.add_task("", total=None, host=host, detail="") for host in hosts}

    def host(self, host: str, state: str, detail: str = "") -> None:
        """Show the task a host is at; an end is printed above the bars."""
        task = self._tasks.get(host)
        if state == "running":
            # A step over a whole inventory does not know its hosts beforehand.
            if task is None:
                self._tasks[host] = self._bars.add_task("", total=None, host=host, detail=detail)
            else:
                self._bars.update(task, detail=detail)
            return
        if task is not None:
            self._bars.update(task, detail="", total=1, completed=1)
        self._console.print(f"  {host}: {MARKS.get(state, f'[red]{state}[/]')}{' - ' + detail if detail else ''}")

    def bytes(self, host: str, done: int, total: int) -> None:
        """Turn a host's line into a bar with time left."""
        task = self._tasks.get(host)
        if task is not None:
            text = f"{human_bytes(done)} of {human_bytes(total)}"
            self._bars.update(task, completed=done, total=total, detail=text)

    def count(self, host: str, done: int, total: int, unit: str) -> None:
        """As for bytes."""
        task = self._tasks.get(host)
        if task is not None:
            self._bars.update(task, completed=done, total=total, detail=f"{done} of {total} {unit}")

    def __enter__(self) -> Self:
        """Begin to draw."""
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop drawing and leave the finished lines."""
        self._bars.stop()
