# SPDX-License-Identifier: Apache-2.0
"""The side of onprem-llm-keys that answers: to addresses of gateways alone, and to who signs what it was given.

What is to be signed is chosen here and belongs to one connection: a question that somebody overheard is no good on
another one, and no two clocks need agree (docs/adr/0004-gateways-tell-each-other-their-keys.md).
"""

import hmac
import http.server
import ipaddress
import secrets
import socket
import socketserver
import sys
import threading

from ansible.module_utils import onprem_llm_client_keys as store

LIMIT = 2  # seconds for one host to answer
IP_FREEBIND = 15  # the address may come after us


class PeerError(Exception):
    """Why another gateway's keys could not be had, or ours not be told; for the log."""


def say(text):
    """Write to the journal."""
    print(text, file=sys.stderr, flush=True)


class Handler(http.server.BaseHTTPRequestHandler):
    """Tells the record to who can sign the question, and with it what this connection was given to sign."""

    protocol_version = "HTTP/1.1"  # the question comes on the connection of its challenge
    timeout = LIMIT
    keys = None
    challenge = None

    def do_GET(self):
        """Answer."""
        given, self.challenge = self.challenge, None  # good for one question
        if self.path == "/challenge":
            self.challenge = secrets.token_hex(16).encode()
            self.answer(self.challenge, "")
            return
        nonce = self.headers.get("X-Nonce", "").encode()
        try:
            asked = self.keys.sign(b"ask", nonce, given) if given and self.path == "/keys" else None
            if not asked or not hmac.compare_digest(self.headers.get("X-Signature", "").encode(), asked.encode()):
                self.send_error(404)
                return
            record = self.keys.record()
            same = self.headers.get("X-Have") == store.digest(record)
            body = b"" if same else store.canonical(record).encode()
            signature = self.keys.sign(b"answer", nonce, body)
        except (PeerError, store.KeysError, OSError) as error:
            say(f"cannot tell the keys: {error}")
            self.send_error(503)
            return
        self.answer(body, signature)

    def answer(self, body, signature):
        """Send it."""
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Signature", signature)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Say nothing of each question."""


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    """Listens on the cluster address, also before the host has it."""

    allow_reuse_address = True
    daemon_threads = True
    others = ()

    def verify_request(self, request, client_address):
        """Give no thread to who is no gateway."""
        return plain(client_address[0]) in self.others

    def server_bind(self):
        """Bind an address that may come later."""
        self.socket.setsockopt(socket.SOL_IP, IP_FREEBIND, 1)
        super().server_bind()

    def server_close_quietly(self):
        """Stop listening."""
        self.shutdown()
        self.server_close()


def plain(address):
    """Return an address as two texts of it are the same."""
    try:
        return str(ipaddress.ip_address(address.partition("%")[0]))
    except ValueError:
        return address


def served(peers, before):
    """Return (where, server) that listens where it should; `before` is what it was."""
    where = (peers["listen"], peers["port"]) if peers else None
    if before and before[0] == where:
        before[1].others = {plain(address) for address in peers["others"]}
        return before
    if before:
        before[1].server_close_quietly()
    if where is None:
        return None
    kind = type("Server", (Server,), {"address_family": socket.AF_INET6 if ":" in where[0] else socket.AF_INET})
    server = kind(where, Handler)
    server.others = {plain(address) for address in peers["others"]}
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return where, server
