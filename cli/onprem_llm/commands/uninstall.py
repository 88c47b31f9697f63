"""`onprem-llm uninstall`: the hosts as they were before bootstrap."""

from dataclasses import replace

import click

from onprem_llm import output
from onprem_llm.connection import Connection
from onprem_llm.errors import UnreachableError
from onprem_llm.look import View, failures_text, look, unexpected
from onprem_llm.options import connection_options
from onprem_llm.runner import raise_for_failures
from onprem_llm.spec.site import parse_site
from onprem_llm.uninstalling import carry_out, plan_removal, refuse_if_locked, told


@click.command("uninstall", short_help="Reverse bootstrap: packages, files, units and rules as before.")
@connection_options(argument=True)
@click.option("--purge-deployments", is_flag=True, help="Remove deployments too; without it they are a reason to stop.")
@click.option("--purge", is_flag=True, help="Remove weights, images, chats, keys, the CA and the book, too.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@click.option("--break-lock", is_flag=True, help="Go on although a run holds the lock: it is dead.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON at the end.")
def command(
    purge_deployments: bool, purge: bool, yes: bool, break_lock: bool, as_json: bool, connection: Connection
) -> None:
    """Reverse bootstrap on every host: what it installed and wrote goes, daemon.json gets back what stood there.

    Weights, images, chats, keys, the certificate authority and the book stay, unless --purge is given.

    \b
    Example:
      onprem-llm uninstall inventory.ini
      onprem-llm uninstall inventory.ini --purge-deployments --purge
    """
    with output.glimpse() as progress:
        view = look(connection, progress)
        # The lock is on the gateway host, which a limit may leave out.
        whole = look(replace(connection, limit=None), progress) if connection.limit else view
    _refuse_silence(view, connection)
    site = parse_site(view.current.site_settings(), f"{connection.inventory} (group_vars)")
    if not break_lock:
        refuse_if_locked(whole.current)
    removal = plan_removal(view.current, site, purge=purge, purge_deployments=purge_deployments)
    if not as_json:
        output.show_table(("host", "projects", "goes", "stays"), removal.rows)
    for text in removal.notes:
        output.note(text)
    output.agree(f"\nUninstall from {', '.join(removal.orders)}?", yes=yes)
    with output.progress() as progress:
        result = carry_out(removal, connection, progress)
    stays = told(result)
    if as_json:
        output.show_json({"hosts": list(result.hosts), "stays": stays})
    else:
        for host, lines in stays.items():
            output.say("\n".join([f"{host}:", *(f"  {line}" for line in lines)]))
    raise_for_failures(result, doing="uninstalling")
    if not as_json:
        output.say("\nUninstalled.")


def _refuse_silence(view: View, connection: Connection) -> None:
    gating = unexpected(view, connection)
    if gating or not view.current.hosts:
        hint = "mend what is said above and run uninstall again"
        if all(one.unreachable for one in gating):
            hint += "; or add --skip-unreachable, and run it there later"
        raise UnreachableError(
            f"{len(view.failures)} host{'s' if len(view.failures) > 1 else ''} did not answer; nothing was changed",
            details=failures_text(view.failures),
            hint=hint,
        )
    if view.failures:
        output.note(f"Left out, they do not answer: {', '.join(failure.host for failure in view.failures)}")
