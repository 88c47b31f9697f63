# SPDX-License-Identifier: Apache-2.0
"""Ray's HTTP API on the head's dashboard: asked on the head's host, or at the address of a cluster that exists."""

from __future__ import annotations

import hashlib
import json

APPLICATIONS = "/api/serve/applications/"
ANSWER = 30  # seconds for one answer: a PUT waits for Serve's controller, which may have to start
REASON = 700  # characters of Ray's own words


class RayError(Exception):
    """What was found and expected, and what to do; for a person."""


class RayApi:
    """The head's dashboard."""

    def __init__(self, where, token, limit=ANSWER):
        """Name its port on 127.0.0.1, or http(s)://HOST:PORT; the cluster's token, '' for none; seconds for an answer.

        Over https it has to have a certificate that this host trusts.
        """
        self.elsewhere = isinstance(where, str)
        self.where = where if self.elsewhere else "http://127.0.0.1:" + str(where)
        self.token, self.limit = token, limit

    def ask(self, method, path, body=None):
        """Return the decoded answer, None where it has none.

        Raises OSError, HTTPException or ValueError while nobody answers as expected; RayError for a refusal.
        """
        text = self.text(method, path, body)
        return json.loads(text) if text.strip() else None

    def text(self, method, path, body=None):
        """Return the answer as it comes; raises as `ask`."""
        headers = {"Content-Type": "application/json"}
        if not all("!" <= letter <= "~" for letter in self.token):
            # Said by http.client, its words would have the token in them.
            raise RayError(
                "the Ray cluster's token, as it is on this host, is no single line of printable ASCII without blanks: "
                "nothing was asked"
            )
        if self.token:
            headers["Authorization"] = "Bearer " + self.token
        connection = self._connection()
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            status, text = answer.status, answer.read().decode("utf-8", "replace")
        finally:
            connection.close()
        if status in (401, 403):
            raise RayError(self._refused(status))
        if status == 400:
            raise RayError(
                f"Ray does not take what it was told, and goes on with what it had: {text[:REASON]}. Where it names a "
                "setting, change that; where it knows no such field, this Ray is one that was not tried: take another"
            )
        if status != 200:
            raise ValueError(f"it answered {status}: {text[:200]}")
        return text

    def _connection(self):
        import http.client  # 50 ms with the next one, which a look at a host without Ray does not pay
        import urllib.parse

        at = urllib.parse.urlsplit(self.where)
        kind = http.client.HTTPSConnection if at.scheme == "https" else http.client.HTTPConnection
        return kind(at.hostname, at.port, timeout=self.limit)

    def _refused(self, status):
        if not self.elsewhere:
            return (
                f"Ray refuses the token of this host ({status}): the head was started with another one. "
                "Run onprem-llm cluster up"
            )
        found = "the token that it was given" if self.token else "to answer without a token"
        return (
            f"the Ray cluster at {self.where} refuses {found} ({status}). Write the cluster's own into a file of the "
            "control host, and that file's path into onprem_llm_site.ray.token_file"
        )


def told_digest(application):
    """Return the sha256 of an application as Serve was told it; cli/onprem_llm/serve_state.py makes the same."""
    text = json.dumps(_plain(application), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def _plain(value):
    """Return a value with whole floats as integers: Serve keeps some of its numbers as floats."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def last_words(message):
    """Return the last line that is not part of a traceback's body."""
    lines = [line.strip() for line in message.splitlines() if line.strip(" ^~") and not line.startswith(" ")]
    return (lines or [message.strip()])[-1][:REASON]
