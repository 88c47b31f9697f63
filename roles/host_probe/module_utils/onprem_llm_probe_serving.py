# SPDX-License-Identifier: Apache-2.0
"""What serves and guards on a host: the gateway's process, the firewall, certificates, the healer, client keys.

A host without them costs a few failed look-ups and no process.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import json
import re
import shutil
import socket
import subprocess
from pathlib import Path

TIME_LIMIT = 5.0  # seconds for HAProxy or nft
GATEWAY = "gateway"  # the project's folder
FIREWALL, RAY_FIREWALL = Path("/etc/onprem-llm/firewall.nft"), Path("/etc/onprem-llm/ray.nft")
TABLE, RAY_TABLE = ("inet", "onprem_llm"), ("inet", "onprem_llm_ray")
# systemd keeps a link here for each unit that is active.
HEALER = Path("/run/systemd/units/invocation:onprem-llm-heal.service")
CLIENT = "client-"
ENGINE_TLS = ("engine.key", "engine.crt", "ca.crt")
# Bits of HAProxy's srv_admin_state: set through the socket, by the configuration, by another server, by DNS.
MAINTENANCE, DRAIN = 0x01 | 0x02 | 0x04 | 0x20, 0x08 | 0x10
RUNNING = ("2", "3")  # srv_op_state: its checks pass; 3 is on its way out


def gateway(data_root):
    """Return the `gateway` part of the probe, or None on a host without one."""
    folder = Path(data_root, GATEWAY)
    if not (folder / "compose.yaml").is_file():
        return None
    found = {
        "running": False,
        "error": None,
        "servers": {},
        "pending_reload": _pending(folder),
        "peers": _peers(folder),
    }
    try:
        answer = _ask(folder / "run" / "admin.sock", "show servers state; show stat -1 4 -1")
        found.update(running=True, servers=_servers(answer))
    except OSError as error:
        found["error"] = f"the gateway's process does not answer: {error.strerror or error}"
    except (KeyError, ValueError) as error:
        found["error"] = f"the gateway's process said what was not understood: {error!r}"
    return found


def _peers(folder):
    """Return the addresses of the other gateway hosts; none where this is the only one."""
    try:
        return json.loads((folder / "conf" / "peers.json").read_text(encoding="utf-8")).get("others", [])
    except (OSError, ValueError, AttributeError):
        return []


def _ask(path, command):
    """Send a line to HAProxy's socket and return what it answers."""
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as connection:
        connection.settimeout(TIME_LIMIT)
        connection.connect(str(path))
        connection.sendall(command.encode() + b"\n")
        connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(65536), b"")).decode("utf-8", "replace")


def _servers(answer):
    """Return {backend/server: state} from both tables of the answer."""
    found = {}
    for row in _rows(answer, "# be_id", " "):
        bits = int(row["srv_admin_state"])
        found[f"{row['be_name']}/{row['srv_name']}"] = {
            "address": row["srv_addr"],
            "port": int(row["srv_port"]),
            "admin": "maint" if bits & MAINTENANCE else "drain" if bits & DRAIN else "ready",
            "up": row["srv_op_state"] in RUNNING,
            "check": None,
            "sessions": 0,
        }
    for row in _rows(answer, "# pxname", ","):
        server = found.get(f"{row['pxname']}/{row['svname']}")
        if server:
            code = row.get("check_code")
            status = (row.get("check_status") or "").lstrip("* ")
            server.update(sessions=int(row["scur"] or 0), check=(f"{status}/{code}" if code else status) or None)
    return found


def _rows(answer, heading, separator):
    """Return the rows below a heading, up to an empty line, as dicts."""
    lines = answer.splitlines()
    begin = next((number for number, line in enumerate(lines) if line.startswith(heading)), None)
    if begin is None:
        return []
    end = next((number for number in range(begin, len(lines)) if not lines[number].strip()), len(lines))
    return csv.DictReader([lines[begin][2:], *lines[begin + 1 : end]], delimiter=separator)


