"""From a command line to a proof: what is asked is checked before anything is made."""

import contextlib
import fcntl
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from onprem_llm.caches import cache_folder
from onprem_llm.connection import Connection
from onprem_llm.errors import InvalidError, RefusedError
from onprem_llm.lab import engine
from onprem_llm.locking.wheels import MACHINES
from onprem_llm.prove import hosts, site_inventory
from onprem_llm.prove.likeness import Likeness, check_architecture, likeness
from onprem_llm.prove.proof import Proof, write
from onprem_llm.prove.rehearse import Asked, Rehearsal
from onprem_llm.prove.tool import Tool
from onprem_llm.spec.facts import HostFacts, merge_facts
from onprem_llm.spec.lock import Lock
from onprem_llm.ssh import routes


@dataclass(frozen=True)
class Wanted:
    """What `prove` was asked for."""

    folders: tuple[Path, ...]
    allowed: Path
    facts: tuple[Path, ...]
    bases: tuple[Path, ...]
    sign_key: Path | None
    out: Path | None
    work: Path | None
    settle: float
    lab: str
    keep: bool


def prove(wanted: Wanted, connection: Connection, say: Callable[[str], None]) -> tuple[Proof, Path]:
    """Rehearse and write the proof; return it and where it lies. A rehearsal that fails is a proof, no exception."""
    folders = tuple(path.absolute() for path in wanted.folders)
    _check(wanted, folders)
    facts = dict(merge_facts(wanted.facts).hosts) if wanted.facts else {}
    groups = {name: route.groups for name, route in routes(connection).items()}
    if strangers := sorted(facts.keys() - groups.keys()):
        raise InvalidError(
            f"the facts are of hosts that {connection.inventory} does not name: {', '.join(strangers)}",
            hint="name the inventory that they were collected with",
        )
    check_architecture({f"host {name}": one.architecture for name, one in facts.items()}, hosts.machine())
    given = site_inventory.variables(connection)
    engine.client()  # before minutes are spent
    with _site_folder(wanted, folders) as site:
        asked = Asked(
            folders=folders,
            allowed=wanted.allowed,
            facts=tuple(path.absolute() for path in wanted.facts),
            bases=tuple(path.absolute() for path in wanted.bases),
            groups=groups,
            given=given,
            likeness=lambda lock: _likeness(groups, facts, lock),
            site=site,
            lab=wanted.lab,
            settle=wanted.settle,
            keep=wanted.keep,
        )
        proof = Proof(folders[0].name, connection.inventory.name, _now())
        Rehearsal(asked, proof, Tool(site.parent, say), say).run()
    proof.ended = _now()
    return proof, write(proof, (wanted.out or folders[0]).absolute(), wanted.sign_key)


def _check(wanted: Wanted, folders: tuple[Path, ...]) -> None:
    for path in (*folders, *wanted.bases):
        if not path.is_dir():
            raise InvalidError(f"{path}: no folder, expected that of a bundle", hint="onprem-llm bundle create --help")
    if wanted.out and not wanted.out.is_dir():
        raise InvalidError(f"{wanted.out}: no folder, expected one for the proof", hint=f"mkdir {wanted.out}")
    if wanted.sign_key and not wanted.sign_key.is_file():
        raise InvalidError(f"{wanted.sign_key}: no such key", hint="make one: ssh-keygen -t ed25519 -f KEY")


def _likeness(groups: dict[str, tuple[str, ...]], facts: dict[str, HostFacts], lock: Lock) -> Likeness:
    check_architecture({"the bundle": MACHINES[lock.platform]}, hosts.machine())
    return likeness(list(groups), facts, [(one.os, one.release) for one in lock.packages], hosts.machine())


@contextlib.contextmanager
def _site_folder(wanted: Wanted, folders: tuple[Path, ...]) -> Iterator[Path]:
    """Give the folder for the site, one a bundle, kept: a second rehearsal loads what is new. RefusedError: in use."""
    name = hashlib.sha256("\n".join(map(str, (*wanted.bases, *folders))).encode()).hexdigest()[:12]
    place = (wanted.work or cache_folder() / "prove").absolute() / name
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (place / "lock").open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RefusedError(
                f"another rehearsal of {folders[0]} is at work in {place}", hint="run this again when it is done"
            ) from None
        yield place / "site"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
