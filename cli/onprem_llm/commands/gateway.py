"""`onprem-llm gateway`: which host is the gateway, and another one in its place."""

import click

from onprem_llm import output
from onprem_llm.changing import change_options
from onprem_llm.connection import Connection
from onprem_llm.gateway_moves import carry_out, prepare
from onprem_llm.options import connection_options


@click.group("gateway", short_help="The gateway host: move it.")
def command() -> None:
    """The host with the gateway, the book, the keys and the page. `onprem-llm status` shows which it is.

    \b
    Example:
      onprem-llm gateway move server-2
    """


@command.command("move")
@click.argument("host")
@change_options
@connection_options(limit=False)
def move(host: str, yes: bool, break_lock: bool, as_json: bool, connection: Connection) -> None:
    """Make another host the gateway host. It serves before the old one stops; clients then need its address.

    The book, keys, certificate authority, and the page's accounts and chats go along. A run that was cut off is taken
    up again by the same command.

    \b
    Example:
      onprem-llm gateway move server-2
    """
    with output.glimpse() as progress:
        plan = prepare(host, connection, progress)
    if plan is None:
        if as_json:
            output.show_json({"gateway": host, "before": host})
        else:
            output.say(f"{host} is the gateway host already.")
        return
    if not as_json:
        for line in plan.lines:
            output.say(line)
    output.agree(f"\nMove the gateway to {host}?", yes=yes)
    with output.progress() as progress:
        carry_out(plan, connection, progress, break_lock=break_lock)
    if as_json:
        output.show_json({"gateway": host, "before": plan.old})
    else:
        output.say(f"\n{host} is the gateway host.")
