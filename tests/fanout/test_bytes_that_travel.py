"""Files that are checked whole, as an image's blobs are: whatever happens to a line, none of them comes again."""

import signal
import threading
import time
from types import SimpleNamespace

import pytest
from tests.fanout.kit import CHUNK, PIECE, SECRET, Flipper, content, entry

SLOW = 500_000  # bytes a second: the blobs take about 4 s
BLOBS = {"a": content(11, 6 * CHUNK), "b": content(12, 6 * CHUNK + 5), "c": content(13, 3 * CHUNK)}


@pytest.fixture
def blobs(chain):
    def make(count, **more):
        run = chain(count, files=BLOBS, **more)
        for file in run.common["files"]:
            file["chunks"] = []
        return run

    return make


def bound(run):
    """What may come to one host: all of it, the tables, and a piece that was cut off in the middle."""
    return 1.02 * run.total + 2 * PIECE


def in_second(run, rank):
    """Wait until a host is in the middle of the second blob."""
    run.until(lambda: run.status(rank).get("done", 0) > len(BLOBS["a"]) + len(BLOBS["b"]) / 2)


def test_a_line_that_is_cut_in_the_second_blob(blobs):
    run, cuts = blobs(3, bandwidth=SLOW), []

    def cut(offset, data):
        if offset > len(BLOBS["a"]) + len(BLOBS["b"]) / 2 and not cuts:
            cuts.append(offset)
            raise OSError("cut")

    Flipper(run, 1, 2, cut)
    run.start().until_done()
    assert cuts
    for rank in (1, 2):
        assert run.status(rank)["received"] <= bound(run)
        assert run.status(rank)["lies"] == 0
    assert run.status(2)["lost"] == 1


def test_a_line_that_is_slow_to_take(blobs):
    """Its host hangs for as long as makes one dead, in the second blob, and comes back."""
    run = blobs(3, bandwidth=SLOW).start()
    in_second(run, 2)
    run.kill(2, signal.SIGSTOP)
    time.sleep(run.common["dead"] + 1)
    run.running[2].send_signal(signal.SIGCONT)
    run.until_done()
    assert run.status(2)["received"] <= bound(run)
    assert run.status(1)["sent"] <= bound(run) + CHUNK, "of what was under way when it hung"


def test_a_receiver_that_starts_anew(blobs):
    run = blobs(3, bandwidth=SLOW).start()
    in_second(run, 2)
    run.kill(2)
    had = run.status(2)["done"]
    run.start(2)
    run.until_done()
    assert run.status(2)["received"] <= bound(run) - had


def test_a_file_that_changes_before_its_table_is_made_costs_nobody_a_blob(blobs):
    run = blobs(3)
    run.fill(1)
    run.start(1)
    run.until(lambda: run.status(1).get("state") == "done")
    changed = run.data(1) / "b"
    with changed.open("r+b") as file:
        file.write(bytes(len(BLOBS["b"])))
    run.start(0, 2).until_done(2)
    assert run.status(2)["lies"] == 0
    assert run.status(2)["received"] <= bound(run), "what was false came, and the blob after it"
    said = run.fails(1)
    assert f"{changed} has changed since it was looked at" in said
    assert "host1" in said


def test_who_gave_a_wrong_table_is_not_asked_again_while_the_others_are_busy(chain):
    """The file came three times, and then the host gave up."""
    from fan_out import serve
    from fan_out.content import Content
    from fan_out.order import Order

    class Liar(Content):
        source = True

        def digest_and_table(self, place, span):
            return span.sha256, super().digest_and_table(place, span)[1]

    run = chain(3, files={"f": BLOBS["a"]})
    run.common["files"][0]["chunks"] = []
    (run.data(1) / "f").write_bytes(bytes(len(BLOBS["a"])))
    order = Order({**run.order(1), "rank": 1})
    liar = Liar(order, SECRET.encode(), print)
    liar.start()
    serve.Server(order, SECRET.encode(), liar, print).start()
    run.start(2)
    run.until(lambda: "not the manifest's" in run.log(2))
    time.sleep(3)
    run.start(0).until_done(2)
    assert run.status(2)["lies"] == 1
    assert run.status(2)["received"] <= 2 * bound(run)


def test_tables_that_are_not_the_manifests_are_told(tmp_path):
    relay, source = two(tmp_path, bytes(PIECE))
    assert relay.put_table(0, b"".join(source.table(0)))
    relay.put_piece(0, 0, bytes(PIECE))
    deadline = time.monotonic() + 20
    while not relay.lies and time.monotonic() < deadline:
        time.sleep(0.01)
    assert relay.lies == 1


def test_of_a_blob_that_is_here_nothing_is_asked_and_nothing_counted_twice(tmp_path):
    """A line that was lost asks from the start, while the last blob is compared."""
    relay, source = two(tmp_path, content(5, PIECE))
    table = b"".join(source.table(0))
    assert relay.put_table(0, table)
    assert relay.put_piece(0, 0, content(5, PIECE))
    while not relay.complete:
        time.sleep(0.01)
    assert relay.wanted(0) == []
    assert relay.put_table(0, table)
    assert relay.wanted(0) == []
    assert relay.bytes == PIECE


def two(root, sent):
    """Return (content of a relay that has nothing, of a source that says that `sent` is the manifest's)."""
    from fan_out.content import Content
    from fan_out.order import Order

    class Liar(Content):
        def digest_and_table(self, place, span):
            return span.sha256, super().digest_and_table(place, span)[1]

    file = {**entry("f", content(5, PIECE)), "chunks": []}
    raw = {"schema": 1, "run": "x", "rank": 1, "port": 1, "hosts": [{"name": "a", "address": "127.0.0.1"}] * 2,
           "piece": PIECE, "chunk_size": CHUNK, "files": [file]}  # fmt: skip
    (root / "source").mkdir()
    (root / "source" / "f").write_bytes(sent)
    source = Liar(Order({**raw, "rank": 0, "folder": str(root / "source")}), SECRET.encode(), print)
    relay = Content(Order({**raw, "folder": str(root / "relay")}), SECRET.encode(), print)
    source.start()
    relay.start()
    while source.table(0) is None or relay.state[0] == "unknown":
        time.sleep(0.01)
    return relay, source


def test_what_came_over_a_line_that_ends_is_counted_once(monkeypatch):
    from fan_out import pull

    class Channel:
        received = 100

        def close(self):
            pass

    class Fetch:
        def __init__(self, *_):
            pass

        def run(self):
            pass

    told = []

    class Looked(pull.Puller):
        """Somebody asks in the moment in which the line is let go."""

        @property
        def _channel(self):
            return self.__dict__.get("line")

        @_channel.setter
        def _channel(self, channel):
            if channel is None and self._channel is not None:
                asking = threading.Thread(target=lambda: told.append(self.received_so_far()))
                asking.start()
                asking.join(0.3)
                self.__dict__["asking"] = asking
            self.__dict__["line"] = channel

    monkeypatch.setattr(pull, "Fetch", Fetch)
    puller = Looked(None, b"", SimpleNamespace(lies=0), None, print)
    puller._pull(Channel())
    puller.__dict__["asking"].join()
    assert told == [100]
    assert puller.received_so_far() == 100
