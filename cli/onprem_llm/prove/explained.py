"""Which attempts to reach the outside are explained, by a table of few: everything else fails the rehearsal."""

import functools
from fnmatch import fnmatchcase
from importlib import resources

import yaml

from onprem_llm.lab.attempts import Attempt

FIELDS = ("unit", "protocol", "port", "name")


@functools.cache
def table() -> tuple[dict[str, object], ...]:
    """Return the explained attempts."""
    return tuple(yaml.safe_load(resources.files(__package__).joinpath("explained.yaml").read_text("utf-8")))


def why(attempt: Attempt) -> str | None:
    """Return why an attempt is none of the bundle's; None: unexplained."""
    if attempt.container is not None:
        return None
    return next((str(entry["why"]) for entry in table() if _matches(attempt, entry)), None)


def _matches(attempt: Attempt, entry: dict[str, object]) -> bool:
    for field in FIELDS:
        if field not in entry:
            continue
        found, wanted = getattr(attempt, field), entry[field]
        if field == "name":
            if found is None or not fnmatchcase(found.lower(), str(wanted)):
                return False
        elif found != wanted:
            return False
    return True
