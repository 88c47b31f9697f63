"""The lock in a bundle, and whether it was made for the hosts that the site has now."""

import hashlib
from pathlib import Path

from onprem_llm.bundle.files import read_small
from onprem_llm.bundle.manifest import AGAIN, BLOBS, NEWER
from onprem_llm.bundle.opening import Opened
from onprem_llm.bundle.place import is_there
from onprem_llm.errors import InvalidError, OnpremError
from onprem_llm.facts.as_hosts import hosts_of
from onprem_llm.planning.compatibility.check import check_hosts
from onprem_llm.planning.drift import drift
from onprem_llm.spec.deployment import parse_deployment
from onprem_llm.spec.facts import Facts
from onprem_llm.spec.lock import Lock, parse_lock
from onprem_llm.spec.site import Site


def lock_of(opened: Opened) -> Lock | None:
    """Return the lock that a bundle was made from; None where no volume that is here has it.

    InvalidError where this tool cannot read it, OnpremError where it is damaged.
    """
    for place in opened.folders.values():
        for blob in opened.manifest.of_role("lock"):
            if is_there(place / BLOBS / blob.sha256, blob.size):
                return read_lock_blob(place, blob.sha256)
    return None


def read_lock_blob(place: Path, sha256: str) -> Lock:
    """Read the lock among the blobs of a folder."""
    name = f"{BLOBS}/{sha256}"
    data = read_small(place, name)
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise OnpremError(f"{place / name} (the lock): found sha256 {found}, expected {sha256}", hint=AGAIN)
    return parse_lock(data, f"{place / name} (the lock)", again=AGAIN, newer=NEWER)


def made_for(opened: Opened, lock: Lock | None, facts: Facts) -> None:
    """Raise InvalidError with a sentence for each host that is no longer what the lock has.

    And where a deployment's image could run on none of those that have the GPUs for it.
    """
    if lock is None:
        raise InvalidError(
            f"the lock is in {', '.join(opened.absent)}, which is not here: hosts cannot be compared with it",
            hint="load vol-001 first, or load without --facts",
        )
    problems = drift(lock, facts)
    if problems:
        raise InvalidError(
            "the bundle was made for other hosts; nothing was loaded",
            details="\n".join(f"  {problem}" for problem in problems),
        )
    known = tuple(hosts_of(facts, Site()))
    for one in lock.deployments:
        # The lock was judged by the facts of its day; a driver may be another one since, and the hosts others.
        check_hosts(parse_deployment(one.text, one.file), None, known)
