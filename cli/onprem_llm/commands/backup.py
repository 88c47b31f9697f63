"""`onprem-llm backup`: what only the gateway host has, into one file here."""

from pathlib import Path

import click

from onprem_llm import output
from onprem_llm.apply import record_event
from onprem_llm.backups import make
from onprem_llm.connection import Connection
from onprem_llm.errors import UsageError
from onprem_llm.look import gateway_of, look
from onprem_llm.options import connection_options
from onprem_llm.person import person
from onprem_llm.spec.site import parse_site


@click.command("backup", short_help="Save book, keys, CA and chats into a file.")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@connection_options(limit=False)
def command(file: Path, as_json: bool, connection: Connection) -> None:
    """Save what only the gateway host has: the book, keys and usage, the CA, the page's accounts and chats.

    FILE is made new, readable by you alone: it holds keys. Nothing stops meanwhile. Weights and images are not in it.

    \b
    Example:
      onprem-llm backup onprem-llm-$(date +%F).tar.gz
    """
    if file.exists():
        raise UsageError(f"{file} is there already, and a backup is never written over", hint="name another file")
    if not file.absolute().parent.is_dir():
        raise UsageError(f"{file}: its folder is not there", hint=f"mkdir -p {file.parent}")
    with output.progress() as progress:
        view = look(connection, progress)
        gateway = gateway_of(view)
        site = parse_site(view.current.site_settings(), str(connection.inventory))
        made = make(gateway.name, site, file, connection, progress)
        event = {"action": "backup", "by": person(), "message": f"{made.size} bytes, sha256 {made.sha256[:16]}"}
        record_event(event, gateway.name, connection)
    if as_json:
        output.show_json(made.as_json())
        return
    files = ", ".join(f"{part} {count}" for part, count in made.files.items())
    output.say(f"{file}: {output.human_bytes(made.size)} from {made.host} ({files} files), readable by you alone.")
