"""Whether a bundle was made for the hosts that the site has now."""

import hashlib

from onprem_llm.bundle.files import read_small
from onprem_llm.bundle.manifest import BLOBS
from onprem_llm.bundle.opening import Opened
from onprem_llm.bundle.place import is_there
from onprem_llm.errors import InvalidError, OnpremError
from onprem_llm.planning.drift import drift
from onprem_llm.spec.facts import Facts
from onprem_llm.spec.lock import Lock


def made_for(opened: Opened, facts: Facts) -> None:
    """Raise InvalidError with a sentence for each host that is no longer what the lock has."""
    (blob,) = opened.manifest.of_role("lock")
    places = [place for place in opened.folders.values() if is_there(place / BLOBS / blob.sha256, blob.size)]
    if not places:
        raise InvalidError(
            f"the lock is in {', '.join(opened.absent)}, which is not here: hosts cannot be compared with it",
            hint="load vol-001 first, or load without --facts",
        )
    data = read_small(places[0], f"{BLOBS}/{blob.sha256}")
    if hashlib.sha256(data).hexdigest() != blob.sha256:
        raise OnpremError(f"{places[0] / BLOBS / blob.sha256} (the lock): damaged", hint="copy it again")
    problems = drift(Lock.model_validate_json(data), facts)
    if problems:
        raise InvalidError(
            "the bundle was made for other hosts; nothing was loaded",
            details="\n".join(f"  {problem}" for problem in problems),
        )
