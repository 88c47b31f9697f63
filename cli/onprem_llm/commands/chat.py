"""`onprem-llm chat`: one question, one streamed answer."""

import sys

import click

from onprem_llm import output
from onprem_llm.connection import Connection
from onprem_llm.errors import InvalidError, UsageError
from onprem_llm.look import look
from onprem_llm.openai_client import ask, text_of
from onprem_llm.options import connection_options
from onprem_llm.running import Place, only_deployment, places
from onprem_llm.spec.deployment import Deployment, parse_deployment
from onprem_llm.wanted import load_site, require_known

PATHS = {"chat": "/v1/chat/completions", "completion": "/v1/completions"}


@click.command("chat", short_help="Ask a deployment a question and stream the answer.")
@click.argument("message")
@click.option("--deployment", "-d", "name", help="Which deployment; not needed where there is one.")
@click.option("--system", help="A system prompt.")
@click.option("--max-tokens", default=512, show_default=True, type=click.IntRange(min=1))
@click.option("--temperature", default=0.0, show_default=True, type=click.FloatRange(min=0, max=2))
@click.option("--json", "as_json", is_flag=True, help="Print the whole answer as JSON.")
@connection_options()
def command(
    message: str,
    name: str | None,
    system: str | None,
    max_tokens: int,
    temperature: float,
    as_json: bool,
    connection: Connection,
) -> None:
    """Ask a deployment a question and stream the answer. `-` reads the question from stdin.

    The question is asked on the replica's own host, so the key stays there.

    \b
    Example:
      onprem-llm chat "What is the highest mountain?"
      echo "Summarise: …" | onprem-llm chat - --deployment tiny
    """
    question = _question(message)
    view = look(connection)
    current = view.current
    name = name or only_deployment(current.book)
    require_known(name, current)
    deployment = parse_deployment(current.book[name].model_yaml, f"the book's {name}")
    if deployment.task not in PATHS:
        raise InvalidError(f"{name} is for {deployment.task}, it cannot chat", hint="ask its endpoint; see status")
    place = places(current, name)[0]
    key_file = load_site(current, connection.inventory).key_path(name)
    body = {**_body(deployment, question, system), "max_tokens": max_tokens, "temperature": temperature}
    answer = _stream(place, PATHS[deployment.task], key_file, body, connection, quiet=as_json)
    if as_json:
        output.show_json({"deployment": name, "host": place.host.name, "question": question, "answer": answer})


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


def _stream(
    place: Place, path: str, key_file: str, body: dict[str, object], connection: Connection, *, quiet: bool
) -> str:
    parts = []
    for event in ask(place.host.name, place.url() + path, key_file, body, connection):
        text = text_of(event)
        parts.append(text)
        if not quiet:
            click.echo(text, nl=False)
    if not quiet:
        click.echo()
    return "".join(parts)
