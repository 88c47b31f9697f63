"""`onprem-llm down`: remove what deploy made, and nothing else."""

import click

from onprem_llm import output
from onprem_llm.apply import apply
from onprem_llm.connection import Connection
from onprem_llm.options import connection_options
from onprem_llm.plan_view import plan_json, plan_text
from onprem_llm.planned import plan_down


@click.command("down", short_help="Remove what deploy made.")
@click.argument("name")
@click.option("--purge", is_flag=True, help="Remove its weights and images, and the chats of the last deployment too.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@click.option("--break-lock", is_flag=True, help="Take the lock from a run that is dead.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON at the end.")
@connection_options(limit=False)
def command(name: str, purge: bool, yes: bool, break_lock: bool, as_json: bool, connection: Connection) -> None:
    """Remove a deployment: its containers and their folders. Weights and images stay unless --purge is given.

    \b
    Example:
      onprem-llm down tiny
      onprem-llm down tiny --purge --yes
    """
    with output.glimpse() as progress:
        plan = plan_down(name, connection, progress, purge=purge).plan
    if not as_json:
        output.say(plan_text(plan))
    if not output.confirm(f"\nRemove {name}?", yes=yes):
        raise click.Abort
    with output.progress() as progress:
        apply(plan, connection, progress, break_lock=break_lock)
    if as_json:
        output.show_json(plan_json(plan))
    else:
        output.say(f"\n{name} is down.")