def _pending(folder):
    """Return whether files differ from what the process has read (role gateway writes that down)."""
    try:
        loaded = json.loads((folder / "run" / "loaded.json").read_text(encoding="utf-8"))
        rendered = json.loads((folder / ".rendered.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return True
    names = {*loaded, *(name for name in rendered if name != "compose.yaml")}
    return any(loaded.get(name) != _sha256(folder / name) for name in names)


def _sha256(path):
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None


def firewall():
    """Return the `firewall` part of the probe, or None on a host without rules of ours."""
    try:
        text = FIREWALL.read_text(encoding="utf-8")
    except OSError:
        return None
    ports = re.search(r"tcp dport \{([^}]*)\} fib daddr type local", text)
    sources = re.findall(r"ip6? saddr \{([^}]*)\} accept", text)
    return {
        "ports": [int(port) for port in _listed(ports.group(1) if ports else "")],
        "sources": [source for group in sources for source in _listed(group)],
        "active": _is_loaded(TABLE),
        "gangs": _gangs(text),
    }


def _gangs(text):
    """Return what is let in at the ports of each gang, an IPv4 and an IPv6 rule of one together."""
    gangs = {}
    for addresses, ports in re.findall(r"ip6? saddr \{([^}]*)\} tcp dport \{([^}]*)\} accept", text):
        gangs.setdefault(tuple(int(port) for port in _listed(ports)), []).extend(_listed(addresses))
    return [{"ports": list(ports), "sources": sorted(sources)} for ports, sources in sorted(gangs.items())]


def ray_firewall():
    """Return {rules: ports -> addresses, active} of what guards Ray, or None on a host without it."""
    try:
        text = RAY_FIREWALL.read_text(encoding="utf-8")
    except OSError:
        return None
    rules = {ports: [] for ports in re.findall(r"tcp dport ([0-9-]+) fib daddr type local drop", text)}
    for sources, ports in re.findall(r"ip6? saddr \{([^}]*)\} tcp dport ([0-9-]+) accept", text):
        rules.setdefault(ports, []).extend(_listed(sources))
    return {"rules": rules, "active": _is_loaded(RAY_TABLE)}


def _listed(text):
    return [item.strip() for item in text.split(",") if item.strip()]


def _is_loaded(table):
    """Return whether the kernel has a table of ours with its rules."""
    nft = shutil.which("nft", path="/usr/sbin:/usr/bin:/sbin:/bin")
    if nft is None:
        return False
    try:
        said = subprocess.check_output([nft, "list", "table", *table], stderr=subprocess.DEVNULL, timeout=TIME_LIMIT)
    except (OSError, subprocess.SubprocessError):
        return False
    return b"drop" in said


def certificates(data_root, book_dir):
    """Return {ca, gateway, engine, registry: {not_after, written, names}} of those that are there."""
    files = {
        "ca": Path(book_dir, "ca", "ca.crt"),
        "gateway": Path(data_root, GATEWAY, "secrets", "gateway.pem"),
        "engine": Path(data_root, "secrets", "engine.crt"),
        "registry": Path(data_root, "registry", "tls", "registry.pem"),
    }
    return {name: certificate(path) for name, path in files.items() if path.is_file()}


def certificate(path):
    """Return when a file's first certificate ends, when the file was written (seconds since 1970), and its names."""
    import ssl  # 10 ms: only where there is a certificate

    # CPython has no public way to read a certificate from a file, and openssl would be a process for each.
    found = ssl._ssl._test_decode_cert(str(path))
    names = [value for kind, value in found.get("subjectAltName", ()) if kind in ("DNS", "IP Address")]
    return {
        "not_after": ssl.cert_time_to_seconds(found["notAfter"]),
        "written": int(path.stat().st_mtime),
        "names": sorted(spelled(name) for name in names),
    }


def spelled(name):
    """Return a name in small letters, an address as all others are spelled: fd00::b, not FD00:0:0:0:0:0:0:B."""
    import ipaddress  # as above

    try:
        return str(ipaddress.ip_address(name.strip()))
    except ValueError:
        return name.lower()


def healer():
    """Return whether the healer runs."""
    return HEALER.is_symlink()


def split_keys(keys):
    """Return (engine keys, client keys) of the fingerprints below secrets/; certificates are neither."""
    clients = {name[len(CLIENT) :]: value for name, value in keys.items() if name.startswith(CLIENT)}
    others = (CLIENT, ".")
    engines = {name: value for name, value in keys.items() if not name.startswith(others) and name not in ENGINE_TLS}
    return engines, clients
