"""Hugging Face, or a mirror that speaks its protocol (HF_ENDPOINT), through the huggingface-hub package.

The package's own download starts from nothing after a kill (2.x writes to a file of its process and removes it), so it
resolves, lists, knows the addresses and signs the requests; the bytes are ours to keep (weights/fetch.py).
"""

import importlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from onprem_llm.errors import InvalidError, OnpremError, UnreachableError
from onprem_llm.spec.model_source import COMMIT
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
    retry_after,
)
from onprem_llm.weights.hubs.quiet import endpoint, quiet

DEFAULT_ENDPOINT = "https://huggingface.co"
# Seconds without a byte; a hung connection is dropped and taken up again.
PATIENCE = 30.0
BUSY = {408, 429, 500, 502, 503, 504}
ACCESS_HINT = "accept the model's terms on its page, and set HF_TOKEN to a token of that account that may read it"


class HuggingFace:
    """The hub that HF_ENDPOINT names, huggingface.co by default."""

    def __init__(self, clients: Path) -> None:
        """Import the client; a token comes from HF_TOKEN or the file that `hf auth login` wrote."""
        quiet(clients)
        # Before the package is imported, which takes the address apart, too, and fails where that is none.
        self._endpoint, self._shown = endpoint(("HF_ENDPOINT",), DEFAULT_ENDPOINT)
        from huggingface_hub import HfApi, get_session, get_token

        self._api = HfApi(endpoint=self._endpoint, token=get_token() or False, library_name="onprem-llm")
        try:
            get_session()
        except (ImportError, ValueError) as error:
            raise no_way(error) from None

    def listing(self, identity: str, revision: str) -> Listing:
        """Resolve the revision to its commit, then list that."""
        with self._errors(identity, revision):
            commit = self._api.model_info(identity, revision=revision, timeout=PATIENCE).sha
            if commit is None or not COMMIT.fullmatch(commit):
                raise OnpremError(
                    f"huggingface:{identity}: {self._shown} gave the commit {commit!r}, expected 40 hex digits",
                    hint="check HF_ENDPOINT: this is not a hub that speaks Hugging Face's protocol",
                )
            return Listing(commit, tuple(self._tree(identity, commit)))

    def _tree(self, identity: str, commit: str) -> Iterator[HubFile]:
        """Page through a listing. The package's own way has no timeout, and tries again without a word."""
        from huggingface_hub import get_session
        from huggingface_hub.utils import build_hf_headers, hf_raise_for_status  # type: ignore[attr-defined]

        url = f"{self._endpoint}/api/models/{identity}/tree/{commit}"
        headers = build_hf_headers(token=self._api.token, library_name="onprem-llm")
        question, asked = {"recursive": "true"}, list[dict[str, str]]()
        while question not in asked:
            asked.append(question)
            answer = get_session().get(url, params=question, headers=headers, timeout=PATIENCE)
            hf_raise_for_status(answer)
            for item in answer.json():
                if item["type"] == "file":
                    lfs = item.get("lfs")
                    hashes = (lfs["oid"], None) if lfs else (None, item["oid"])
                    yield listed(item["path"], item["size"], *hashes)
            following = answer.links.get("next", {}).get("url")
            if following is None:
                return
            # A mirror may name the hub that it mirrors; the token stays with the one that was asked.
            question = dict(parse_qsl(urlsplit(following).query))
        raise ValueError("a listing that begins again")

    def open(self, identity: str, listing: Listing, revision: str, file: HubFile, start: int) -> Body:
        """Ask for the bytes from `start` on. The client drops our token where it is sent on to another host."""
        from huggingface_hub import get_session, hf_hub_url
        from huggingface_hub.utils import build_hf_headers, hf_raise_for_status  # type: ignore[attr-defined]

        url = hf_hub_url(identity, file.path, revision=listing.commit, endpoint=self._endpoint)
        headers = build_hf_headers(token=self._api.token, library_name="onprem-llm")
        headers["Accept-Encoding"] = "identity"
        if start:
            headers["Range"] = f"bytes={start}-"
        with ExitStack() as stack, self._errors(identity, revision, file.path):
            answer = stack.enter_context(get_session().stream("GET", url, headers=headers, timeout=PATIENCE))
            hf_raise_for_status(answer)
            kept = stack.pop_all()
            chunks = self._chunks(answer.iter_bytes(), identity, revision, file.path)
            return body_of(answer.status_code, answer.headers.get, chunks, kept.close, start)

    def _chunks(self, chunks: Iterator[bytes], identity: str, revision: str, path: str) -> Iterator[bytes]:
        with self._errors(identity, revision, path):
            yield from chunks

    @contextmanager
    def _errors(self, identity: str, revision: str, path: str = "") -> Iterator[None]:
        """Turn what the client raises into what to try again and what to tell a person.

        No address is repeated: one that a request was sent on to is signed.
        """
        from huggingface_hub import get_session
        from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

        transport = importlib.import_module(type(get_session()).__module__.partition(".")[0])
        name = f"huggingface:{identity}{f', {path}' if path else ''}"
        try:
            yield
        except HfHubHTTPError as error:
            raise self._answered(error.response.status_code, error, name, revision) from None
        except OfflineModeIsEnabled:
            raise InvalidError(
                f"{name}: HF_HUB_OFFLINE is set: nothing is pulled", hint="unset HF_HUB_OFFLINE on a connected machine"
            ) from None
        except transport.HTTPError as error:
            raise TemporaryError(f"{self._shown} does not answer, or not to the end ({cause_of(error)})") from None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise OnpremError(
                f"{name}: {self._shown} answered with something that is not Hugging Face's protocol",
                hint="check HF_ENDPOINT: a proxy or a login page may stand between",
            ) from None

    def _answered(self, status: int, error: object, name: str, revision: str) -> Exception:
        response = getattr(error, "response", None)
        code = str(response.headers.get("X-Error-Code", "")) if response is not None else ""
        if status in BUSY:
            wait = _wait(response.headers) if response is not None else None
            return TemporaryError(f"{self._shown} answered {status}", wait)
        if status == 416:
            return WrongBodyError("status 416: the hub's file is shorter than it said")
        if code == "RevisionNotFound":
            return InvalidError(
                f"{name}: {self._shown} has no revision {revision!r}", hint="name a branch, a tag or a commit"
            )
        if status in {401, 403} and code != "RepoNotFound":
            return UnreachableError(f"{name}: {self._shown} refused access ({status} {code})".replace(" )", ")"),
                                    hint=ACCESS_HINT)  # fmt: skip
        if status in {401, 404}:
            return InvalidError(
                f"{name}: {self._shown} knows no such model or file, or hides it ({status})",
                hint="check the id; for a private model set HF_TOKEN",
            )
        return OnpremError(f"{name}: {self._shown} answered {status}", hint="try again later, or another HF_ENDPOINT")


def _wait(headers: Mapping[str, str]) -> float | None:
    """Return how long the hub asks to be left alone; its own header counts the seconds of a window of requests."""
    from huggingface_hub.utils import parse_ratelimit_headers  # type: ignore[attr-defined]

    said = retry_after(headers.get("Retry-After"))
    limit = parse_ratelimit_headers(headers) if said is None else None
    return limit.reset_in_seconds + 1.0 if limit is not None and limit.remaining == 0 else said
