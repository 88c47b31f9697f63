"""Real ranks of a gang on loopback, as processes: the program as it is rendered, with small commands for engines."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from onprem_llm.rendering.gang import FOLDER, program

KEY = "sk-the-engine-key"
# Answers /health as an engine does once it is up, 503 where its mark has a neighbour `ill`, and has a child; a stubborn
# child has left the group and does not hear SIGTERM.
ENGINE = """
import http.server, os, pathlib, subprocess, sys
port, mark, stubborn = int(sys.argv[1]), pathlib.Path(sys.argv[2]), len(sys.argv) > 3
code = f"import signal, time; signal.signal(15, {int(stubborn)}); time.sleep(600)"
child = subprocess.Popen([sys.executable, "-S", "-c", code], start_new_session=stubborn)
mark.write_text(f"{child.pid} {os.getpid()}")
class Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(503 if mark.with_suffix(".ill").exists() else 200)
        self.end_headers()
    def log_message(self, *_): pass
http.server.HTTPServer(("127.0.0.1", port), Health).serve_forever()
"""
# Takes a second to end on SIGTERM, and writes down whether the process that another mark names is there until then.
POLITE = """
import os, pathlib, signal, sys, time
mark, other = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
def end(*_):
    time.sleep(1)
    mark.with_suffix(".saw").write_text(str(os.path.exists("/proc/" + other.read_text())))
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
mark.write_text(str(os.getpid()))
time.sleep(600)
"""
WORKER = "import os, pathlib, sys, time; pathlib.Path(sys.argv[1]).write_text(str(os.getpid())); time.sleep(600)"
PATIENCE_S = 90.0  # of a machine that does other things
# Without site-packages: the program has the standard library alone.
PYTHON = (sys.executable, "-S")


def write_program(folder: Path) -> Path:
    """Write the program as a project's folder has it, and return the file that is started."""
    for name, text in program().items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder / FOLDER / "gang.py"


class Gang:
    """A gang's ranks, each started when the test says so; told of `silence`, `beat` and `grace` (seconds)."""

    def __init__(self, folder: Path, size: int = 2) -> None:
        self.folder, self.size, self.silence, self.beat, self.grace = folder, size, 10, 0.2, 1
        self.start_file = write_program(folder)
        # Bound until the end, so that the kernel gives them to nobody else; who listens there reuses the address.
        self._held = [socket.socket(), socket.socket()]
        for one in self._held:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.bind(("127.0.0.1", 0))
        self.port, self.api_port = (int(one.getsockname()[1]) for one in self._held)
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(
        self,
        rank: int,
        *,
        key: str = KEY,
        revision: str = "r1",
        size: int = 0,
        command: list[str] | None = None,
        more: str = "",
    ) -> "Life":
        life = len(self.processes)
        log, state, mark = (self.folder / f"{rank}.{life}.{kind}" for kind in ("log", "state", "mark"))
        engine = [*PYTHON, "-c", *([ENGINE, str(self.api_port)] if rank == 0 else [WORKER]), str(mark), *more.split()]
        asked = ["--health", f"http://127.0.0.1:{self.api_port}/health"] if rank == 0 else []
        line = [
            *(*PYTHON, str(self.start_file), "--rank", str(rank), "--size", str(size or self.size)),
            *("--leader", f"127.0.0.1:{self.port}", "--me", f"host-{rank}", "--revision", revision, *asked),
            *(
                "--state",
                str(state),
                "--beat",
                str(self.beat),
                "--silence",
                str(self.silence),
                "--grace",
                str(self.grace),
                "--",
                *(command or engine),
            ),
        ]
        with log.open("wb") as out:
            process = subprocess.Popen(line, stdout=out, stderr=out, env={**os.environ, "VLLM_API_KEY": key})
        self.processes.append(process)
        return Life(process, log, state, mark, self.start_file)

    def start_all(self) -> list["Life"]:
        """Start every rank and wait until the gang serves."""
        lives = [self.start(rank) for rank in range(self.size)]
        for life in lives:
            life.waits_for("the gang serves")
        return lives

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
        for mark in self.folder.glob("*.mark"):
            kill_groups(mark.read_text())
        for one in self._held:
            one.close()


class Life:
    """One process of a rank, with what it wrote."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path, state: Path, mark: Path, start: Path) -> None:
        self.process, self.state, self._log, self.mark, self._start = process, state, log, mark, start

    @property
    def log(self) -> str:
        return self._log.read_text()

    def waits_for(self, text: str) -> None:
        until(lambda: text in self.log, lambda: f"{text!r} did not come; the log:\n{self.log}")

    def code(self) -> int:
        """Wait for its end and return the exit code."""
        try:
            return self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it does not end; the log:\n{self.log}") from None

    def engine_pid(self) -> int:
        """Return the process that its engine wrote down: for rank 0 the engine's child."""
        until(lambda: self.mark.exists() and self.mark.read_text() != "", lambda: f"no engine:\n{self.log}")
        return int(self.mark.read_text().split()[0])

    def kill(self) -> None:
        """Kill the program and its engine at once, as the kernel does with a container whose process 1 is killed."""
        self.process.kill()
        self.process.wait()
        self.engine_pid()
        kill_groups(self.mark.read_text())

    def healthy(self) -> tuple[int, str]:
        done = subprocess.run(
            [*PYTHON, str(self._start), "--healthy", "--state", str(self.state)],
            capture_output=True, text=True, check=False, timeout=30,
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr


def kill_groups(pids: str) -> None:
    """Kill the groups of these processes, as they stand in a mark."""
    for pid in pids.split():
        with contextlib.suppress(ProcessLookupError):
            os.killpg(os.getpgid(int(pid)), signal.SIGKILL)


def alive(pid: int) -> bool:
    """Tell whether the process runs; one that is dead and not reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def until(true: Callable[[], bool], otherwise: Callable[[], str], seconds: float = PATIENCE_S) -> None:
    """Wait until `true()`, for `seconds` at most; fail with what `otherwise()` says."""
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            raise AssertionError(otherwise())
        time.sleep(0.02)


@contextlib.contextmanager
def gang_of(folder: Path, size: int = 2) -> Iterator[Gang]:
    """Give a gang whose processes are gone afterwards."""
    gang = Gang(folder, size)
    try:
        yield gang
    finally:
        gang.close()
