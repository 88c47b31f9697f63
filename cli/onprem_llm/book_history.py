"""What the book on the gateway hosts remembers: revisions of a deployment, and events."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from onprem_llm.connection import Connection
from onprem_llm.errors import InvalidError, UnreachableError
from onprem_llm.look import failures_text
from onprem_llm.output import Progress
from onprem_llm.planning.places import digest_of, place
from onprem_llm.planning.revisions import differences
from onprem_llm.recorded import counting
from onprem_llm.run_events import RunResult
from onprem_llm.runner import run

NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")


@dataclass(frozen=True, slots=True)
class Revision:
    """One numbered revision; `model_yaml` is the text as the book keeps it, `images` ids by reference, `placement` host
    and revision by project.
    """

    number: int
    model_yaml: str
    images: Mapping[str, str]
    recorded_at: str | None
    by: str | None
    current: bool
    placement: Mapping[str, Mapping[str, object]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Event:
    """Something that was done, or that failed: `result` is ok or failed."""

    at: str | None
    by: str | None
    action: str
    deployment: str | None
    revision: int | None
    result: str
    message: str


@dataclass(frozen=True, slots=True)
class History:
    """A deployment's revisions, the oldest first; `notes` are what a person should know about where they come from."""

    deployment: str
    revisions: tuple[Revision, ...]
    notes: tuple[str, ...] = ()

    @property
    def current(self) -> Revision | None:
        """The revision that counts; None for a deployment that was taken down."""
        return next((revision for revision in self.revisions if revision.current), None)

    def revision(self, number: int) -> Revision:
        """Return a revision by its number; InvalidError names the ones there are."""
        found = next((revision for revision in self.revisions if revision.number == number), None)
        if found is None:
            known = ", ".join(str(revision.number) for revision in self.revisions)
            raise InvalidError(
                f"{self.deployment} has no revision {number}; it has: {known}",
                hint=f"onprem-llm history {self.deployment}",
            )
        return found

    def before(self, revision: Revision) -> Revision | None:
        """Return the revision before this one; None for the first."""
        older = [one for one in self.revisions if one.number < revision.number]
        return older[-1] if older else None

    def changes(self, revision: Revision) -> tuple[str, ...]:
        """Say field by field what a revision changed against the one before it; nothing for the first."""
        before = self.before(revision)
        return changes(before, revision) if before else ()


def changes(old: Revision, new: Revision) -> tuple[str, ...]:
    """Say field by field what differs between two revisions: model.yaml, weights, and images behind the same name."""
    images = [
        f"image {ref}: {_short(old.images[ref])} -> {_short(new.images[ref])}"
        for ref in sorted(set(old.images) & set(new.images))
        if place(old.images[ref]) != place(new.images[ref])
    ]
    return (*differences(old.model_yaml, new.model_yaml), *images)


def _short(image: str) -> str:
    return (digest_of(image) or image)[:19]


def read_history(connection: Connection, name: str, progress: Progress | None = None) -> History:
    """Read a deployment's revisions from the gateway host, else from the second one (said in `notes`).

    Raises InvalidError for a name that the book has not, UnreachableError where no gateway host answered.
    """
    if not NAME.fullmatch(name):
        raise InvalidError(f"{name!r} cannot be the name of a deployment", hint="onprem-llm status shows the names")
    books, notes = _read(connection, {"onprem_llm_book_deployment": name}, progress)
    host, book = next(iter(books.items()))
    revisions = tuple(_revision(raw) for raw in book["history"].get(name, []))
    if not revisions:
        have = ", ".join(book["deployments"]) or "none"
        raise InvalidError(f"{host}'s book has no revision of {name!r}; it has: {have}", hint="onprem-llm status")
    return History(name, revisions, (*notes, *_unfinished(name, revisions, book), *_disagreements(books, name)))


def read_events(
    connection: Connection, name: str | None, last: int, progress: Progress | None = None
) -> tuple[tuple[Event, ...], tuple[str, ...]]:
    """Read the last events, of one deployment or of all, the oldest first; and notes for a person."""
    if name is not None and not NAME.fullmatch(name):
        raise InvalidError(f"{name!r} cannot be the name of a deployment", hint="onprem-llm events")
    variables = {"onprem_llm_book_deployment": name or "", "onprem_llm_book_events": last}
    books, notes = _read(connection, variables, progress)
    host, book = next(iter(books.items()))
    found = tuple(_event(raw) for raw in book["events"])
    if name and not found and name not in book["deployments"]:
        have = ", ".join(book["deployments"]) or "none"
        raise InvalidError(f"{host}'s book knows nothing of {name!r}; it has: {have}", hint="onprem-llm events")
    return found, notes


