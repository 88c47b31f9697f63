"""Certificates by way of the openssl command: what is in one, whether it fits, files that are never half-written."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import re
import ssl
import subprocess
import tempfile
from pathlib import Path

from ansible.module_utils.onprem_llm_write import put

DAY_S = 86400
RENEW_S = 30 * DAY_S
BLOCK = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----\n?", re.DOTALL)
KEY_BLOCK = re.compile(r"-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----.+?-----END (?:[A-Z]+ )?PRIVATE KEY-----\n?", re.DOTALL)
UTC = datetime.timezone.utc
NAME = re.compile(r"^(?:\*\.)?[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?$")


class CertificateError(Exception):
    """What was found and expected, and what to do; for a person, without a key."""


def openssl(*arguments, text=""):
    """Run openssl with `text` on its stdin and return what it wrote. Raises CertificateError with its own words."""
    try:
        done = subprocess.run(
            ["openssl", *arguments],
            input=text.encode(),
            capture_output=True,
            timeout=60,
            check=False,
        )
    except FileNotFoundError:
        raise CertificateError(
            "found no openssl on the host, expected its package. Run: onprem-llm bootstrap INVENTORY"
        ) from None
    if done.returncode != 0:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise CertificateError(f"openssl {arguments[0]} failed: {said[-1] if said else 'it said nothing'}")
    return done.stdout.decode("utf-8", "replace")


def write(path, text, mode=0o600):
    """Write a file in one piece that is never readable by more than `mode` says."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    put(path, text, mode)


@contextlib.contextmanager
def private_file(text):
    """Give the path of a file with `text` that root alone can read, for as long as it is needed."""
    with tempfile.NamedTemporaryFile("w", encoding="utf-8") as file:  # 0600 from the start
        file.write(text)
        file.flush()
        yield file.name


def text_of(path):
    """Return a file's text, empty where it cannot be read."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def chain_of(text):
    """Return the certificates in a text, each as PEM."""
    return [block if block.endswith("\n") else block + "\n" for block in BLOCK.findall(text)]


def key_of(text):
    """Return the private key in a text, empty where there is none."""
    found = KEY_BLOCK.search(text)
    return found.group() if found else ""


def public_key(certificate="", key=""):
    """Return the public key of a certificate or of a private key, which are equal where the two belong together."""
    if certificate:
        return openssl("x509", "-noout", "-pubkey", text=certificate).strip()
    return openssl("pkey", "-pubout", "-passin", "pass:", text=key).strip()


def dates(certificate):
    """Return (not before, not after) in seconds since 1970."""
    text = openssl("x509", "-noout", "-dates", text=certificate)
    found = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    # Not strptime: openssl writes English in every locale.
    return ssl.cert_time_to_seconds(found["notBefore"]), ssl.cert_time_to_seconds(found["notAfter"])


def day(at):
    """Write a time as people read it."""
    return datetime.datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d")


def names_of(certificate):
    """Return the names and addresses that a certificate is for, sorted."""
    text = openssl("x509", "-noout", "-text", text=certificate)
    found = re.search(r"X509v3 Subject Alternative Name:[^\n]*\n\s*([^\n]+)", text)
    entries = [entry.strip().partition(":") for entry in found.group(1).split(",")] if found else []
    return normal([value for kind, _, value in entries if kind in ("DNS", "IP Address")])


def normal(names):
    """Return names in one spelling, sorted, each once: lower case, addresses as Python writes them."""
    found = set()
    for name in names:
        address = address_of(name)
        found.add(str(address) if address else name.lower())
    return sorted(found)


def address_of(name):
    """Return a name as an address, or None where it is none."""
    try:
        return ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return None


def san(names):
    """Return the line of openssl's configuration for these names. Raises CertificateError for one that cannot be."""
    parts = []
    for name in normal(names):
        if address_of(name):
            parts.append(f"IP:{name}")
        elif NAME.match(name) and len(name) < 254:
            parts.append(f"DNS:{name}")
        else:
            raise CertificateError(f"{name!r} cannot be a name in a certificate; expected a DNS name or an address")
    if not parts:
        raise CertificateError("found no name for the certificate, expected one at least")
    return "subjectAltName=" + ",".join(parts)


def is_from(certificate, authority):
    """Return whether `authority` signed the certificate."""
    with private_file(authority) as file:
        try:
            openssl("verify", "-no_check_time", "-partial_chain", "-CAfile", file, text=certificate)
        except CertificateError:
            return False
    return True


def new_key():
    """Return a new private key on the curve P-256."""
    return openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256")
