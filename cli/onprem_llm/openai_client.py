"""Ask a deployment from its own host: the key never leaves it, and a service that listens locally answers too."""

import codecs
import json
from collections.abc import Iterator, Mapping

from onprem_llm.connection import Connection
from onprem_llm.ssh import stream

# Runs on the host with its own python3 (3.8 on). Reads the question on stdin, the key from its file, and passes the
# server-sent events on as they come. An HTTP error is its exit code 1 and its text on stderr.
ASK = """
import json, ssl, sys, urllib.request, urllib.error
order = json.load(sys.stdin)
key = open(order["key_file"]).read().strip()
headers = {"Content-Type": "application/json", "Authorization": "Bearer " + key}
request = urllib.request.Request(order["url"], json.dumps(order["body"]).encode(), headers)
trust = ssl.create_default_context()
trust.check_hostname, trust.verify_mode = False, ssl.CERT_NONE  # the host asks itself
https = urllib.request.HTTPSHandler(context=trust)
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), https)
try:
    with opener.open(request, timeout=order["timeout"]) as answer:
        for line in answer:
            sys.stdout.buffer.write(line)
            sys.stdout.buffer.flush()
except urllib.error.HTTPError as error:
    sys.exit("HTTP %d: %s" % (error.code, error.read().decode(errors="replace")[:500]))
except OSError as error:
    sys.exit("%s: %s" % (order["url"], error))
"""


def ask(
    host: str, url: str, key_file: str, body: Mapping[str, object], connection: Connection, *, timeout: float = 300
) -> Iterator[dict[str, object]]:
    """Yield the chunks of a streamed completion, as OpenAI's API has them. `timeout` in seconds, between two bytes."""
    order = {"url": url, "key_file": key_file, "body": {**body, "stream": True}, "timeout": timeout}
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    rest = ""
    for data in stream(host, ["python3", "-c", ASK], connection, stdin=json.dumps(order).encode()):
        *lines, rest = (rest + decoder.decode(data)).split("\n")
        yield from events(lines)
    yield from events([rest])


def events(lines: list[str]) -> Iterator[dict[str, object]]:
    """Read the `data:` lines of server-sent events; `[DONE]` is the end and no event."""
    for line in lines:
        field, _, value = line.partition(":")
        if field == "data" and value.strip() not in {"", "[DONE]"}:
            yield json.loads(value)


def text_of(event: Mapping[str, object]) -> str:
    """Return the text that one chunk adds, of a chat or a completion."""
    choices = event.get("choices")
    if not isinstance(choices, list) or not choices:
        return ""
    choice = choices[0]
    delta = choice.get("delta") or {}
    return str(delta.get("content") or choice.get("text") or "")