def _read(
    connection: Connection, variables: Mapping[str, object], progress: Progress | None
) -> tuple[dict[str, dict[str, Any]], tuple[str, ...]]:
    """Return host -> book, the one that counts first, and notes. Gateway hosts take part whatever the limit."""
    everywhere = replace(connection, limit=None)
    result = run("book_read.yml", everywhere, variables=variables, progress=progress, title="Reading the book")
    answers = {host: result.returned[host] for host in result.hosts if result.returned.get(host, {}).get("mark")}
    recorded = counting({host: _states(book) for host, book in answers.items() if book["mark"] == "gateway"})
    # The recorded gateway's book counts; the others' are copies, but for one that was lost and is back.
    order = (*recorded, *(host for host, book in answers.items() if book["mark"] != "gateway"))
    books = {host: answers[host] for host in order}
    if not books:
        raise _no_book(result)
    host, book = next(iter(books.items()))
    notes = [f"{host}: {problem}" for problem in book["problems"]]
    if not recorded:
        silent = ", ".join(failure.host for failure in result.failures) or "no host is recorded as it"
        notes.append(f"This is the copy on {host}: the gateway host did not answer ({silent})")
    if len(recorded) > 1:
        names = ", ".join(recorded)
        notes.append(
            f"{len(recorded)} hosts are recorded as the gateway, expected one: {names}; this is what {host} has"
        )
    return books, tuple(notes)


def _states(book: Mapping[str, Any]) -> dict[str, str]:
    marks = book.get("hosts", {})
    return {host: str(mark.get("state")) for host, mark in marks.items() if isinstance(mark, dict)}


def _no_book(result: RunResult) -> UnreachableError:
    if result.failures:
        return UnreachableError(
            "no gateway host answered, and the book is there",
            details=failures_text(result.failures),
            hint="mend what is said above",
        )
    return UnreachableError(
        "no host of this inventory is the gateway host, and the book is there",
        hint="run: onprem-llm bootstrap INVENTORY",
    )


def _unfinished(name: str, revisions: Sequence[Revision], book: Mapping[str, Any]) -> Sequence[str]:
    """Name the numbers that were given and became no revision."""
    known = {one.number for one in revisions}
    missing = sorted(set(range(1, max(*known, int(book.get("last", 0))) + 1)) - known)
    numbers = ", ".join(str(number) for number in missing)
    return (
        [f"Failed or cut off, so not in the book: revision {numbers}; see onprem-llm events {name}"] if missing else []
    )


def _disagreements(books: Mapping[str, Mapping[str, Any]], name: str) -> Sequence[str]:
    """Say where a copy of the book differs from the one that counts."""
    texts = {
        host: {raw["revision"]: raw["model_yaml"] for raw in book["history"].get(name, [])}
        for host, book in books.items()
    }
    first, *others = texts
    found = []
    for host in others:
        numbers = sorted({*texts[first], *texts[host]})
        differ = [str(number) for number in numbers if texts[first].get(number) != texts[host].get(number)]
        if differ:
            found.append(
                f"The book on {host} differs from {first}'s, which counts: revision {', '.join(differ)}. "
                "The next change brings it in line"
            )
    return found


def _revision(raw: Mapping[str, Any]) -> Revision:
    return Revision(
        number=int(raw["revision"]),
        model_yaml=str(raw["model_yaml"]),
        images=dict(raw.get("images") or {}),
        recorded_at=raw.get("recorded_at"),
        by=raw.get("by"),
        current=bool(raw.get("current")),
        placement=dict(raw.get("placement") or {}),
    )


def _event(raw: Mapping[str, Any]) -> Event:
    """Read a line of events.jsonl; those of before this version have neither a person nor a result."""
    revision = raw.get("revision")
    return Event(
        at=raw.get("at"),
        by=raw.get("by"),
        action=str(raw.get("action") or "-"),
        deployment=raw.get("deployment"),
        revision=revision if isinstance(revision, int) else None,
        result=str(raw.get("result") or "ok"),
        message=str(raw.get("message") or ""),
    )
