"""`onprem-llm deploy`: plan, ask, apply, say where it answers."""

from pathlib import Path

import click

from onprem_llm import output
from onprem_llm.apply import refuse_if_moved
from onprem_llm.changing import carry_out, change_options
from onprem_llm.connection import Connection
from onprem_llm.errors import UsageError
from onprem_llm.locked import read_locked
from onprem_llm.options import connection_options, locked_option, no_model_yaml
from onprem_llm.plan_folder import check_folder, read_folder
from onprem_llm.planned import plan_deploy
from onprem_llm.sizes import parse_size
from onprem_llm.wanted import load_site


@click.command("deploy", short_help="Bring a model to the hosts and start it.")
@click.argument("model_yaml", type=click.Path(path_type=Path), required=False)
@click.option("--plan", "folder", type=click.Path(path_type=Path), help="Apply a plan that `plan --out` wrote.")
@locked_option
@click.option("--bandwidth", metavar="SIZE", help="Bytes a second that a host sends at most to another: 100MB.")
@change_options
@connection_options()
def command(
    model_yaml: Path | None,
    folder: Path | None,
    locked: Path | None,
    bandwidth: str | None,
    yes: bool,
    break_lock: bool,
    as_json: bool,
    connection: Connection,
) -> None:
    """Bring a model to the hosts and start it: images, weights, vLLM, Open WebUI; then a real answer from the model.

    A second run of the same file changes nothing. What differs on the hosts (a container gone, an edited file, a
    changed key) is noticed and mended.

    \b
    Example:
      onprem-llm deploy model.yaml
      onprem-llm deploy model.yaml -i hosts/ --yes
      onprem-llm deploy --plan change-4711
      onprem-llm deploy model.yaml --locked onprem-llm.lock
    """
    if (model_yaml is None) == (folder is None):
        wanted = "a model.yaml, or a plan with --plan (one of them)"
        raise no_model_yaml("deploy", wanted, None if model_yaml else locked)
    if folder and locked:
        raise UsageError("--plan has what is deployed already", hint="use --locked with `onprem-llm plan --out`")
    limit = parse_size(bandwidth, "--bandwidth") if bandwidth else None
    lock = read_locked(locked, model_yaml)
    with output.glimpse() as progress:
        if folder:
            plan = read_folder(folder)
            current = refuse_if_moved(plan, connection, progress)
            check_folder(plan, folder, load_site(current, connection.inventory))
        else:
            plan = plan_deploy(_given(model_yaml), connection, progress, lock).plan
    name = plan.deployment
    question, done = f"Deploy {name}?", f"{name} answers."
    carry_out(plan, question, connection, yes=yes, break_lock=break_lock, as_json=as_json, done=done, bandwidth=limit)


def _given(path: Path | None) -> Path:
    if path is None:
        raise UsageError("name a model.yaml")
    return path
