"""`onprem-llm scale`: more or fewer replicas of what runs."""

import click

from onprem_llm import output
from onprem_llm.changing import carry_out, change_options
from onprem_llm.connection import Connection
from onprem_llm.options import connection_options
from onprem_llm.planned import plan_again
from onprem_llm.spec.replicas import MAX_REPLICAS


@click.command("scale", short_help="Run more or fewer replicas of a deployment.")
@click.argument("name")
@click.option("--replicas", required=True, type=click.IntRange(1, MAX_REPLICAS), help="How many there shall be.")
@change_options
@connection_options()
def command(name: str, replicas: int, yes: bool, break_lock: bool, as_json: bool, connection: Connection) -> None:
    """Run more or fewer replicas of a deployment. New ones take traffic once they answer; others are drained first.

    A deployment with a `schedule` is refused: its entries say how many run. On Ray a number takes the place of bounds.

    New replicas go to hosts that have the weights. For others, write `replicas` into model.yaml and deploy it.

    \b
    Example:
      onprem-llm scale tiny --replicas 3
    """
    with output.glimpse() as progress:
        plan = plan_again(name, "scale", connection, progress, change={"replicas": replicas}).plan
    question, done = f"Scale {name} to {replicas}?", f"{name} has {replicas} replicas."
    carry_out(plan, question, connection, yes=yes, break_lock=break_lock, as_json=as_json, done=done)
