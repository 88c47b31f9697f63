"""`onprem-llm prove` as a process whose hosts are files, and the commands that it runs there: `… FOLDER WORDS`.

Real are the rehearsal's own phases, its lab, its places and its proof, and of the commands those of bundles. What asks
hosts answers as it does where all is well; the command that FOLDER/slow names takes a minute. FOLDER/began has a line
for each command that began: its words and its process.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from tests.prove.made_engine import Engine

from onprem_llm.connection import Connection
from onprem_llm.lab import engine, image
from onprem_llm.main import main
from onprem_llm.prove import proving, rehearse, tool, within
from onprem_llm.ssh import Route

HOSTS = ("server-1", "server-2")
SLOW_S = 60
ANSWERS: dict[str, Any] = {
    "bootstrap": {"gateway": HOSTS[0]}, "deploy": {}, "chat": {"answer": "Mount Everest"},
    "status": {"replicas": [{"project": "open-webui", "address": "10.213.0.11:3000"}]},
}  # fmt: skip


def command(folder: Path) -> None:
    """Be a command of the rehearsal."""
    within.begin()
    with (folder / "began").open("a") as log:
        log.write(" ".join([*sys.argv[1:3], str(os.getpid())]) + "\n")
    if sys.argv[1] == "bundle":
        main()
    slow = folder / "slow"
    time.sleep(SLOW_S if slow.exists() and slow.read_text() == sys.argv[1] else 0)
    sys.stdout.write(json.dumps(ANSWERS[sys.argv[1]]))


def rehearsal(folder: Path) -> None:
    """Be `onprem-llm prove`."""
    made = Engine(folder / "engine")
    engine.client = lambda: made  # type: ignore[assignment]
    engine.exec_root = made.exec_root
    engine.put = lambda *_: None
    image.ensure = lambda *_: "image"
    proving.routes = lambda _: {name: Route(name, False, name, None, None, None, ()) for name in HOSTS}
    proving.variables = _variables
    rehearse.fetch = lambda _: ("Open WebUI", 1000)
    tool.PROGRAM = [sys.executable, "-m", "tests.prove.rehearsing", "command", str(folder)]
    main()


def _variables(_: Connection) -> dict[str, dict[str, Any]]:
    return {name: {"onprem_llm_site": {"proxy": {"http": "http://user:hidden@proxy:3128"}}} for name in HOSTS}


if __name__ == "__main__":
    kind, place = sys.argv[1], Path(sys.argv[2])
    sys.argv = ["onprem-llm", *sys.argv[3:]]
    command(place) if kind == "command" else rehearsal(place)
