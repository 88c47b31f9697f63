"""Bytes that are reported beside the events."""

import json
import time
from pathlib import Path

from onprem_llm.output import PlainProgress
from onprem_llm.run_processes import TAIL_PERIOD, ByteTail


class Bytes(PlainProgress):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, int, int]] = []

    def bytes(self, host: str, done: int, total: int) -> None:
        self.seen.append((host, done, total))


def report(path: Path, host: str, done: int) -> None:
    with path.open("a") as file:
        file.write(json.dumps({"host": host, "done": done, "total": 10}) + "\n")


def test_the_latest_report_of_each_host_is_shown_and_the_last_is_never_lost(tmp_path: Path) -> None:
    path, progress = tmp_path / "progress", Bytes()
    with ByteTail(path, progress):
        report(path, "a", 1)
        report(path, "a", 2)
        report(path, "b", 1)
        time.sleep(TAIL_PERIOD * 2)
        assert progress.seen == [("a", 2, 10), ("b", 1, 10)]
        with path.open("a") as file:
            file.write('{"host": "a", "do')
        time.sleep(TAIL_PERIOD * 2)
        with path.open("a") as file:
            file.write('ne": 10, "total": 10}\n')
    assert progress.seen[2:] == [("a", 10, 10)]
