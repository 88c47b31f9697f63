"""`onprem-llm top`: what every replica does now."""

import json
import sys
import time
from typing import TYPE_CHECKING, Final

import click

from onprem_llm import output
from onprem_llm.connection import Connection
from onprem_llm.errors import UnreachableError, UsageError
from onprem_llm.options import connection_options
from onprem_llm.ssh import routes
from onprem_llm.top_board import Row, as_document
from onprem_llm.top_watch import Watch

if TYPE_CHECKING:
    from rich.table import Table

COLUMNS: Final = (
    *("replica", "host", "gpus", "gpu memory", "gpu use", "running", "waiting", "out tok/s", "in tok/s", "kv cache"),
    "problem",
)


@click.command("top", short_help="Show what every replica does now, live.")
@click.option("--interval", default=2.0, show_default=True, type=click.FloatRange(min=0.5), help="Seconds.")
@click.option("--once", is_flag=True, help="Print one sample, after one interval, and end.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: without --once a line each interval.")
@connection_options()
def command(interval: float, once: bool, as_json: bool, connection: Connection) -> None:
    """Show GPU memory and use, requests running and waiting, tokens a second and KV-cache use of every replica.

    The engines are asked on their own hosts. Ctrl-C ends it.

    \b
    Example:
      onprem-llm top
      onprem-llm top --once --json | jq '.replicas[].running'
    """
    if not (once or as_json or sys.stdout.isatty()):
        raise UsageError("top draws on a terminal, and there is none", hint="add --once, or --json for a line each")
    known = routes(connection)
    watch = Watch(known, interval)
    with watch.sampling():
        if once:
            watch.one_sample()
            _show(watch, as_json=as_json)
            return
        try:
            _json_lines(watch) if as_json else _live(watch)
        except KeyboardInterrupt:
            return


def _json_lines(watch: Watch) -> None:
    while True:
        watch.follow(watch.interval)
        click.echo(json.dumps(as_document(watch.board, watch.hosts, time.monotonic()), ensure_ascii=False))


def _live(watch: Watch) -> None:
    from rich.console import Console  # 60 ms: only where it is seen
    from rich.live import Live

    with Live(console=Console(highlight=False), screen=True, auto_refresh=False) as live:
        while True:
            live.update(_table(watch.board.rows(time.monotonic())), refresh=True)
            watch.follow(min(watch.interval, 1.0))


def _table(rows: list[Row]) -> "Table":
    from rich.table import Table

    table = Table(*[column.upper() for column in COLUMNS], box=None, header_style="bold", pad_edge=False)
    for row in rows:
        style = "red" if row.problem else None
        table.add_row(*["-" if cell is None else str(cell) for cell in _cells(row)], style=style)
    if not rows:
        table.add_row("no replica yet")
    return table


def _show(watch: Watch, *, as_json: bool) -> None:
    now = time.monotonic()
    problems = watch.board.problems(now)
    rows = watch.board.rows(now)
    if as_json:
        output.show_json(as_document(watch.board, watch.hosts, now))
    elif rows:
        output.show_table(COLUMNS, [_cells(row) for row in rows])
    else:
        output.say("No engine runs on these hosts: onprem-llm status")
    if problems:
        raise UnreachableError(
            f"{len(problems)} hosts could not be asked; what runs there is unknown",
            details="\n".join(f"{host}: {problem}" for host, problem in problems.items()),
            hint="mend what is said above",
        )


def _cells(row: Row) -> tuple[object, ...]:
    memory = None
    if row.memory_used is not None and row.memory_total:
        memory = f"{row.memory_used / 1024:.1f}/{row.memory_total / 1024:.0f} GiB"
    return (
        row.project,
        row.host,
        ",".join(str(index) for index in row.gpus) or None,
        memory,
        _percent(row.gpu_use),
        row.running,
        row.waiting,
        _number(row.generation_rate),
        _number(row.prompt_rate),
        _percent(row.kv_cache * 100 if row.kv_cache is not None else None),
        row.problem,
    )


def _percent(value: float | None) -> str | None:
    return f"{value:.0f}%" if value is not None else None


def _number(value: float | None) -> str | None:
    return f"{value:.1f}" if value is not None else None
