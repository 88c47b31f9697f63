"""`onprem-llm restart`: every replica anew, one after another."""

import click

from onprem_llm import output
from onprem_llm.changing import carry_out, change_options
from onprem_llm.connection import Connection
from onprem_llm.options import connection_options
from onprem_llm.planned import plan_again


@click.command("restart", short_help="Restart the replicas of a deployment, one after another.")
@click.argument("name")
@change_options
@connection_options()
def command(name: str, yes: bool, break_lock: bool, as_json: bool, connection: Connection) -> None:
    """Restart the replicas of a deployment in the way of an update: drained, started anew, asked, put back.

    A deployment on Ray is refused: Ray replaces replicas where model.yaml changes.

    \b
    Example:
      onprem-llm restart tiny
    """
    with output.glimpse() as progress:
        plan = plan_again(name, "restart", connection, progress).plan
    done = f"{name} was restarted."
    carry_out(plan, f"Restart {name}?", connection, yes=yes, break_lock=break_lock, as_json=as_json, done=done)
