"""What a hub sends: files, whole or as a fault has them, errors, a portal's page. What it is asked for: server.py."""

import json
import time
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.hubs.server import Asked, HubServer

LARGE = 1000
SIGNATURE = "X-Amz-Signature=0123456789"


class Answers(BaseHTTPRequestHandler):
    """Answers a request; `asked` is the request as it arrived."""

    server_hub: "HubServer"
    asked: "Asked"

    def send_on(self, model: str, path: str) -> None:
        """Small files are sent from here; LFS files lie on another host, under a signed address."""
        hub = self.server_hub
        if len(hub.models.get(model, {}).get(path, b"")) < LARGE:
            self.file(model, path)
            return
        to = f"{hub.storage or f'http://localhost:{hub.port}'}/cdn/{model}/{path}?{SIGNATURE}"
        self.answer(302, b"", {"Location": to, "X-Repo-Commit": "a" * 40, "X-Linked-Etag": f'"{"c" * 64}"'})

    def file(self, model: str, path: str) -> None:
        self.server_hub.files_asked.append(self.asked)
        data = self.server_hub.models.get(model, {}).get(path)
        fault, _, value = self.server_hub.fault(path).partition(":")
        if data is None:
            self.answer(404, b"{}", {"X-Error-Code": "EntryNotFound"})
            return
        if fault == "status":
            self.status(value)
            return
        if fault in {"html", "html-nolength"}:
            self.page(length=fault == "html")
            return
        if fault == "wrong":
            data = bytes(len(data) - 1) + b"x"
        if fault == "short":
            data = data[:-3]
        if fault in {"long", "nolength-long"}:
            data += b"more"
        start = 0 if fault in {"norange", "norange-cut", "text"} else self.asked.start
        if fault == "text":
            data, fault = b"please log in", "nolength"
        self.send_bytes(data, start, fault, value)

    def send_bytes(self, data: bytes, start: int, fault: str, value: str) -> None:
        body = data[start:]
        if fault == "capped" and start:
            body = body[: int(value)]
        self.send_response(206 if start else 200)
        if start:
            said = 7 if fault == "range" else start
            self.send_header("Content-Range", f"bytes {said}-{start + len(body) - 1}/{len(data)}")
        self.send_header("Content-Type", "application/octet-stream")
        if fault.startswith("nolength"):
            self.send_header("Connection", "close")
        else:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if fault in {"cut", "norange-cut"}:
            self.wfile.write(body[: int(value)])
            self.close_connection = True
        elif fault == "hang":
            self.wfile.write(body[: int(value)])
            self.wfile.flush()
            time.sleep(60)
        elif fault == "slow":
            self.send_slowly(body, int(value))
        else:
            self.wfile.write(body)
        if fault.startswith("nolength"):
            self.close_connection = True

    def send_slowly(self, body: bytes, rate: int) -> None:
        """Send so many bytes a second, and count how many are sent at once: none whose end is on its way."""
        hub, last = self.server_hub, len(body) - 1
        with hub.lock:
            hub.at_once += 1
            hub.most_at_once = max(hub.most_at_once, hub.at_once)
        try:
            for at in range(0, last, 4096):
                self.wfile.write(body[at : min(at + 4096, last)])
                time.sleep(4096 / rate)
        finally:
            with hub.lock:
                hub.at_once -= 1
        self.wfile.write(body[last:])

    def refused(self, what: str) -> bool:
        fault, _, value = self.server_hub.fault(what).partition(":")
        if fault == "html":
            self.page()
        elif fault == "status":
            self.status(value)
        elif fault == "hang":
            time.sleep(60)
        return bool(fault)

    def status(self, value: str) -> None:
        """`429`; `429 7`: come back in 7 s; `429 t=7`: as Hugging Face says that; `403 Word`: its code of an error."""
        code, _, more = value.partition(" ")
        headers = {"X-Error-Code": more} if more else {}
        if more.isdigit():
            headers = {"Retry-After": more}
        elif more.startswith("t="):
            policy = '"fixed window";"resolvers";q=3000;w=300'
            headers = {"RateLimit": f'"resolvers";r=0;{more}', "RateLimit-Policy": policy}
        self.answer(int(code), b"{}", headers)

    def page(self, *, length: bool = True) -> None:
        """What a portal puts in place of everything."""
        page = b"<html>please log in</html>"
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header(*(("Content-Length", str(len(page))) if length else ("Connection", "close")))
        self.end_headers()
        self.wfile.write(page)
        self.close_connection = not length

    def json(self, value: object, headers: dict[str, str] | None = None) -> None:
        self.answer(200, json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})})

    def answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, text in headers.items():
            self.send_header(name, text)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
