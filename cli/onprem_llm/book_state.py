"""What the book on a gateway host says: deployments, their revisions, and hosts that are drained or gone."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class RecordedReplica:
    """Where the book has a replica, and which revision it is to answer as; `members` are a gang's other hosts."""

    host: str
    revision: int
    members: tuple[str, ...] = ()

    @property
    def hosts(self) -> tuple[str, ...]:
        """All of its hosts, in the order of their ranks."""
        return (self.host, *self.members)


@dataclass(frozen=True, slots=True)
class BookEntry:
    """The latest revision of a deployment, as the book has it.

    `pending` are revisions that a change began to roll out and no record has ended: replicas may run them. `last` is
    the last number that was given, also to a revision that came to nothing.
    """

    revision: int
    model_yaml: str
    images: Mapping[str, str]
    recorded_at: str | None
    replicas: Mapping[str, RecordedReplica] = field(default_factory=dict)  # by project, as they were deployed
    pending: tuple[int, ...] = ()
    last: int = 0


@dataclass(frozen=True, slots=True)
class HostMark:
    """What the book says of a host: state is `drained`, `removed` or `lost`."""

    state: str
    by: str | None
    at: str | None
    was_drained: bool = False  # it is, or was when more was said of it: it gets no requests
    purpose: str | None = None  # what a command drained it for, which lets it in itself; None: a person's word

    @property
    def said(self) -> str:
        """Say why a host is passed over."""
        return f"it is {self.words}{f' by {self.by}' if self.by else ''}"

    @property
    def words(self) -> str:
        """Say its state, and what for where a command said it."""
        return f"{self.state} ({self.purpose})" if self.purpose else self.state


@dataclass(frozen=True, slots=True)
class Book:
    """The book of a host; `gateway` says that this host is the recorded gateway, `second` that it is the other one."""

    gateway: bool
    deployments: Mapping[str, BookEntry]
    removed: Mapping[str, int] = field(default_factory=dict)  # taken down: name -> last revision
    errors: tuple[str, ...] = ()
    second: bool = False
    hosts: Mapping[str, HostMark] = field(default_factory=dict)
