"""Requests as bytes, for what no decent client sends."""

import http.client
import json
from typing import Any
from urllib.parse import urlsplit

CHAT = "/v1/chat/completions"


class Answer:
    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status, self.headers, self.body = response.status, response.headers, response.read()

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """The error, which must have OpenAI's shape and nothing else."""
        assert self.headers["content-type"] == "application/json"
        assert list(self.json) == ["error"]
        assert list(self.json["error"]) == ["message", "type", "param", "code"]
        found: dict[str, Any] = self.json["error"]
        return found

    @property
    def seen(self) -> dict[str, Any]:
        """What the engine said of the request."""
        assert self.status == 200, self.body
        found: dict[str, Any] = self.json["seen"]
        return found


def ask(
    url: str, path: str, body: Any = None, *, key: str | None = "alice", method: str = "POST", **headers: str
) -> Answer:
    """Send a request; a body that is not bytes is sent as JSON, an iterator in chunks."""
    place = urlsplit(url)
    connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=30)
    raw = body if isinstance(body, bytes) or hasattr(body, "__next__") or body is None else json.dumps(body).encode()
    sent = {"Authorization": f"Bearer sk-{key}"} if key else {}
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, raw, sent, encode_chunked=hasattr(body, "__next__"))
    try:
        return Answer(connection.getresponse())
    finally:
        connection.close()


class Kept:
    """A connection that has been used already, and is kept."""

    def __init__(self, url: str, body: Any) -> None:
        place = urlsplit(url)
        self._connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=30)
        assert self.ask(CHAT, body).status == 200

    def ask(self, path: str, body: Any) -> Answer:
        self._connection.request("POST", path, json.dumps(body), {"Authorization": "Bearer sk-alice"})
        return Answer(self._connection.getresponse())


def chat(model: str, text: Any = "hi", **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], "model": model, **more}
