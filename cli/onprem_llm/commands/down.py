"""`onprem-llm down`: remove what deploy made, and nothing else."""

import click

from onprem_llm import output
from onprem_llm.changing import carry_out, change_options
from onprem_llm.connection import Connection
from onprem_llm.options import connection_options
from onprem_llm.planned import plan_down


@click.command("down", short_help="Remove what deploy made.")
@click.argument("name")
@click.option("--purge", is_flag=True, help="Remove its weights and images, and the chats of the last deployment too.")
@change_options
@connection_options()
def command(name: str, purge: bool, yes: bool, break_lock: bool, as_json: bool, connection: Connection) -> None:
    """Remove a deployment: its containers and their folders. Weights and images stay unless --purge is given.

    \b
    Example:
      onprem-llm down tiny
      onprem-llm down tiny --purge --yes
    """
    with output.glimpse() as progress:
        plan = plan_down(name, connection, progress, purge=purge).plan
    question, done = f"Remove {name}?", f"{name} is down."
    carry_out(plan, question, connection, yes=yes, break_lock=break_lock, as_json=as_json, done=done)
