"""The program that makes a gang live and die together (gang_program), as files of a rank's project."""

import functools
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources

from onprem_llm.rendering.compose import LABEL

# The folder in the project's own, and where the container sees it.
FOLDER = "gang"
MOUNT = "/run/onprem-llm"
LABEL_PROGRAM = f"{LABEL}.gang_program"
_PROGRAM = "gang_program"
_START = '''"""Start a rank of a gang, or say how it stands (--healthy)."""

from gang_program.main import main

main()
'''


@dataclass(frozen=True, slots=True)
class GangRank:
    """A rank's place in its gang."""

    rank: int
    size: int
    leader: str  # ADDR:PORT where rank 0 listens for the others, a port of the gang's own
    address: str  # this host's, as the others know it
    token: str  # the same for all ranks, another one when anything is rendered otherwise for any of them
    health: str | None = None  # rank 0: the URL of its engine's /health, as seen in the container


def program() -> dict[str, str]:
    """Return the program's files (path in the project's folder -> text)."""
    return dict(_files())


def program_digest() -> str:
    """Return the sha256 over the program, for the label LABEL_PROGRAM: another program is another container."""
    return hashlib.sha256("\0".join(part for item in sorted(_files().items()) for part in item).encode()).hexdigest()


def program_volume() -> dict[str, object]:
    """Return the mount that a rank's service needs."""
    return {"type": "bind", "source": f"./{FOLDER}", "target": MOUNT, "read_only": True}


def in_gang(place: GangRank, command: Sequence[str]) -> list[str]:
    """Return the command line that runs an engine's command as a rank; it wants VLLM_API_KEY in its environment."""
    asked = ["--health", place.health] if place.health else []
    return [
        *("python3", f"{MOUNT}/gang.py", "--rank", str(place.rank), "--size", str(place.size)),
        *("--leader", place.leader, "--me", place.address, "--revision", place.token, *asked, "--", *command),
    ]


def gang_health_check(*, start_period: int, interval: int) -> dict[str, object]:
    """Return the health check of any rank; times in seconds.

    It ends with 0 where the rank serves, and with 75 where it waits for others: that is not healthy, and no reason
    to restart it either.
    """
    return {
        "test": ["CMD", "python3", f"{MOUNT}/gang.py", "--healthy"],
        "interval": f"{interval}s",
        "timeout": f"{2 * interval}s",
        "retries": 3,
        "start_period": f"{start_period}s",
    }


@functools.cache
def _files() -> Mapping[str, str]:
    folder = resources.files(f"onprem_llm.{_PROGRAM}")
    names = sorted(one.name for one in folder.iterdir() if one.name.endswith(".py"))
    texts = {f"{FOLDER}/{_PROGRAM}/{name}": (folder / name).read_text(encoding="utf-8") for name in names}
    return {f"{FOLDER}/gang.py": _START, **texts}
