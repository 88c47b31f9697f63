"""Stand-ins for engines: they answer health, names and chats, and hold an answer back until a test lets it go."""

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

ENGINE_KEY = "engine-key-of-the-tests"
PROMPT_TOKENS, COMPLETION_TOKENS = 7, 3


class Engine(http.server.ThreadingHTTPServer):
    """One engine; `gate` holds back chats whose body says `hold`, `healthy` answers the health check."""

    daemon_threads = True

    def __init__(self, port: int, revision: int = 1) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.gate, self.waiting, self.healthy, self.revision = threading.Event(), threading.Semaphore(0), True, revision
        self.chats = 0


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Engine

    def do_GET(self) -> None:
        if self.path == "/health":
            self._json(200 if self.server.healthy else 503, {})
        elif self.headers.get("Authorization") != f"Bearer {ENGINE_KEY}":
            self._json(401, {"error": "engine key"})
        else:
            self._json(200, {"data": [{"id": "tiny"}, {"id": f"tiny:r{self.server.revision}"}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.headers.get("Authorization") != f"Bearer {ENGINE_KEY}":
            return self._json(401, {"error": "engine key"})
        self.server.chats += 1
        if body.get("stream"):
            return self._stream(bool(body.get("hold")))
        if body.get("hold"):
            self.server.waiting.release()
            self.server.gate.wait(60)
        usage = {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": COMPLETION_TOKENS}
        return self._json(200, {"usage": usage, "choices": [{"message": {"content": "hello"}}]})

    def _stream(self, hold: bool) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self._chunk("data: one\n\n")
        if hold:
            self.server.waiting.release()
            self.server.gate.wait(60)
        self._chunk("data: [DONE]\n\n")
        self.wfile.write(b"0\r\n\r\n")

    def _chunk(self, text: str) -> None:
        self.wfile.write(f"{len(text):x}\r\n{text}\r\n".encode())
        self.wfile.flush()

    def _json(self, status: int, value: Any) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def engine(port: int) -> Iterator[Engine]:
    one = Engine(port)
    threading.Thread(target=one.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield one
    finally:
        one.gate.set()
        one.shutdown()
        one.server_close()
