"""A stand-in for Ray Serve's API, which behaves as Ray 2.60 did where it was tried."""

import http.server
import json
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

TOKEN = "t0ken"
TRACEBACK = """\
The deployment failed to start 3 times in a row. Error:
ray::ServeReplica:tiny:LLMServer:tiny.__init__() (pid=7)
  File "/usr/local/lib/python3.11/dist-packages/ray/x.py", line 222, in _get_vllm_engine_config
    raise RuntimeError("…") from None
    ^^^^^^^^^^^^^^^^^^^^^^^^
RuntimeError: Failed to create vLLM engine config: no config.json in /weights/tiny
"""


class Api(http.server.BaseHTTPRequestHandler):
    """Keeps what it was told; an application runs one look after it was told, unless its import path says `fails`."""

    apps: dict[str, dict[str, Any]]
    puts: list[dict[str, Any]]
    port_of_proxies: int | None
    silent: int
    leaves: int  # looks until one that is not listed any more is gone
    others: dict[str, Any]  # path -> what Ray says there
    more: dict[str, Any]  # of its answer, beside what follows from the other ones

    def _refused(self) -> bool:
        one = type(self)
        if one.silent:
            one.silent -= 1
            self._say(503, {})
            return True
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._say(401, {})
            return True
        return False

    def _say(self, status: int, answer: object) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(answer.encode() if isinstance(answer, str) else json.dumps(answer).encode())

    def do_GET(self) -> None:
        if self._refused():
            return
        one = type(self)
        path = urllib.parse.unquote(self.path.partition("?")[0])
        if path in one.others:
            self._say(200, one.others[path](urllib.parse.parse_qs(self.path.partition("?")[2])))
            return
        proxies = {"node": {"status": "HEALTHY"}} if one.port_of_proxies else {}
        said = json.loads(json.dumps(one.apps))
        options = {"port": one.port_of_proxies}
        self._say(200, {"applications": said, "proxies": proxies, "http_options": options, **one.more})
        for app in one.apps.values():
            if app["status"] == "DEPLOYING" and app["deployed_app_config"]["import_path"] != "waits":
                app.update(ended(app["deployed_app_config"]))
        if one.leaves:
            one.leaves -= 1
        else:
            one.apps = {name: app for name, app in one.apps.items() if app["status"] != "DELETING"}

    def do_PUT(self) -> None:
        if self._refused():
            return
        one = type(self)
        document = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        one.puts.append(document)
        if document.get("wrong"):
            self._say(400, {"error": "no such field: wrong"})
            return
        going = {"status": "DELETING", "deployments": {}}
        kept = {name: {**app, **going} for name, app in one.apps.items()} if one.leaves else {}
        kept |= {name: app for name, app in one.apps.items() if app.get("source") == "imperative"}
        for app in document["applications"]:
            there = one.apps.get(app["name"])
            # The same again changes nothing, whatever became of it.
            same = there is not None and there["deployed_app_config"] == app
            kept[app["name"]] = (
                there if same else {"status": "DEPLOYING", "deployed_app_config": app, "deployments": {}}
            )
        one.apps = kept
        self.send_response(200)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        """Say nothing."""


def ended(app: dict[str, Any]) -> dict[str, Any]:
    fails = app["import_path"] == "fails"
    replica = {"state": "STARTING" if fails else "RUNNING"}
    message = TRACEBACK if fails else ""
    part = {"status": "DEPLOY_FAILED" if fails else "HEALTHY", "message": message, "replicas": [replica]}
    ingress = {"status": "HEALTHY", "message": "", "replicas": [{"state": "RUNNING"}]}
    parts = {"LLMServer:tiny": part, "OpenAiIngress": ingress}
    return {"status": "DEPLOY_FAILED" if fails else "RUNNING", "message": "", "deployments": parts}


def app(name: str = "tiny", path: str = "works") -> dict[str, Any]:
    return {"name": name, "import_path": path, "deployments": [{"name": "LLMServer:tiny", "max_surge_percent": 100}]}


def document(*apps: dict[str, Any], **more: object) -> dict[str, Any]:
    return {"http_options": {"port": 8100}, "applications": list(apps), **more}


def serving(told: dict[str, Any], path: str = "works") -> dict[str, Any]:
    return {"deployed_app_config": told, **ended({**told, "import_path": path})}


@contextmanager
def serve_api() -> Iterator[Any]:
    """Run one on 127.0.0.1; `port` says where."""

    class One(Api):
        """An API of its own."""

    One.apps, One.puts, One.port_of_proxies, One.silent = {}, [], None, 0
    One.leaves, One.others, One.more = 0, {}, {}
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), One)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    One.port = server.server_address[1]  # type: ignore[attr-defined]
    yield One
    server.shutdown()
