"""Stands in for an engine: /health is open, everything else wants the key, and answers with the model's file."""

import http.server
import os
from pathlib import Path


class Handler(http.server.BaseHTTPRequestHandler):
    """The two answers."""

    def do_GET(self) -> None:
        """Answer."""
        allowed = self.path == "/health" or self.headers["Authorization"] == f"Bearer {os.environ['STUB_KEY']}"
        self.send_response(200 if allowed else 401)
        self.end_headers()
        self.wfile.write(Path("/model/config.json").read_bytes() if allowed else b"no key")


http.server.HTTPServer(("", 8000), Handler).serve_forever()
