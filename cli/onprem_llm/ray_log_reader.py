"""Runs on a gateway host, with the host's own python3 (3.8 on): the log of a replica on a Ray cluster elsewhere.

The control host sends this file's text; it imports nothing of ours. Arguments: the dashboard's address, the file of the
token or "", the node's address, the worker's id, how many lines, "follow" or "". Ray reads the files of that worker
where they are. Ends with a line on stderr where there is nothing to show.
"""

from __future__ import annotations

import http.client
import json
import sys
import threading
import urllib.parse
from pathlib import Path

ANSWER_SECONDS = 30
CHUNK = 65536


class Dashboard:
    """A Ray cluster's dashboard, http(s)://HOST:PORT."""

    def __init__(self, address: str, token: str) -> None:
        """Take the token, '' for none."""
        self.address, self.token = address, token

    def get(
        self, path: str, query: dict[str, object], seconds: float | None = ANSWER_SECONDS
    ) -> http.client.HTTPResponse:
        """Return the answer, which is open; ValueError where Ray refuses."""
        at = urllib.parse.urlsplit(self.address)
        kind = http.client.HTTPSConnection if at.scheme == "https" else http.client.HTTPConnection
        there = kind(str(at.hostname), at.port, timeout=seconds)
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        there.request("GET", f"{path}?{urllib.parse.urlencode(query)}", headers=headers)
        answer = there.getresponse()
        if answer.status in (401, 403):
            raise ValueError(
                f"it refuses the token of this host ({answer.status}). The next deploy on Ray brings the one that "
                "onprem_llm_site.ray.token_file names"
            )
        if answer.status != 200:
            raise ValueError(f"it answered {answer.status}: {answer.read(300).decode('utf-8', 'replace')}")
        return answer

    def names(self, node: str, worker: str) -> list[str]:
        """Return the names of a worker's files."""
        said = json.loads(self.get("/api/v0/logs", {"node_ip": node, "glob": f"worker-{worker}*"}).read())
        groups = (said.get("data") or {}).get("result") or {}
        return sorted(name for group in groups.values() for name in group)

    def show(self, query: dict[str, object], gate: threading.Lock, *, follow: bool) -> None:
        """Print the end of a file, and what comes where it is followed."""
        way = "/api/v0/logs/stream" if follow else "/api/v0/logs/file"
        answer = self.get(way, query, None if follow else ANSWER_SECONDS)
        for data in iter(lambda: answer.read1(CHUNK), b""):
            with gate:
                sys.stdout.buffer.write(data)
                sys.stdout.buffer.flush()


def main(address: str, file: str, node: str, worker: str, lines: str, follow: str) -> str | None:
    """Print the files one after another, side by side where they are followed; return what went wrong."""
    token = Path(file).read_text(encoding="utf-8").strip() if file else ""
    if not all("!" <= letter <= "~" for letter in token):  # http.client would say it whole
        return f"{file}: expected the Ray cluster's token, one line of printable ASCII without blanks"
    ray, gate = Dashboard(address, token), threading.Lock()
    found = ray.names(node, worker)
    if not found:
        return f"Ray has no log of it on {node} any more"
    # With none Ray would send its own number of them.
    queries: list[dict[str, object]] = [
        {"node_ip": node, "filename": name, "lines": max(1, int(lines))} for name in found
    ]
    if follow:
        several = [
            threading.Thread(target=ray.show, args=(query, gate), kwargs={"follow": True}, daemon=True)
            for query in queries
        ]
        for one in several:
            one.start()
        for one in several:
            one.join()
        return None
    for query in queries if int(lines) else []:
        ray.show(query, gate, follow=False)
    return None


if __name__ == "__main__":
    try:
        sys.exit(main(*sys.argv[1:]))
    except (OSError, http.client.HTTPException, ValueError) as error:
        sys.exit(f"the Ray cluster at {sys.argv[1]}: {type(error).__name__}: {error}")
