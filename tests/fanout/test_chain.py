"""What a run is for: all hosts have all, and nothing goes twice."""

import json
import time

import pytest
from tests.fanout.kit import CHUNK, PIECE, SECRET, content, entry, measured

SLOW = 600_000  # bytes a second: the model takes about 4 s


def test_every_host_gets_every_byte_and_the_source_sends_them_once(chain):
    run = chain(5).start()
    run.until_done()
    statuses = [run.status(rank) for rank in range(5)]
    assert statuses[0]["sent"] <= 1.1 * run.total
    assert all(status["received"] <= 1.1 * run.total for status in statuses)
    assert all(status["done"] == status["total"] == run.total for status in statuses[1:])
    assert not list(run.root.rglob("*.partial"))


def test_a_second_run_sends_nothing(chain):
    run = chain(3).start()
    run.until_done()
    before = {path: path.stat() for path in run.data(2).rglob("*") if path.is_file()}
    run.stop()
    run.start().until_done()
    assert sum(run.status(rank)["received"] for rank in (1, 2)) < 1000
    assert all(path.stat().st_ino == was.st_ino and path.stat().st_mtime_ns == was.st_mtime_ns
               for path, was in before.items())  # fmt: skip


def test_of_a_new_revision_changed_files_alone_are_sent(chain):
    """The new revision has a folder of its own; what another one's stamp vouches for is linked."""
    old = chain(2).start()
    old.until_done()
    old.stop()
    stamp = {path: [*_stat(old.data(1) / path), entry(path, data)["sha256"]] for path, data in old.files.items()}
    (old.data(1).parent / "model.json").write_text(json.dumps({"schema": 1, "id": "model", "files": stamp}))
    new = chain(2, files={**old.files, "model-2.safetensors": content(9, 3 * CHUNK)})
    new.data = lambda rank: new.host(rank) / "weights" / "newer"
    new.data(1).mkdir(parents=True)
    new.fill(0)
    new.start().until_done()
    assert new.status(1)["received"] < 1.1 * 3 * CHUNK
    old.right(1)


def test_what_a_stamp_wrongly_vouches_for_is_fetched_and_the_old_file_left_alone(chain):
    files = {"model.safetensors": content(4, 4 * CHUNK)}
    run = chain(2, files=files)
    other = run.data(1).parent / "other"
    other.mkdir()
    rotten = bytearray(files["model.safetensors"])
    rotten[CHUNK + 7] ^= 1
    (other / "model.safetensors").write_bytes(rotten)
    stamp = {
        "model.safetensors": [*_stat(other / "model.safetensors"), entry("", files["model.safetensors"])["sha256"]]
    }
    other.with_suffix(".json").write_text(json.dumps({"schema": 1, "id": "other", "files": stamp}))
    run.start().until_done()
    assert (other / "model.safetensors").read_bytes() == rotten
    assert run.status(1)["received"] < CHUNK, "one piece is wrong, the others are there"


def test_files_without_chunk_sums_are_checked_whole(chain):
    run = chain(3)
    for file in run.common["files"]:
        file["chunks"] = []
    run.start().until_done()


def test_the_limit_holds(chain):
    run = chain(2, bandwidth=SLOW)
    began = time.monotonic()
    run.start().until_done()
    assert run.total / SLOW * 0.9 < time.monotonic() - began


def test_dates_are_the_orders(chain):
    run = chain(2)
    for file in run.common["files"]:
        file["mtime_ns"] = 1_700_000_000_000_000_000
    run.start().until_done()
    assert (run.data(1) / "config.json").stat().st_mtime_ns == 1_700_000_000_000_000_000
    assert (run.data(1) / "config.json").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("linger", [0.5])
def test_nobody_listens_for_long_after_the_end(chain, linger):
    run = chain(3, linger=linger, give_up=2).start()
    run.until_done()
    run.until(lambda: all(process.poll() == 0 for process in run.running.values()))


def test_a_piece_is_served_when_it_was_checked_and_not_before(tmp_path):
    from fan_out.content import Content
    from fan_out.order import Order

    data = content(5, 2 * PIECE)
    raw = {"schema": 1, "run": "x", "rank": 1, "port": 1, "hosts": [{"name": "a", "address": "127.0.0.1"}] * 2,
           "piece": PIECE, "chunk_size": CHUNK, "files": [entry("f", data)]}  # fmt: skip
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "f").write_bytes(data)
    ends = []
    source = Content(Order({**raw, "rank": 0, "folder": str(tmp_path / "source")}), SECRET.encode(), ends.append)
    relay = Content(Order({**raw, "folder": str(tmp_path / "relay")}), SECRET.encode(), ends.append)
    source.start()
    relay.start()
    while source.table(0) is None or relay.state[0] == "unknown":
        time.sleep(0.01)
    assert relay.put_table(0, b"".join(source.table(0)))
    assert relay.wanted(0) == [0, 1]
    assert relay.piece(0, 0) is None
    spoiled = bytearray(data[:PIECE])
    spoiled[0] ^= 1
    assert not relay.put_piece(0, 0, spoiled)
    assert not relay.put_piece(0, 0, data[: PIECE - 1])
    assert relay.piece(0, 0) is None
    assert relay.again == 2
    assert relay.put_piece(0, 0, data[:PIECE])
    assert relay.piece(0, 0) == data[:PIECE]
    assert relay.piece(0, 1) is None
    assert not (tmp_path / "relay" / "f").exists()
    assert relay.put_piece(0, 1, data[PIECE:])
    while not relay.complete:
        time.sleep(0.01)
    assert (tmp_path / "relay" / "f").read_bytes() == data
    assert not ends


def test_a_slow_line_is_measured(chain):
    """Host 2 sends slowly, so that host 3 pulls slowly."""
    rates = measured(chain(4), {2: 100_000})
    assert rates[3] < 200_000
    assert min(rates[0], rates[1], rates[2]) > 400_000


def _stat(path):
    found = path.stat()
    return found.st_size, found.st_mtime_ns
