"""`onprem-llm restore`: a backup back, onto the gateway host or onto another one that takes its place."""

from dataclasses import replace
from pathlib import Path

import click

from onprem_llm import output
from onprem_llm.backups import read
from onprem_llm.changing import change_options
from onprem_llm.connection import Connection
from onprem_llm.options import connection_options
from onprem_llm.restoring import carry_out, prepare


@click.command("restore", short_help="Put a backup back, onto a new gateway host too.")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--gateway", metavar="HOST", help="The host that becomes the gateway.  [default: the one of the backup]")
@click.option("--model-dir", "folders", multiple=True, type=click.Path(exists=True, file_okay=False, path_type=Path),
              help="A folder of weights to send where they are needed; repeatable.")  # fmt: skip
@click.option("--force", is_flag=True, help="Put it over a book that has deployments; that one is saved there first.")
@change_options
@connection_options(limit=False)
def command(
    file: Path, gateway: str | None, folders: tuple[Path, ...], force: bool, yes: bool, break_lock: bool,
    as_json: bool, connection: Connection,
) -> None:  # fmt: skip
    """Put back what `backup` saved, record the gateway host, and bring gateway, page and replicas up there.

    For the day on which the gateway host is gone: bootstrap the hosts that are left, then restore onto one of them. A
    gateway host of before that does not answer is declared lost.

    \b
    Example:
      onprem-llm restore onprem-llm-2026-11-21.tar.gz
      onprem-llm restore onprem-llm-2026-11-21.tar.gz --gateway server-2
    """
    backup = read(file)
    connection = replace(connection, may_be_silent=(backup.host,))
    with output.glimpse() as progress:
        plan = prepare(backup, gateway, connection, progress, force=force)
    if not as_json:
        for line in plan.lines:
            output.say(line)
    output.agree(f"\nPut it onto {plan.host}?", yes=yes)
    with output.progress() as progress:
        done = carry_out(plan, folders, connection, progress, break_lock=break_lock)
    if as_json:
        deployments = [{"name": one.deployment, "replicas": one.after, "before": one.before} for one in done]
        output.show_json({"gateway": plan.host, "deployments": deployments, **backup.as_json()})
        return
    for one in done:
        output.say(f"{one.deployment}: {one.after} of {one.before} replicas" + (f": {one.why}" if one.why else ""))
    output.say(f"\n{plan.host} is the gateway host, as of {backup.made}.")
