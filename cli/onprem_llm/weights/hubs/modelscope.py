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

from onprem_llm.errors import InvalidError, OnpremError, UnreachableError
from onprem_llm.weights.hubs.hub import Body, HubFile, Listing, TemporaryError, WrongBodyError, body_of
from onprem_llm.weights.hubs.quiet import endpoint, quiet, silence

DEFAULT_ENDPOINT = "https://modelscope.cn"
READ = 64 * 1024


class ModelScope:
    """The hub that MODELSCOPE_ENDPOINT (or, as of old, MODELSCOPE_DOMAIN) names, modelscope.cn by default."""

    def __init__(self, clients: Path) -> None:
        """Import the client; the token is MODELSCOPE_API_TOKEN."""
        quiet(clients)
        from modelscope.hub.api import HubApi

        silence("modelscope_hub")
        address, self._shown = endpoint(("MODELSCOPE_ENDPOINT", "MODELSCOPE_DOMAIN"), DEFAULT_ENDPOINT)
        # "" is no token; None would read one from a folder that others write.
        self._client: Any = HubApi(endpoint=address, token=os.environ.get("MODELSCOPE_API_TOKEN", "")).legacy

    def listing(self, identity: str, revision: str) -> Listing:
        """List the files of a branch or tag, and make a commit of the list."""
        with self._errors(identity, revision):
            entries = self._client.list_repo_files(identity, "model", revision=revision, recursive=True)
        files = tuple(_file(entry) for entry in entries if entry.get("Type") != "tree")
        lines = sorted(f"{file.path}\0{file.size}\0{file.sha256 or ''}\n" for file in files)
        return Listing(hashlib.sha256("".join(lines).encode()).hexdigest()[:40], files, exact=False)

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
        import requests
        from modelscope_hub.errors import APIError, HubError

        name = f"modelscope:{identity}{f', {path}' if path else ''}"
        try:
            yield
        except APIError as error:
            raise self._answered(error.status_code or 0, getattr(error, "retry_after", None), name, revision) from None
        except (requests.exceptions.JSONDecodeError, AttributeError):
            raise OnpremError(
                f"{name}: {self._shown} answered with something that is not ModelScope's protocol",
                hint="check MODELSCOPE_ENDPOINT: a proxy or a login page may stand between",
            ) from None
        except (HubError, requests.RequestException) as error:
            raise TemporaryError(f"{self._shown} does not answer, or not to the end ({type(error).__name__})") from None

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
    return HubFile(str(entry.get("Path") or ""), int(entry.get("Size") or 0), sha256=entry.get("Sha256") or None)
