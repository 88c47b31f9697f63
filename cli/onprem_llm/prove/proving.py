"""From a command line to a proof: what is asked is checked before anything is made."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from onprem_llm.bundle.signing import PROOF, sign
from onprem_llm.caches import cache_folder
from onprem_llm.connection import Connection
from onprem_llm.errors import InvalidError
from onprem_llm.lab import engine
from onprem_llm.locking.wheels import MACHINES
from onprem_llm.prove import hosts, site_inventory
from onprem_llm.prove.likeness import Likeness, check_architecture, likeness
from onprem_llm.prove.places import check_writable, remove_stale, site_folder, wait_for_commands
from onprem_llm.prove.proof import Proof, forget, write
from onprem_llm.prove.rehearse import Asked, Rehearsal
from onprem_llm.prove.site_variables import variables
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


def prove(wanted: Wanted, connection: Connection, say: Callable[[str], None], show: Callable[[Proof], None]) -> Proof:
    """Rehearse, show the proof, write it, return it. A rehearsal that fails is a proof, no exception.

    OnpremError after all that: the hosts could not be removed.
    """
    folders = tuple(path.absolute() for path in wanted.folders)
    place = (wanted.out or folders[0]).absolute()
    _check(wanted, folders)
    facts = dict(merge_facts(wanted.facts).hosts) if wanted.facts else {}
    groups = {name: route.groups for name, route in routes(connection).items()}
    if strangers := sorted(facts.keys() - groups.keys()):
        raise InvalidError(
            f"the facts are of hosts that {connection.inventory} does not name: {', '.join(strangers)}",
            hint="name the inventory that they were collected with",
        )
    check_architecture({f"host {name}": one.architecture for name, one in facts.items()}, hosts.machine())
    given = variables(connection)
    engine.client()  # before minutes are spent
    bases, parent = tuple(path.absolute() for path in wanted.bases), wanted.work or cache_folder() / "prove"
    with hosts.held(wanted.lab), site_folder(parent, bases, folders) as site:
        hosts.own(wanted.lab, site.parent)  # before anything of it is touched
        wait_for_commands(site.parent, say)
        remove_stale(site.parent)
        # What one that was killed left: the settings of the site, and a proof that would speak for this one.
        (site / site_inventory.FILE).unlink(missing_ok=True)
        forget(place)
        asked = Asked(
            folders=folders,
            allowed=wanted.allowed,
            facts=tuple(path.absolute() for path in wanted.facts),
            bases=bases,
            groups=groups,
            given=given,
            vaults=connection.vault_password_files,
            likeness=lambda lock: _likeness(groups, facts, lock),
            site=site,
            lab=wanted.lab,
            settle=wanted.settle,
            keep=wanted.keep,
        )
        proof = Proof(folders[0].name, connection.inventory.name, _now())
        trouble = Rehearsal(asked, proof, Tool(site.parent, say), say).run()
    proof.ended = _now()
    show(proof)  # first: what was hours in the making is seen wherever the file may fail
    path = write(proof, place, wanted.sign_key)
    say(f"Written to {path}" + (f", signed: {path}.sig" if wanted.sign_key else ", unsigned: --sign-key KEY signs it"))
    if trouble:
        raise trouble
    return proof


def _check(wanted: Wanted, folders: tuple[Path, ...]) -> None:
    for path in (*folders, *wanted.bases):
        if not path.is_dir():
            raise InvalidError(f"{path}: no folder, expected that of a bundle", hint="onprem-llm bundle create --help")
    if wanted.out and not wanted.out.is_dir():
        raise InvalidError(f"{wanted.out}: no folder, expected one for the proof", hint=f"mkdir {wanted.out}")
    check_writable(wanted.out or folders[0])
    if wanted.sign_key:
        sign(b"", wanted.sign_key, PROOF)  # a key that cannot sign is not found out at the end


def _likeness(groups: dict[str, tuple[str, ...]], facts: dict[str, HostFacts], lock: Lock) -> Likeness:
    check_architecture({"the bundle": MACHINES[lock.platform]}, hosts.machine())
    return likeness(list(groups), facts, [(one.os, one.release) for one in lock.packages], hosts.machine())


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
