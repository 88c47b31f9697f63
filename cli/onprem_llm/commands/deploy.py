"""`onprem-llm deploy`: plan, ask, apply, say where it answers."""

from pathlib import Path

import click

from onprem_llm import output
from onprem_llm.apply import apply, refuse_if_moved
from onprem_llm.connection import Connection
from onprem_llm.errors import UsageError
from onprem_llm.options import connection_options
from onprem_llm.plan_folder import read_folder
from onprem_llm.plan_view import endpoints_text, plan_json, plan_text
from onprem_llm.planned import plan_deploy
from onprem_llm.planning.types import Plan


@click.command("deploy", short_help="Bring a model to the hosts and start it.")
@click.argument("model_yaml", type=click.Path(path_type=Path), required=False)
@click.option("--plan", "folder", type=click.Path(path_type=Path), help="Apply a plan that `plan --out` wrote.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@click.option("--break-lock", is_flag=True, help="Take the lock from a run that is dead.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON at the end.")
@connection_options(limit=False)
def command(
    model_yaml: Path | None, folder: Path | None, yes: bool, break_lock: bool, as_json: bool, connection: Connection
) -> None:
    """Bring a model to the hosts and start it: images, weights, vLLM, Open WebUI; then a real answer from the model.

    A second run of the same file changes nothing. What differs on the hosts (a container gone, an edited file, a
    changed key) is noticed and mended.

    \b
    Example:
      onprem-llm deploy model.yaml
      onprem-llm deploy model.yaml -i hosts/ --yes
      onprem-llm deploy --plan change-4711
    """
    if (model_yaml is None) == (folder is None):
        raise UsageError("name a model.yaml, or a plan with --plan (one of them)", hint="onprem-llm deploy --help")
    with output.glimpse() as progress:
        plan = read_folder(folder) if folder else plan_deploy(_given(model_yaml), connection, progress).plan
    if not as_json:
        output.say(plan_text(plan))
    if not plan.is_noop:
        _apply(plan, connection, yes=yes, break_lock=break_lock)
    elif folder:
        with output.glimpse() as progress:
            refuse_if_moved(plan, connection, progress)
    _report(plan, as_json=as_json)


def _given(path: Path | None) -> Path:
    if path is None:
        raise UsageError("name a model.yaml")
    return path


def _apply(plan: Plan, connection: Connection, *, yes: bool, break_lock: bool) -> None:
    if not output.confirm(f"\nDeploy {plan.deployment}?", yes=yes):
        raise click.Abort
    with output.progress() as progress:
        apply(plan, connection, progress, break_lock=break_lock)


def _report(plan: Plan, *, as_json: bool) -> None:
    if as_json:
        output.show_json(plan_json(plan))
        return
    if not plan.is_noop:
        output.say(f"\n{plan.deployment} answers.")
    output.say(f"\n{endpoints_text(plan)}")
