"""`onprem-llm host`: a host out of rotation and back, replaced, removed or lost."""

from dataclasses import replace
from pathlib import Path

import click

from onprem_llm import output
from onprem_llm.changing import carry_out, change_options
from onprem_llm.connection import Connection
from onprem_llm.host_moves import Leaving, look_out, outlook_text
from onprem_llm.host_moves import carry_out as move_out
from onprem_llm.options import connection_options
from onprem_llm.planning.hosts_change import leaving_text
from onprem_llm.rotations import plan_rotation

FOLDERS = click.option(
    "--model-dir", "folders", multiple=True, type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A folder of weights to send where they are needed; repeatable.",
)  # fmt: skip


@click.group("host", short_help="Hosts: drain, undrain, replace, remove.")
def command() -> None:
    """Take a host out of rotation for a while, or its replicas elsewhere for good.

    \b
    Example:
      onprem-llm host drain server-2
      onprem-llm host replace server-2 server-4
    """


@command.command("drain")
@click.argument("host")
@change_options
@connection_options(limit=False)
def drain(host: str, yes: bool, break_lock: bool, as_json: bool, connection: Connection) -> None:
    """Take a host out of rotation: its requests end, new ones go elsewhere, nothing new is placed there.

    Its replicas go on running, and updates reach them. It stays so until `host undrain`, also over deployments.

    \b
    Example:
      onprem-llm host drain server-2
    """
    plan = plan_rotation(host, connection, back=False)
    question, done = f"Drain {host}?", f"{host} is drained. Afterwards: onprem-llm host undrain {host}"
    carry_out(plan, question, connection, yes=yes, break_lock=break_lock, as_json=as_json, done=done)


@command.command("undrain")
@click.argument("host")
@change_options
@connection_options(limit=False)
def undrain(host: str, yes: bool, break_lock: bool, as_json: bool, connection: Connection) -> None:
    """Let a host take requests and replicas again: after `drain`, or when one that was lost or removed is back.

    \b
    Example:
      onprem-llm host undrain server-2
    """
    plan = plan_rotation(host, connection, back=True)
    later = "; its replicas get requests once they are up" if any(" is not up" in one for one in plan.warnings) else ""
    question, done = f"Let {host} in again?", f"{host} takes part again{later}."
    carry_out(plan, question, connection, yes=yes, break_lock=break_lock, as_json=as_json, done=done)


@command.command("remove")
@click.argument("host")
@click.option("--lost", is_flag=True, help="It does not answer and never will: start its replicas elsewhere.")
@FOLDERS
@change_options
@connection_options(limit=False)
def remove(
    host: str, lost: bool, folders: tuple[Path, ...], yes: bool, break_lock: bool, as_json: bool, connection: Connection
) -> None:
    """Move a host's replicas elsewhere for good: new ones start first, then those on the host are drained and removed.

    Where there is no room for all, deployments end with fewer replicas; the plan says which. New replicas go to hosts
    that have the weights; for others name the folder of the weights.

    \b
    Example:
      onprem-llm host remove server-2
      onprem-llm host remove server-2 --lost
      onprem-llm host remove server-2 --model-dir models/qwen
    """
    leaving = Leaving(host, "lost" if lost else "removed", None, folders)
    _leave(leaving, f"Remove {host}?", connection, yes=yes, break_lock=break_lock, as_json=as_json)


@command.command("replace")
@click.argument("old")
@click.argument("new")
@click.option("--lost", is_flag=True, help="The old one does not answer and never will.")
@FOLDERS
@change_options
@connection_options(limit=False)
def replace_command(
    old: str, new: str, lost: bool, folders: tuple[Path, ...], yes: bool, break_lock: bool, as_json: bool,
    connection: Connection,
) -> None:  # fmt: skip
    """Start the replicas of a host on another one, which bootstrap has prepared, then remove the first.

    \b
    Example:
      onprem-llm host replace server-2 server-4 --model-dir models/qwen
    """
    leaving = Leaving(old, "lost" if lost else "removed", new, folders)
    _leave(leaving, f"Replace {old} by {new}?", connection, yes=yes, break_lock=break_lock, as_json=as_json)


def _leave(
    leaving: Leaving, question: str, connection: Connection, *, yes: bool, break_lock: bool, as_json: bool
) -> None:
    if leaving.state == "lost":
        connection = replace(connection, may_be_silent=(leaving.host,))
    with output.glimpse() as progress:
        outlook = look_out(leaving, connection, progress)
    if not as_json:
        output.say(outlook_text(leaving, outlook))
    output.agree(f"\n{question}", yes=yes)
    with output.progress() as progress:
        done = move_out(leaving, outlook, connection, progress, break_lock=break_lock)
    if as_json:
        deployments = [{"name": one.deployment, "replicas": one.after, "before": one.before} for one in done]
        output.show_json({"host": leaving.host, "state": leaving.state, "deployments": deployments})
        return
    for line in leaving_text(done):
        output.note(line)
    moved = ", ".join(one.deployment for one in done if one.plan) or "nothing was there to move"
    output.say(f"\n{leaving.host} is {leaving.state}; moved: {moved}.")
    if leaving.state == "removed":
        output.say(f"It can go: onprem-llm uninstall --limit {leaving.host}, then take it out of the inventory.")
