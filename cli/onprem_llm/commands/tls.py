"""`onprem-llm tls`: the root certificate for clients, and new certificates before the old ones end."""

import time
from pathlib import Path

import click

from onprem_llm import output
from onprem_llm.certificates import Renewal, plan_renewal, read_root, renew
from onprem_llm.connection import Connection
from onprem_llm.look import gateway_of, look, look_whole
from onprem_llm.options import connection_options
from onprem_llm.private_files import write_private
from onprem_llm.spec.site import parse_site

COLUMNS = ("host", "certificate", "ends", "what happens")
KEYS = ("host", "certificate", "ends", "action")


@click.group(short_help="The root certificate for clients; renew certificates.")
def tls() -> None:
    """Hand out the root certificate of the site, and renew what it has signed.

    \b
    Example:
      onprem-llm tls root > onprem-llm-ca.crt
      onprem-llm tls renew
    """


@tls.command()
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write it there, never over a file.")
@connection_options(limit=False)
def root(out: Path | None, connection: Connection) -> None:
    """Print the root certificate that clients trust. It is public; bootstrap has written it beside the inventory.

    \b
    Example:
      onprem-llm tls root > onprem-llm-ca.crt
      curl --cacert onprem-llm-ca.crt https://server-1:8080/v1/models
    """
    with output.glimpse() as progress:
        text = read_root(gateway_of(look(connection, progress)), connection, progress)
    if out is None:
        output.say(text.rstrip())
    else:
        write_private(out, text, 0o644)
        output.say(f"Root certificate: {out}")


@tls.command(name="renew")
@click.option("--force", is_flag=True, help="Renew all, although they are good for more than 30 days.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON at the end.")
@connection_options()
def renew_command(force: bool, yes: bool, as_json: bool, connection: Connection) -> None:
    """Renew certificates that end within 30 days: the gateways', the engines', that of the site's own registry.

    Gateways take theirs at once and lose no stream; the registry starts anew, in a second or two; engines take theirs
    when they start anew: `restart`, or `deploy`, which also renews on its way, on the gateways and the hosts of its
    deployment.

    \b
    Example:
      onprem-llm tls renew
      onprem-llm tls renew --force --yes
    """
    with output.glimpse() as progress:
        view = look_whole(connection, progress)
        gateway = gateway_of(view)
    site = parse_site(view.current.site_settings(), f"{connection.inventory} (group_vars)")
    renewal = plan_renewal(view.current, gateway.name, site, time.time(), force=force)
    if not as_json:
        output.show_table(COLUMNS, renewal.rows)
    for text in renewal.notes:
        output.note(text)
    if renewal.orders:
        output.agree(f"\nRenew on {', '.join(renewal.orders)}?", yes=yes)
        with output.progress() as progress:
            renew(renewal, connection, progress)
    if as_json:
        rows = [dict(zip(KEYS, row, strict=True)) for row in renewal.rows]
        output.show_json({"certificates": rows, "restarts": renewal.restarts, "notes": renewal.notes})
    else:
        _say_renewed(renewal)


def _say_renewed(renewal: Renewal) -> None:
    if not renewal.orders:
        output.say("\nNothing is renewed. --force renews all.")
        return
    output.say("\nRenewed; gateways and registry use theirs already.")
    if renewal.restarts:
        output.say(
            f"The engines on {', '.join(renewal.restarts)} go on with the old one until they start anew: "
            "onprem-llm restart NAME rolls through a deployment's replicas."
        )


command = tls
