"""What surrounds a run's processes: the file on which bytes are reported, and the end of children on Ctrl-C."""

import json
import os
import signal
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from onprem_llm.output import Progress

# Seconds between two looks at the file.
TAIL_PERIOD = 0.3


class ByteTail:
    """Passes lines `{"host":…, "done":…, "total":…}`, which action plugins append, to progress.

    They count bytes, or what `unit` names (rounds).
    """

    def __init__(self, path: Path, progress: Progress | None) -> None:
        """Make the file, so that plugins only ever append."""
        self._path = path
        self._progress = progress
        self._done = threading.Event()
        self._offset = 0
        self._thread = threading.Thread(target=self._loop, daemon=True)

    def __enter__(self) -> Self:
        """Begin to watch, where somebody looks."""
        self._path.touch(mode=0o600)
        if self._progress:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop; the last lines are still read."""
        self._done.set()
        if self._progress:
            self._thread.join()
            self._read()

    def _loop(self) -> None:
        while not self._done.wait(TAIL_PERIOD):
            self._read()

    def _read(self) -> None:
        with self._path.open("rb") as file:
            file.seek(self._offset)
            data = file.read()
        end = data.rfind(b"\n") + 1
        self._offset += end
        latest: dict[str, tuple[int, int, str]] = {}
        for line in data[:end].splitlines():
            report = json.loads(line)
            latest[report["host"]] = (int(report["done"]), int(report["total"]), str(report.get("unit", "")))
        for host, (done, total, unit) in latest.items():
            if self._progress and unit:
                self._progress.count(host, done, total, unit)
            elif self._progress:
                self._progress.bytes(host, done, total)


def end_all(private: Path) -> None:
    """End every process of the run whose folder is `private`, wherever it has moved to.

    Ansible's workers leave its process group, so a kill of the group leaves them and their ssh clients. They are known
    by their environment. Shared ssh masters stay: they belong to no run and end by themselves.
    """
    mark = f"ONPREM_LLM_RUN={private}".encode()
    for number, wait in ((signal.SIGTERM, 2.0), (signal.SIGKILL, 1.0)):
        deadline = time.monotonic() + wait
        alive = _marked(mark)
        for pid in alive:
            _signal(pid, number)
        while alive and time.monotonic() < deadline:
            time.sleep(0.05)
            alive = _marked(mark)
        if not alive:
            return


def _marked(mark: bytes) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            marked = mark in (entry / "environ").read_bytes().split(b"\0")
            master = (entry / "cmdline").read_bytes().rstrip(b"\0").endswith(b"[mux]")
        except OSError:
            continue  # it has ended, or is not ours
        if marked and not master:
            found.append(int(entry.name))
    return found


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
