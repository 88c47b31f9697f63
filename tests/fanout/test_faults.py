"""Hosts that die, hang, fill up or come back, a line that changes bytes: nothing wrong gets a name, the rest go on."""

import os
import signal
import socket
import subprocess
import time

import pytest
from tests.fanout.kit import CHUNK, PIECE, SECRET, Flipper, content

SLOW = 500_000  # bytes a second: the model takes about 4 s


def test_a_piece_that_changes_on_the_wire_is_found_at_once_and_fetched_again(chain):
    run, spoiled = chain(4), []

    def spoil(offset, data):
        if offset <= 700_000 < offset + len(data):
            data[700_000 - offset] ^= 0x40
            spoiled.append(offset)

    Flipper(run, 1, 2, spoil)
    run.start().until_done()
    assert spoiled
    assert run.status(2)["again"] == 1
    assert run.status(3)["again"] == 0, "what was damaged went on to the next host"


def test_a_line_that_always_damages_a_piece_is_left_for_another(chain):
    run = chain(4)

    def spoil(offset, data):
        if offset > 400_000:
            data[0] ^= 1

    Flipper(run, 1, 2, spoil)
    run.start()
    run.until_done(1, 3, 2)
    assert run.status(3)["again"] == 0


@pytest.mark.parametrize(("field", "bit"), [(0, 1), (0, 0x18), (4, 1), (8, 1), (10, 0x10), (12, 1)])
def test_a_head_that_changes_on_the_wire_loses_no_answer(chain, field, bit):
    """Kind (an unknown one; a beat), span, piece, and a size that is too large or wrong: the bytes are big-endian."""
    run, seen, changed = chain(3), bytearray(), []
    heads = [16 + 1 + 32]  # where the frames begin: behind nonce, answer and proof

    def spoil(offset, data):
        seen.extend(data)
        while heads[-1] + 13 <= len(seen):
            kind, size = seen[heads[-1]], int.from_bytes(seen[heads[-1] + 9 : heads[-1] + 13], "big")
            at = heads[-1] + field - offset
            if kind == ord("P") and heads[-1] > run.total / 2 and at >= 0 and not changed:
                data[at] ^= bit
                changed.append(at)
            heads.append(heads[-1] + 13 + size)

    Flipper(run, 1, 2, spoil)
    run.start().until_done()
    assert changed
    assert run.log(2).count("host1: sent what was not asked for") == 1
    assert run.status(2)["received"] <= 1.1 * run.total + CHUNK, "what was here came again"


def test_a_host_that_lies_with_the_runs_own_secret_is_left_for_another(chain):
    """Its tables fit its pieces and have the proof, but the manifest says otherwise."""
    from fan_out import serve
    from fan_out.content import Content
    from fan_out.order import Order

    run = chain(3, files={"f": content(6, 3 * CHUNK)})
    # The last chunk is there already, behind the one that will be lied about.
    (run.data(2) / "f.partial").write_bytes(bytes(2 * CHUNK) + run.files["f"][2 * CHUNK :])
    order = Order({**run.order(1), "rank": 1})

    class Liar(Content):
        source = True

        def digest_and_table(self, place, span):
            return span.sha256, super().digest_and_table(place, span)[1]

    wrong = bytearray(run.files["f"])
    wrong[CHUNK + 1] ^= 1
    (run.data(1) / "f").write_bytes(wrong)
    liar = Liar(order, SECRET.encode(), print)
    server = serve.Server(order, SECRET.encode(), liar, print)
    liar.start()
    server.start()
    run.start(0, 2)
    run.until_done(2)
    assert server.sent_so_far() > CHUNK, "it was never asked"
    assert run.log(2).count("not the manifest's") == 1


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "hung"])
def test_the_chain_closes_around_a_host_that_is_lost(chain, how):
    run = chain(5, bandwidth=SLOW).start()
    run.until_half(2)
    run.kill(2, how)
    run.until_done(1, 3, 4)
    assert run.status(0)["sent"] <= 1.1 * run.total
    assert "pulling from host1" in run.log(3)


def test_two_neighbours_lost_at_once(chain):
    run = chain(5, bandwidth=SLOW).start()
    run.until_half(3)
    run.kill(2)
    run.kill(3)
    run.until_done(1, 4)


