"""What a hub is to us: it lists the files of a model at a revision, and opens one of them at any byte."""

import re
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from onprem_llm.errors import InvalidError


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file as the hub describes it, with the hub's own hash: sha256, or git's sha1 of a small file."""

    path: str
    size: int
    sha256: str | None = None
    git_sha1: str | None = None


@dataclass(frozen=True, slots=True)
class Listing:
    """The files of a model at one commit. `exact` where the hub itself has commits; else made from the listing."""

    commit: str
    files: tuple[HubFile, ...]
    exact: bool = True


@dataclass(frozen=True, slots=True)
class Body:
    """An answer that is being read: where in the file it begins, how long the file is from there on, its kind."""

    start: int
    length: int | None
    kind: str
    chunks: Iterator[bytes]
    close: Callable[[], None]


class TemporaryError(Exception):
    """The hub may answer the same question in a moment; `wait` is what it asks for, in seconds."""

    def __init__(self, text: str, wait: float | None = None) -> None:
        """Keep what happened and how long the hub wants to be left alone."""
        super().__init__(text)
        self.wait = wait


class WrongBodyError(Exception):
    """What is being sent cannot be the file: another length, another range."""


class Hub(Protocol):
    """A hub. Errors that a person must mend are OnpremErrors; TemporaryError says: try again."""

    def listing(self, identity: str, revision: str) -> Listing:
        """Resolve a revision and list its files, with sizes and hashes."""

    def open(self, identity: str, listing: Listing, revision: str, file: HubFile, start: int) -> Body:
        """Open a file at the byte `start`; the hub may begin elsewhere, and says so."""


def body_of(status: int, headers: Callable[[str], str | None], chunks: Iterator[bytes], close: Callable[[], None],
            asked: int) -> Body:  # fmt: skip
    """Make a Body from an HTTP answer to a request for the bytes from `asked` on."""
    encoded = (headers("Content-Encoding") or "identity").lower() != "identity"
    length = headers("Content-Length")
    known = int(length) if length is not None and length.isdigit() and not encoded else None
    start = 0
    if status == 206:
        said = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", (headers("Content-Range") or "").strip())
        if said is None or int(said[1]) != asked:
            close()
            raise WrongBodyError(f"the range {headers('Content-Range')!r}, expected bytes from {asked} on")
        start = asked
        # A server may send less than it was asked for; what counts is how long it says the file is.
        known = int(said[2]) - start if said[2] != "*" else None
    return Body(start, known, headers("Content-Type") or "", chunks, close)


def retry_after(value: str | None) -> float | None:
    """Read a Retry-After header that counts seconds; one that names a date is left to our own patience."""
    return float(value) if value is not None and value.strip().isdigit() else None


def listed(path: object, size: object, sha256: object = None, git_sha1: object = None) -> HubFile:
    """Make a HubFile from what a hub's JSON says; ValueError where that is no description of a file."""
    if not isinstance(path, str) or not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise ValueError(f"no file: {path!r} of size {size!r}")
    hashes = [text if isinstance(text, str) and text else None for text in (sha256, git_sha1)]
    return HubFile(path, size, sha256=hashes[0], git_sha1=hashes[1])


def cause_of(error: BaseException) -> str:
    """Say what a client's error comes from, in the system's words. Its own words may hold a signed address."""
    inner, said = error, type(error).__name__
    while following := inner.__cause__ or inner.__context__:
        inner = following
        if isinstance(inner, ssl.SSLCertVerificationError):
            return f"{inner.verify_message}: for a CA of your own see docs/weights.md"
        if isinstance(inner, OSError) and type(inner).__module__ in {"builtins", "socket", "ssl"} and inner.strerror:
            said = inner.strerror
    return said


def no_way(error: BaseException) -> InvalidError:
    """Say that a proxy's variable holds no address that the clients can use. It may hold a password: not shown."""
    return InvalidError(
        f"the proxy of this machine cannot be used ({type(error).__name__}), expected an address such as "
        "http://proxy:3128",
        hint="mend or unset HTTPS_PROXY, HTTP_PROXY and ALL_PROXY (small letters, too)",
    )
