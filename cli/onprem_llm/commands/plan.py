"""`onprem-llm plan`: what deploy would do."""

from pathlib import Path

import click

from onprem_llm import output
from onprem_llm.connection import Connection
from onprem_llm.errors import UsageError
from onprem_llm.locked import read_locked
from onprem_llm.options import connection_options, locked_option, no_model_yaml
from onprem_llm.plan_view import endpoints_text, plan_json, plan_text
from onprem_llm.planned import plan_deploy


@click.command("plan", short_help="Show what deploy would do, and change nothing.")
@click.argument("model_yaml", metavar="MODEL_YAML", type=click.Path(path_type=Path), required=False)
@click.option(
    "--out", type=click.Path(path_type=Path), help="Write the whole plan to this folder, for `deploy --plan`."
)
@locked_option
@click.option(
    "--facts", type=click.Path(path_type=Path), multiple=True, metavar="FILE",
    help="Plan for hosts of these facts, which are not reached; repeatable.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@connection_options()
def command(
    model_yaml: Path | None,
    out: Path | None,
    locked: Path | None,
    facts: tuple[Path, ...],
    as_json: bool,
    connection: Connection,
) -> None:
    """Show what deploy would do, and change nothing.

    \b
    Example:
      onprem-llm plan model.yaml
      onprem-llm plan model.yaml --out change-4711    # for the change board
      onprem-llm deploy --plan change-4711
      onprem-llm plan model.yaml --facts facts.json   # where the hosts cannot be reached
    """
    if model_yaml is None:
        raise no_model_yaml("plan", "a model.yaml", locked)
    if facts and (out or locked):
        raise UsageError(
            "a plan that is made from facts can only be looked at", hint="leave --out and --locked out, or --facts"
        )
    lock = read_locked(locked, model_yaml)
    with output.glimpse() as progress:
        if facts:
            from onprem_llm.facts.plan import plan_of_facts
            from onprem_llm.spec.facts import merge_facts

            plan = plan_of_facts(model_yaml, merge_facts(facts), connection, progress)
        else:
            plan = plan_deploy(model_yaml, connection, progress, lock).plan
    if out is not None:
        from onprem_llm.plan_folder import write_folder

        write_folder(plan, out)
        output.note(f"Written to {out}. Apply it with: onprem-llm deploy --plan {out}")
    if as_json:
        output.show_json(plan_json(plan))
        return
    output.say(plan_text(plan))
    if plan.endpoints:
        output.say(f"\n{endpoints_text(plan)}")