def test_a_host_that_comes_back_goes_behind_the_last(chain):
    run = chain(5, bandwidth=SLOW // 2).start()
    run.until(lambda: run.status(2).get("done", 0) > run.total / 4)
    run.kill(2)
    run.until(lambda: "pulling from host1" in run.log(3))
    run.start(2)
    run.until_done()
    assert "behind the last" in run.log(2)
    assert run.log(3).count("pulling from") == 2, "its place was taken from the one that had closed the chain"
    assert run.status(0)["sent"] <= 1.1 * run.total


def test_one_that_never_starts_is_not_waited_for_for_ever(chain):
    run = chain(4, patience=1).start(0, 1, 3)
    run.until_done(1, 3)


def test_a_killed_source_goes_on_and_sends_nothing_twice(chain):
    run = chain(3, bandwidth=SLOW).start()
    run.until_half(1)
    run.kill(0)
    time.sleep(1)
    had = run.status(1)["done"]
    run.start(0)
    run.until_done()
    assert run.status(0)["sent"] <= (run.total - had) * 1.1 + CHUNK
    assert run.status(1)["received"] <= 1.1 * run.total + CHUNK


def test_all_killed_and_started_again_send_what_is_missing(chain):
    run = chain(3, bandwidth=SLOW).start()
    run.until_half(2)
    for rank in range(3):
        run.kill(rank)
    had = [run.status(rank)["done"] for rank in range(3)]
    run.start().until_done()
    for rank in (1, 2):
        assert had[rank] > run.total / 3
        assert run.status(rank)["received"] <= (run.total - had[rank]) * 1.1 + 4 * PIECE


def test_bytes_that_changed_on_the_disk_between_two_runs_are_fetched_again(chain):
    run = chain(2, bandwidth=SLOW).start()
    run.until_half(1)
    run.kill(1)
    partial = run.data(1) / "model-1.safetensors.partial"
    whole = run.data(1) / "model-1.safetensors"
    with (partial if partial.exists() else whole).open("r+b") as file:
        file.seek(5)
        byte = file.read(1)
        file.seek(5)
        file.write(bytes([byte[0] ^ 1]))
    run.start(1)
    run.until_done()


def test_a_partial_file_of_another_revision_is_no_reason_to_believe_it(chain):
    run = chain(2)
    (run.data(1) / "model-1.safetensors.partial").write_bytes(content(77, 1_600_000))
    (run.data(1) / "model-2.safetensors").write_bytes(content(78, 5 * CHUNK))
    run.start().until_done()


def test_a_stale_run_on_the_port_is_named(chain):
    old = chain(2, root="old", run="old").start()
    old.until_done()
    new = chain(2, root="new", run="new")
    new.addresses = old.addresses
    new.start(1)
    said = new.fails(1)
    assert "host1: cannot listen on" in said
    assert "another run" in said


@pytest.fixture
def small(tmp_path):
    folder = tmp_path / "host2" / "weights"
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "small", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def _fill(file):
    while True:
        file.write(bytes(64 * 1024))


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small file system")
@pytest.mark.parametrize("before", [True, False], ids=["before", "meanwhile"])
def test_a_full_disk_ends_one_host_and_no_other(chain, small, before):
    run = chain(4, bandwidth=SLOW, patience=4)
    ballast = small / "ballast"
    if before:
        ballast.write_bytes(bytes(2 * 2**20))
        run.start()
    else:
        run.start()
        run.until(lambda: run.status(2).get("done", 0) > 200_000)
        with ballast.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
            _fill(file)
    said = run.fails(2)
    assert ("not enough disk in" if before else "is full") in said
    assert "host2" in said
    assert str(run.data(2)) in said
    assert run.status(2)["state"] == "failed"
    run.until_done(1, 3)
    ballast.unlink()
    run.start(2)
    run.until_done(2)


def test_a_source_that_is_not_what_the_manifest_says_spreads_nothing(chain):
    run = chain(2)
    path = run.data(0) / "model-2.safetensors"
    data = bytearray(path.read_bytes())
    data[3 * CHUNK] ^= 1
    path.write_bytes(data)
    run.start()
    said = run.fails(0)
    assert f"{path} differs from its manifest" in said
    assert f"at {3 * CHUNK}" in said
    assert not (run.data(1) / "model-2.safetensors").exists()


def test_a_peer_without_the_secret_gets_nothing_and_the_run_goes_on(chain):
    run = chain(4, patience=2, give_up=3)
    run.secrets[2] = "6" * 64
    run.start()
    said = run.fails(2)
    assert "no host of this run has answered" in said
    assert "host2" in said
    assert run.status(2)["done"] == 0
    run.until_done(1, 3)
    assert "does not know this run's secret" in run.log(1)


def test_strangers_are_turned_away_and_hold_nobody_up(chain):
    run = chain(2, bandwidth=SLOW).start(0)
    run.until(lambda: run.status(0))
    where = (run.addresses[0], 7471)
    stranger = socket.create_connection(where, 5)
    assert stranger.recv(1) == b"", "an address that is none of the run's was served"
    silent = [socket.create_connection(where, 5, (run.addresses[1], 0)) for _ in range(8)]
    noise = socket.create_connection(where, 5, (run.addresses[1], 0))
    noise.sendall(os.urandom(200))
    assert len(_all_of(noise)) <= 16, "somebody who proved nothing was served"
    run.start(1)
    run.until_done()
    assert silent
    assert "none of this run's hosts" in run.log(0)


def _all_of(sock):
    data = b""
    try:
        while more := sock.recv(1000):
            data += more
    except OSError:
        pass
    return data


@pytest.mark.parametrize("name", ["../x", "/tmp/x", "a/../../x", "a//x", "", "a\nb", "a/", "..", "a\\b"])
def test_a_name_that_leaves_the_folder_is_refused_before_anything_is_written(chain, name):
    run = chain(2)
    run.common["files"][0]["path"] = name
    run.start(1)
    said = run.fails(1)
    assert "nothing was written" in said
    assert repr(name) in said
    assert not list(run.data(1).iterdir())


@pytest.mark.parametrize("what", ["sub", "config.json", "model-1.safetensors.partial"])
def test_nothing_is_written_through_a_link(chain, what, tmp_path):
    run = chain(2)
    outside = tmp_path / "outside"
    outside.mkdir() if what == "sub" else outside.write_bytes(b"precious")
    (run.data(1) / what).symlink_to(outside)
    run.start(1)
    assert f"{run.data(1) / what} is a link" in run.fails(1)
    assert outside.is_dir() or outside.read_bytes() == b"precious"
