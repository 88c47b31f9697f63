"""`onprem-llm chat`: one question, one streamed answer."""

import sys
from dataclasses import dataclass

import click

from onprem_llm import output
from onprem_llm.connection import Connection
from onprem_llm.errors import InvalidError, OnpremError, UsageError
from onprem_llm.hosts import Current
from onprem_llm.look import View, gateway_of, look, require_an_answer
from onprem_llm.openai_client import ask, text_of
from onprem_llm.options import connection_options
from onprem_llm.planning.addresses import EVERY, LOOPBACK, standing_claim
from onprem_llm.planning.gateway import PROJECT
from onprem_llm.rendering.haproxy_maps import CLI_KEY
from onprem_llm.running import only_deployment, places
from onprem_llm.spec.deployment import Deployment, parse_deployment
from onprem_llm.spec.site import Site
from onprem_llm.wanted import load_site, require_known

PATHS = {"chat": "/v1/chat/completions", "completion": "/v1/completions"}


@click.command("chat", short_help="Ask a deployment a question and stream the answer.")
@click.argument("message")
@click.option("--deployment", "-d", "name", help="Which deployment; not needed where there is one.")
@click.option("--system", help="A system prompt.")
@click.option("--max-tokens", default=512, show_default=True, type=click.IntRange(min=1))
@click.option("--temperature", default=0.0, show_default=True, type=click.FloatRange(min=0, max=2))
@click.option("--replica", type=click.IntRange(min=0), help="Ask this replica itself, past the gateway.")
@click.option("--json", "as_json", is_flag=True, help="Print the whole answer as JSON.")
@connection_options()
def command(
    message: str,
    name: str | None,
    system: str | None,
    max_tokens: int,
    temperature: float,
    replica: int | None,
    as_json: bool,
    connection: Connection,
) -> None:
    """Ask a deployment a question and stream the answer. `-` reads the question from stdin.

    The question goes through the gateway, asked on its own host, so that the key stays there.

    \b
    Example:
      onprem-llm chat "What is the highest mountain?"
      echo "Summarise: …" | onprem-llm chat - --deployment tiny
    """
    question = _question(message)
    view = look(connection)
    require_an_answer(view)
    current = view.current
    name = name or only_deployment(current.book)
    require_known(name, current)
    deployment = parse_deployment(current.book[name].model_yaml, f"the book's {name}")
    if deployment.task not in PATHS:
        raise InvalidError(f"{name} is for {deployment.task}, it cannot chat", hint="ask its endpoint; see status")
    site = load_site(current, connection.inventory)
    target = _gateway(view, site) if replica is None else _replica(current, name, replica, site)
    body = {**_body(deployment, question, system), "max_tokens": max_tokens, "temperature": temperature}
    answer = _stream(target, PATHS[deployment.task], body, connection, quiet=as_json)
    if as_json:
        output.show_json({"deployment": name, "host": target.host, "question": question, "answer": answer})


@dataclass(frozen=True)
class _Target:
    """Where to ask: a host, an address that it reaches itself, and the file of the key there."""

    host: str
    url: str
    key_file: str


def _gateway(view: View, site: Site) -> _Target:
    host = gateway_of(view)
    if PROJECT not in host.projects:
        raise OnpremError(f"no gateway runs on {host.name}", hint="onprem-llm deploy MODEL_YAML starts it")
    claim = standing_claim(host, PROJECT)
    address = claim.address if claim and claim.address not in EVERY else LOOPBACK
    scheme = "https" if site.gateway.tls.mode != "off" else "http"
    return _Target(host.name, f"{scheme}://{address}:{site.public_port}", site.key_path(f"client-{CLI_KEY}"))


def _replica(current: Current, name: str, replica: int, site: Site) -> _Target:
    found = {place.project.name: place for place in places(current, name)}
    place = found.get(f"{name}-{replica}")
    if place is None:
        raise InvalidError(f"{name} has no replica {replica}; it has: {', '.join(found)}", hint="onprem-llm status")
    return _Target(place.host.name, place.url(), site.key_path(name))


def _question(message: str) -> str:
    question = sys.stdin.read() if message == "-" else message
    if not question.strip():
        raise UsageError("the question is empty", hint='onprem-llm chat "What is the highest mountain?"')
    return question


def _body(deployment: Deployment, question: str, system: str | None) -> dict[str, object]:
    if deployment.task == "completion":
        return {"model": deployment.served_name, "prompt": question}
    messages = [{"role": "system", "content": system}] if system else []
    return {"model": deployment.served_name, "messages": [*messages, {"role": "user", "content": question}]}


def _stream(target: _Target, path: str, body: dict[str, object], connection: Connection, *, quiet: bool) -> str:
    parts = []
    for event in ask(target.host, target.url + path, target.key_file, body, connection):
        text = text_of(event)
        parts.append(text)
        if not quiet:
            click.echo(text, nl=False)
    if not quiet:
        click.echo()
    return "".join(parts)
