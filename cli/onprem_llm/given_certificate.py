"""The gateway's certificate that the site gives: read and checked on this machine, before any host is touched."""

import ipaddress
import re
import ssl
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatch
from itertools import pairwise
from pathlib import Path

from onprem_llm.errors import InvalidError
from onprem_llm.gateway_facts import parse_certificates
from onprem_llm.gateway_state import Certificate, day
from onprem_llm.spec.site import Site

SETTING = "onprem_llm_site.gateway.tls"
BLOCK = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----\n?", re.DOTALL)


def given_certificate(site: Site) -> Certificate | None:
    """Return what the site gives, None where it gives none; InvalidError where it could not serve."""
    tls = site.gateway.tls
    if tls.mode != "files" or tls.certificate is None or tls.key is None:
        return None
    return check(tls.certificate, tls.key, tls.names)


def check(certificate: str, key: str, names: Iterable[str] = ()) -> Certificate:
    """Check two files: they belong together, are good today, in order and for these names; return what is in them."""
    chain = _chain(certificate)
    _check_pair(certificate, key)
    _check_order(certificate, chain)
    own, now = chain[0], int(time.time())
    begins, ends = (ssl.cert_time_to_seconds(str(own[field])) for field in ("notBefore", "notAfter"))
    if not begins <= now < ends:
        when = f"it expired on {day(ends)}" if ends <= now else f"it is good from {day(begins)} on"
        raise _wrong("certificate", certificate, f"{when}, expected one that is good today", "put a new one there")
    covered = _names(own)
    missing = [name for name in names if not any(_covers(pattern, name) for pattern in covered)]
    if missing:
        raise _wrong(
            "certificate",
            certificate,
            f"it is for {', '.join(covered) or 'no name'}, not for {', '.join(missing)}, which {SETTING}.names has",
            "give one for all names, or take the name out",
        )
    (found,) = parse_certificates({"gateway": {"not_after": ends, "names": covered}}, now).values()
    return found


def _chain(path: str) -> list[Mapping[str, object]]:
    try:
        blocks = BLOCK.findall(Path(path).read_text(encoding="utf-8", errors="replace"))
    except OSError as error:
        raise _unread("certificate", path, error) from None
    if not blocks:
        raise _wrong("certificate", path, "no certificate is in it", "put PEM there: -----BEGIN CERTIFICATE-----…")
    try:
        return [_decoded(block) for block in blocks]
    except ssl.SSLError:
        raise _wrong("certificate", path, "it is no whole certificate", "put a whole one there") from None


def _decoded(block: str) -> Mapping[str, object]:
    with tempfile.NamedTemporaryFile("w", encoding="utf-8") as file:
        file.write(block)
        file.flush()
        # CPython has no public way to read a certificate that nobody has sent yet; the probe does the same.
        found: Mapping[str, object] = ssl._ssl._test_decode_cert(file.name)  # type: ignore[attr-defined]
        return found


def _check_pair(certificate: str, key: str) -> None:
    def no_passphrase() -> str:
        raise _wrong(
            "key",
            key,
            "it has a passphrase, and a gateway that starts at night has nobody to type it",
            f"write it without one: openssl pkey -in {key} -out NEW",
        )

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, no_passphrase)
    except ssl.SSLError as error:
        if getattr(error, "reason", None) == "KEY_VALUES_MISMATCH":
            raise _wrong("key", key, f"it does not belong to {certificate}", "give the key of its request") from None
        raise _wrong("key", key, "no private key can be read in it", "put PEM there") from None
    except OSError as error:
        raise _unread("key", key, error) from None


def _check_order(certificate: str, chain: Sequence[Mapping[str, object]]) -> None:
    for number, (one, issuer) in enumerate(pairwise(chain), 1):
        if one["issuer"] != issuer["subject"]:
            raise _wrong(
                "certificate",
                certificate,
                f"certificate {number} in it is not signed by certificate {number + 1}",
                "write the server's own first, then the one that signed it, and so on",
            )


def _names(own: Mapping[str, object]) -> Sequence[str]:
    """Return the names in a certificate as the probe does."""
    found = own.get("subjectAltName", ())
    pairs = found if isinstance(found, tuple) else ()
    return sorted(_spelled(str(value)) for kind, value in pairs if kind in ("DNS", "IP Address"))


def _spelled(name: str) -> str:
    try:
        return str(ipaddress.ip_address(name.strip()))
    except ValueError:
        return name.lower()


def _covers(pattern: str, name: str) -> bool:
    """Tell whether a name in a certificate is for `name`; a star stands for one part."""
    same_depth = pattern.count(".") == name.count(".")
    return pattern == name.lower() or (pattern.startswith("*.") and same_depth and fnmatch(name.lower(), pattern))


def _unread(field: str, path: str, error: OSError) -> InvalidError:
    return _wrong(field, path, f"it cannot be read: {error.strerror}", "mend the path or its rights")


def _wrong(field: str, path: str, found: str, hint: str) -> InvalidError:
    return InvalidError(f"{SETTING}.{field}: {path}: {found}", hint=hint)
