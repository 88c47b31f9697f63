"""Two hubs on loopback: real HTTP servers that answer as Hugging Face and ModelScope do, and misbehave when told to.

What the servers know of a model is a mapping of paths to bytes. Large files are LFS files: a reader of them is sent on
to another host (`localhost` instead of 127.0.0.1), with a signed address.
"""

import hashlib
import json
import threading
from collections import defaultdict
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.hubs.answers import LARGE, Answers


def git_sha1(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@dataclass
class Asked:
    """A request as it arrived."""

    path: str
    host: str
    start: int
    authorization: str
    cookie: str
    user_agent: str
    identity: bool


@dataclass
class HubServer:
    """Both hubs on one port. `faults[path]` is used up answer by answer; `always[path]` is not."""

    models: dict[str, dict[str, bytes]] = field(default_factory=dict)
    revisions: dict[str, str] = field(default_factory=lambda: {"main": "a" * 40, "v1": "b" * 40})
    faults: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    always: dict[str, str] = field(default_factory=dict)
    # What listings say beside the truth.
    more: list[Any] = field(default_factory=list)
    hashless: bool = False
    # Where large files lie: another host's address; `localhost` on this port where none is named.
    storage: str = ""
    # A mirror may name the hub that it mirrors where its listing goes on.
    pages: str = ""
    asked: list[Asked] = field(default_factory=list)
    # Those among them that were answered with bytes of a file, or should have been.
    files_asked: list[Asked] = field(default_factory=list)
    # Hosts that somebody wanted to reach through us as a proxy.
    called: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    at_once: int = 0
    most_at_once: int = 0

    def __enter__(self) -> "HubServer":
        hub = self

        class Handler(_Handler):
            server_hub = hub

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    @property
    def port(self) -> int:
        port: int = self.server.server_address[1]
        return port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def fault(self, name: str) -> str:
        with self.lock:
            waiting = self.faults.get(name)
            return waiting.pop(0) if waiting else self.always.get(name, "")


class _Handler(Answers, BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Headers and body leave apart; on a kept connection the second would wait 40 ms for the first one's receipt.
    disable_nagle_algorithm = True

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except ConnectionError:
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass

    def do_GET(self) -> None:
        hub, address = self.server_hub, urlsplit(self.path)
        wanted = self.headers.get("Range", "bytes=0-")
        self.asked = Asked(
            self.path, self.headers.get("Host", ""), int(wanted.removeprefix("bytes=").split("-")[0]),
            self.headers.get("Authorization", ""), self.headers.get("Cookie", ""), self.headers.get("User-Agent", ""),
            self.headers.get("Accept-Encoding") == "identity",
        )  # fmt: skip
        hub.asked.append(self.asked)
        parts = [unquote(part) for part in address.path.strip("/").split("/")]
        query = {key: values[0] for key, values in parse_qs(address.query).items()}
        try:
            self.route(parts, query)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def do_CONNECT(self) -> None:
        self.server_hub.called.append(self.path)
        self.answer(403, b"", {})

    do_HEAD = do_GET  # noqa: N815

    def route(self, parts: list[str], query: dict[str, str]) -> None:
        match parts:
            case ["api", "v1", "models", owner, name, "repo", "files"]:
                self.modelscope_files(f"{owner}/{name}", query)
            case ["api", "v1", "models", owner, name, "repo"]:
                self.send_on(f"{owner}/{name}", query["FilePath"])
            case ["api", "models", owner, name, "revision", revision]:
                self.model_info(f"{owner}/{name}", revision)
            case ["api", "models", owner, name, "tree", revision]:
                self.tree(f"{owner}/{name}", revision, query)
            case ["cdn", owner, name, *path]:
                self.file(f"{owner}/{name}", "/".join(path))
            case [owner, name, "resolve", _, *path]:
                self.send_on(f"{owner}/{name}", "/".join(path))
            case _:
                self.answer(404, b"what?", {})

    # Hugging Face

    def model_info(self, model: str, revision: str) -> None:
        hub = self.server_hub
        if self.refused("info"):
            return
        if model not in hub.models:
            # As the hub does for what is not there and for what is private, without a token.
            self.answer(401, b"{}", {"X-Error-Code": "RepoNotFound"})
        elif revision not in hub.revisions and revision not in hub.revisions.values():
            self.answer(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        else:
            sha = hub.revisions.get(revision, revision)
            self.json({"id": model, "modelId": model, "sha": sha, "private": False, "tags": [], "downloads": 1})

    def tree(self, model: str, revision: str, query: dict[str, str]) -> None:
        if self.refused("tree"):
            return
        entries: list[Any] = [{"type": "directory", "path": "sub", "size": 0, "oid": "0" * 40}]
        for path, data in self.server_hub.models[model].items():
            entry: dict[str, Any] = {"type": "file", "path": path, "size": len(data), "oid": git_sha1(data)}
            if len(data) >= LARGE:
                entry["oid"] = git_sha1(b"pointer")
                entry["lfs"] = {"oid": sha256(data), "size": len(data), "pointerSize": 130}
            entries.append(entry)
        entries += self.server_hub.more
        # Two pages, as a large repository has.
        half = len(entries) // 2
        second = query.get("cursor") == "2"
        again = (
            f"{self.server_hub.pages or self.server_hub.url}/api/models/{model}/tree/{revision}?recursive=True&cursor=2"
        )
        self.json(entries[half:] if second else entries[:half], {} if second else {"Link": f'<{again}>; rel="next"'})

    # ModelScope

    def modelscope_files(self, model: str, query: dict[str, str]) -> None:
        hub = self.server_hub
        if self.refused("tree"):
            return
        if model not in hub.models or query["Revision"] not in {"master", "v1"}:
            self.answer(404, json.dumps({"Code": 10010205001, "Message": "not found", "Success": False}).encode(), {})
            return
        files: list[Any] = [{"Name": "sub", "Path": "sub", "Type": "tree", "Size": 0}]
        for path, data in hub.models[model].items():
            files.append({
                "Name": path.rpartition("/")[2], "Path": path, "Type": "blob", "Size": len(data),
                "Sha256": "" if hub.hashless else sha256(data), "Revision": "d" * 40, "IsLFS": len(data) >= LARGE,
            })  # fmt: skip
        root = f"{query['Root']}/" if query.get("Root") else ""
        files = [file for file in files if file["Path"].startswith(root)]
        if query.get("Recursive") == "False":
            files = [file for file in files if "/" not in file["Path"].removeprefix(root)]
        self.json({"Code": 200, "Success": True, "Data": {"Files": files + hub.more}})
