"""ModelScope (or MODELSCOPE_ENDPOINT), through the modelscope package.

A revision of ModelScope is a branch or a tag: its API names no commit for it. What stands for the commit is a digest of
the listing (every path, size and sha256), so another listing is another commit; a file that changed meanwhile does not
have its sha256 any more, and is refused.
"""

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import BaseAdapter
from requests.exceptions import InvalidProxyURL
from urllib3.exceptions import URLSchemeUnknown

from onprem_llm.errors import InvalidError, OnpremError, UnreachableError
from onprem_llm.weights.hubs.hub import (
    Body,
    HubFile,
    Listing,
    TemporaryError,
    WrongBodyError,
    body_of,
    cause_of,
    listed,
    no_way,
)
from onprem_llm.weights.hubs.quiet import endpoint, quiet, silence

DEFAULT_ENDPOINT = "https://modelscope.cn"
READ = 64 * 1024


class _Guard(BaseAdapter):
    """The last place before a request leaves: one to another server than the hub carries no token.

    The client keeps the token in a cookie, too, and cookies go to every port of a host, and to hosts below it.
    """

    def __init__(self, inner: BaseAdapter, hub: str) -> None:
        super().__init__()
        self._inner, self._hub = inner, _origin(hub)

    def send(self, request: requests.PreparedRequest, *args: Any, **more: Any) -> requests.Response:
        if _origin(request.url or "") != self._hub:
            for name in ("Cookie", "Authorization"):
                request.headers.pop(name, None)
        return self._inner.send(request, *args, **more)

    def close(self) -> None:
        self._inner.close()


class ModelScope:
    """The hub that MODELSCOPE_ENDPOINT (or, as of old, MODELSCOPE_DOMAIN) names, modelscope.cn by default."""

    def __init__(self, clients: Path) -> None:
        """Import the client; the token is MODELSCOPE_API_TOKEN."""
        quiet(clients)
        address, self._shown = endpoint(("MODELSCOPE_ENDPOINT", "MODELSCOPE_DOMAIN"), DEFAULT_ENDPOINT)
        from modelscope.hub.api import HubApi

        silence("modelscope_hub")
        # "" is no token; None would read one from a folder that others write.
        self._client: Any = HubApi(endpoint=address, token=os.environ.get("MODELSCOPE_API_TOKEN", "")).legacy
        for session in (self._client._session, self._client._read_session):
            for prefix, adapter in list(session.adapters.items()):
                session.mount(prefix, _Guard(adapter, address))

    def listing(self, identity: str, revision: str) -> Listing:
        """List the files of a branch or tag, and make a commit of the list."""
        with self._errors(identity, revision):
            entries = self._client.list_repo_files(identity, "model", revision=revision, recursive=True)
            files = tuple(_file(entry) for entry in entries if entry.get("Type") != "tree")
        if self._client._read_state.listing_incomplete:
            raise InvalidError(
                f"modelscope:{identity}: {self._shown} lists only the first {len(files)} files of it",
                hint="a folder of that many files cannot be listed there: take the model from another hub",
            )
        lines = sorted(f"{file.path}\0{file.size}\0{file.sha256 or ''}\n" for file in files)
        # A path may hold what is no text at all: it is refused, with the others, when files are chosen.
        digest = hashlib.sha256("".join(lines).encode(errors="backslashreplace")).hexdigest()
        return Listing(digest[:40], files, exact=False)

    def open(self, identity: str, listing: Listing, revision: str, file: HubFile, start: int) -> Body:
        """Ask for the bytes from `start` on."""
        headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={start}-"} if start else {})}
        with self._errors(identity, revision, file.path):
            answer = self._client.download_stream(identity, "model", file.path, revision, headers)
            chunks = self._chunks(answer.iter_content(READ), identity, revision, file.path)
            return body_of(answer.status_code, answer.headers.get, chunks, answer.close, start)

    def _chunks(self, chunks: Iterator[bytes], identity: str, revision: str, path: str) -> Iterator[bytes]:
        with self._errors(identity, revision, path):
            yield from chunks

    @contextmanager
    def _errors(self, identity: str, revision: str, path: str = "") -> Iterator[None]:
        """Turn what the client raises into what to try again and what to tell a person, without addresses."""
        from modelscope_hub.errors import APIError, HubError

        name = f"modelscope:{identity}{f', {path}' if path else ''}"
        try:
            yield
        except APIError as error:
            raise self._answered(error.status_code or 0, getattr(error, "retry_after", None), name, revision) from None
        except (ValueError, AttributeError, KeyError, TypeError, RecursionError) as error:
            if _of_a_proxy(error):
                raise no_way(error) from None
            raise OnpremError(
                f"{name}: {self._shown} answered with something that is not ModelScope's protocol",
                hint="check MODELSCOPE_ENDPOINT: a proxy or a login page may stand between",
            ) from None
        except (HubError, requests.RequestException) as error:
            raise TemporaryError(f"{self._shown} does not answer, or not to the end ({cause_of(error)})") from None

    def _answered(self, status: int, wait: float | None, name: str, revision: str) -> Exception:
        if status in {408, 429} or status >= 500:
            return TemporaryError(f"{self._shown} answered {status}", wait)
        if status == 416:
            return WrongBodyError("status 416: the hub's file is shorter than it said")
        if status in {401, 403}:
            return UnreachableError(
                f"{name}: {self._shown} refused access ({status})",
                hint="set MODELSCOPE_API_TOKEN to a token of an account that may read the model",
            )
        if status == 404:
            return InvalidError(
                f"{name}: {self._shown} knows no such model, file or revision ({revision})",
                hint="check id and revision; for a private model set MODELSCOPE_API_TOKEN",
            )
        return OnpremError(f"{name}: {self._shown} answered {status}", hint="try again later")


def _file(entry: Mapping[str, Any]) -> HubFile:
    return listed(entry.get("Path"), entry.get("Size"), entry.get("Sha256"))


def _origin(address: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(address)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def _of_a_proxy(error: BaseException) -> bool:
    """Tell whether the client choked on a proxy's address; it has no one name for that."""
    return (
        isinstance(error, InvalidProxyURL) or isinstance(error.__context__, URLSchemeUnknown) or "SOCKS" in str(error)
    )
