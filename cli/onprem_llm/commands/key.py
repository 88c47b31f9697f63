"""`onprem-llm key`: who may ask, what, how often, until when, and what was asked."""

import time
from collections.abc import Mapping
from typing import Any

import click

from onprem_llm import client_keys, output
from onprem_llm.book_state import BookEntry
from onprem_llm.connection import Connection
from onprem_llm.errors import InvalidError, UsageError
from onprem_llm.look import View, gateway_of, look
from onprem_llm.options import connection_options
from onprem_llm.planning.gateway import gateway_url
from onprem_llm.silent_gateways import accept_silence, answering_gateways
from onprem_llm.wanted import load_site

LIST = ("name", "models", "rate", "expires", "created", "by", "state")
USAGE = ("name", "requests", "prompt tokens", "completion tokens", "refused")
STREAMS = "Tokens are those of answers that are not streamed; a stream counts as a request."


@click.group("key", short_help="Keys of clients: create, list, revoke, usage.")
def command() -> None:
    """Keys of clients. A key works, or ceases to, at once, and nothing is reloaded.

    \b
    Example:
      onprem-llm key create alice --models tiny --rate 60/min --expires 90d
      onprem-llm key usage
    """


@command.command("create", short_help="Make a key and show it, once.")
@click.argument("name")
@click.option("--models", metavar="A,B", help="Only these deployments; names that models are served by are taken, too.")
@click.option("--rate", metavar="60/min", help="At most so many requests a second, minute, hour or day.")
@click.option("--expires", metavar="90d", help="Until when, from now on: 30m, 12h, 90d, 8w.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@connection_options(limit=False)
def create(
    name: str, models: str | None, rate: str | None, expires: str | None, as_json: bool, connection: Connection
) -> None:
    """Make a key for a person or a program. It is shown this once: the gateways keep its hash only.

    \b
    Example:
      onprem-llm key create alice
      onprem-llm key create ci --models tiny --rate 60/min --expires 90d
    """
    client_keys.check_name(name)
    limit = client_keys.parse_rate(rate) if rate is not None else None
    end = client_keys.parse_expiry(expires, int(time.time())) if expires is not None else None
    with output.glimpse() as progress:
        view = _gateways(connection, progress)
        accept_silence(view, connection)
        chosen = client_keys.parse_models(models, _book(view)) if models is not None else None
        new = client_keys.NewKey(name, chosen, limit, end)
        key = client_keys.make_key()
        client_keys.create(new, key, view, connection, progress)
    site = load_site(view.current, connection.inventory)
    url = f"{gateway_url(site, answering_gateways(view.current)[0])}/v1"
    if as_json:
        document = {"name": name, "key": key, "models": chosen, "rate": limit, "expires": end, "url": url}
        output.show_json(document)
        return
    output.say(f"{key}\n")
    output.note(
        f"This is the key of {name}. It is shown this once: copy it now. If it is lost, revoke it and make another."
    )
    root = "--cacert onprem-llm-ca.crt " if site.gateway.tls.mode == "ca" else ""
    if root:
        output.note("The root certificate that clients need: onprem-llm tls root > onprem-llm-ca.crt")
    output.note(f'With the key in KEY:\n  curl {root}{url}/models -H "Authorization: Bearer $KEY"')


@command.command("list", short_help="Show the keys, without what is secret.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@connection_options(limit=False)
def list_keys(as_json: bool, connection: Connection) -> None:
    """Show the keys: what each may ask, how often, until when, who made it.

    \b
    Example:
      onprem-llm key list
    """
    with output.glimpse() as progress:
        keys, notes = client_keys.listed(_gateways(connection, progress), connection, progress)
    if as_json:
        output.show_json({"keys": keys, "notes": notes})
    else:
        output.show_table(LIST, [_row(name, key, time.time()) for name, key in sorted(keys.items())])
    for note in notes:
        output.note(note)


@command.command("revoke", short_help="Take a key away.")
@click.argument("name")
@connection_options(limit=False)
def revoke(name: str, connection: Connection) -> None:
    """Take a key away: its next request is refused. What it used stays known; the name can be given again.

    \b
    Example:
      onprem-llm key revoke alice
    """
    if name in client_keys.INTERNAL:
        raise UsageError(f"{name!r} is a key of onprem-llm's own and cannot be revoked", hint="onprem-llm key list")
    client_keys.check_name(name)
    with output.glimpse() as progress:
        view = _gateways(connection, progress)
        accept_silence(view, connection)
        client_keys.revoke(name, view, connection, progress)
    output.say(f"{name} is revoked.")


@command.command("usage", short_help="Show what each key used.")
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@connection_options(limit=False)
def usage(name: str | None, as_json: bool, connection: Connection) -> None:
    """Show requests, tokens and refusals of each key, from its first day on, summed over the gateways.

    \b
    Example:
      onprem-llm key usage
      onprem-llm key usage alice --json
    """
    with output.glimpse() as progress:
        totals, notes = client_keys.usage(_gateways(connection, progress), connection, progress)
    if name is not None and name not in totals:
        raise InvalidError(
            f"no key is called {name!r}; keys: {', '.join(totals) or 'none'}", hint="onprem-llm key list"
        )
    shown = {key: counters for key, counters in totals.items() if name in (None, key)}
    if as_json:
        output.show_json({"usage": shown, "streams": "counted as requests, without tokens", "notes": notes})
    else:
        output.show_table(USAGE, [(key, *(one[c] for c in client_keys.COUNTERS)) for key, one in shown.items()])
        output.note(STREAMS)
    for note in notes:
        output.note(note)


def _gateways(connection: Connection, progress: output.Progress) -> View:
    """Look at the hosts; a gateway that was not deployed yet is said to be that."""
    view = look(connection, progress)
    if not answering_gateways(view.current):
        gateway_of(view)
    return view


def _book(view: View) -> Mapping[str, BookEntry]:
    """Return the deployments of the book, or of its copy where the gateway host with the book is silent."""
    book = answering_gateways(view.current)[0].book
    return book.deployments if book is not None else {}


def _row(name: str, key: Mapping[str, Any], now: float) -> tuple[object, ...]:
    """Lay out one key."""
    models, rate, expires = key.get("models"), key.get("rate"), key.get("expires")
    state = "revoked" if key.get("revoked") is not None else "internal" if key.get("internal") else "valid"
    if state == "valid" and isinstance(expires, int) and expires <= now:
        state = "expired"
    return (
        name,
        "all" if models is None else ", ".join(models),
        f"{rate['count']}/{rate['unit']}" if rate else None,
        client_keys.moment(expires),
        client_keys.moment(key.get("created")),
        key.get("created_by"),
        state,
    )
