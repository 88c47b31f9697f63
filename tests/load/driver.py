"""Start the load client in a process of its own, here or on a rehearsal host, and read its records as they come."""

import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path

from tests.load.client import Record, Settings

PROGRAM = Path(__file__).with_name("client.py").read_text("utf-8")


class Load:
    """A load that runs; `with Load(settings) as load:` stops it and waits for its last answers at the end.

    `prefix` is put before `python3`: ("docker", "exec", "-i", HOST) runs it on that rehearsal host.
    """

    def __init__(self, settings: Settings, prefix: Iterable[str] = ()) -> None:
        self.settings = settings
        self.records: list[Record] = []
        self.summary: dict = {}
        python = "python3" if prefix else sys.executable
        self.process = subprocess.Popen(
            [*prefix, python, "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(asdict(settings)) + "\n")
        self.process.stdin.flush()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            value = json.loads(line)
            if "record" in value:
                self.records.append(Record(**value["record"]))
            else:
                self.summary = value["summary"]

    def __enter__(self) -> "Load":
        return self

    def __exit__(self, kind: object, *rest: object) -> None:
        if kind is None:
            self.stop()
        else:
            self.process.kill()
            self.process.wait()

    def wait(self, what: Callable[["Load"], bool], seconds: float, explain: str) -> None:
        """Wait until something is true of the records."""
        end = time.monotonic() + seconds
        while not what(self):
            assert self.process.poll() is None, f"the load ended before {explain}: {self.summary}"
            assert time.monotonic() < end, f"not within {seconds} s: {explain}; {self.report()}"
            time.sleep(0.1)

    def warm(self, count: int = 40) -> "Load":
        """Wait until it runs steadily: so many answers, all of them good."""
        self.wait(lambda load: len(load.records) >= count, 60 + self.seconds_for(count), f"{count} answers")
        assert not self.bad(), self.report()
        return self

    def seconds_for(self, count: int) -> float:
        """Return how long so many requests take to be sent; where each waits for an answer, at most."""
        given = self.settings
        return count / given.rate if given.rate else count * given.limit / given.workers

    def stop(self) -> dict:
        """Begin no further request, wait for the last answers, and return the summary."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.finish()

    def finish(self) -> dict:
        """Wait for the end; nothing that was begun may be missing from the records."""
        status = self.process.wait(timeout=self.settings.seconds + self.settings.limit + 30)
        self.reader.join(timeout=30)
        assert status == 0, f"the load client ended with {status}"
        assert self.summary, "the load client ended without a summary"
        assert self.summary["begun"] == self.summary["ended"] == len(self.records), self.summary
        return self.summary

    def failed(self) -> list[Record]:
        """Return what failed: a connection error, a 5xx, an answer without its end."""
        return [one for one in self.records if one.failure]

    def bad(self) -> list[Record]:
        """Return what was anything but a good answer; a 4xx too."""
        return [one for one in self.records if one.failure or one.status != 200]

    def report(self) -> str:
        """Say how it went, the failures by reason, and the first of them."""
        reasons = Counter(one.failure or f"status {one.status}" for one in self.bad())
        first = [asdict(one) for one in self.bad()[:3]]
        return f"{len(self.records)} requests, not good: {dict(reasons)}; the first: {first}; {self.summary}"

    def assert_all_good(self, at_least: int) -> None:
        """Assert that every request was answered well; with so few that it proves nothing, fail."""
        kinds = Counter(one.kind for one in self.records)
        assert not self.bad(), self.report()
        assert len(self.records) >= at_least, self.report()
        assert min(kinds["stream"], kinds["whole"]) >= len(self.records) * 0.45, kinds
        assert any(one.kept for one in self.records), "no request went over a kept connection"


def capacity(settings: Settings, workers: int, seconds: float) -> float:
    """Measure how many good answers a second so many clients get, each sending when it has its answer."""
    with Load(Settings(**{**asdict(settings), "workers": workers, "seconds": seconds})) as load:
        summary = load.finish()
    assert not load.bad(), load.report()
    return float(summary["good_per_second"])
