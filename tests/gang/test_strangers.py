"""Who is not of the gang is not let in, is told why where it knows the key, and harms nobody."""

import contextlib
import json
import socket
from pathlib import Path

from tests.gang.ranks import KEY, Gang, until


def test_another_key_is_refused_on_both_sides_and_never_sent(gang: Gang) -> None:
    leader, stranger = gang.start(0), gang.start(1, key="sk-another")
    stranger.waits_for("it has not the engine key that we have")
    leader.waits_for("127.0.0.1 was not let in: it has another engine key")
    gang.start(1).waits_for("the gang serves")
    assert "sk-" not in leader.log + stranger.log


def test_another_revision_is_told_and_waits(gang: Gang) -> None:
    leader, old = gang.start(0, revision="r2"), gang.start(1, revision="r1")
    old.waits_for("is not let in by rank 0 at")
    for life in (leader, old):
        life.waits_for("it is of revision r1, rank 0 of r2")
    assert old.process.poll() is None
    assert old.healthy()[0] == 75
    gang.start(1, revision="r2").waits_for("the gang serves")


def test_another_size_is_told(gang: Gang) -> None:
    gang.start(0)
    gang.start(1, size=3).waits_for("it expects 3 ranks, rank 0 2")


def test_of_two_with_the_same_rank_the_second_waits(gang: Gang) -> None:
    leader, member = gang.start_all()
    second = gang.start(1)
    second.waits_for("rank 1 (host-1) is there already")
    assert leader.process.poll() is None
    assert member.process.poll() is None
    member.kill()  # the second takes its place in the next life
    assert leader.code() == 69
    gang.start(0).waits_for("the gang serves")
    second.waits_for("the gang serves")


HELLO = {"rank": 1, "size": 2, "revision": "r1", "me": "a", "nonce": "n"}
GARBAGE = [
    b"GET / HTTP/1.1\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\xff\xfe\n",
    b"x" * 100_000,
    b"[" * 3000 + b"\n",
    b"null\n",
    b'{"rank": "1"}\n',
    json.dumps({**HELLO, "me": "a\nb"}).encode() + b"\n",
    json.dumps(HELLO).encode() + b'\n{"proof": "\xc3\xa9"}\n',
    json.dumps(HELLO).encode() + b"\n",
    b"",
]


def test_garbage_is_cut_off_and_said_once(gang: Gang) -> None:
    leader = gang.start(0)
    leader.waits_for("waits at")
    for said in GARBAGE * 3:
        with socket.create_connection(("127.0.0.1", gang.port), timeout=10) as stranger:
            _say_and_hear(stranger, said)
    gang.start(1).waits_for("the gang serves")
    assert "Traceback" not in leader.log
    for reason in (
        "does not speak as a rank",
        "more than 4096 bytes",
        "closed the connection",
        "has not the engine key",
    ):
        assert leader.log.count(reason) == 1


def test_many_that_say_nothing_keep_nobody_out(gang: Gang) -> None:
    gang.silence = 600  # so that time does not send them away
    leader = gang.start(0)
    leader.waits_for("waits at")
    files = Path(f"/proc/{leader.process.pid}/fd")
    strangers = [socket.create_connection(("127.0.0.1", gang.port), timeout=10) for _ in range(200)]
    try:
        until(lambda: len(list(files.iterdir())) < 50, lambda: "it keeps all that connect")
        gang.start(1).waits_for("the gang serves")
        assert leader.log.count("\n") < 10
    finally:
        for stranger in strangers:
            stranger.close()


def test_a_member_that_speaks_to_something_else_waits(gang: Gang) -> None:
    with socket.create_server(("127.0.0.1", gang.port)) as other:
        member = gang.start(1)
        connection, _ = other.accept()
        with connection:
            connection.sendall(b"SSH-2.0-OpenSSH\r\n")
            member.waits_for("it does not speak as a rank of a gang does")
            heard = connection.recv(4096)
    assert KEY.encode() not in heard
    gang.start(0).waits_for("the gang serves")


def test_a_port_that_is_taken_is_said(gang: Gang) -> None:
    with socket.create_server(("127.0.0.1", gang.port)):
        leader = gang.start(0)
        assert leader.code() == 72
    assert f"cannot listen on 127.0.0.1:{gang.port}: Address already in use" in leader.log


def _say_and_hear(stranger: socket.socket, said: bytes) -> None:
    """Say it, and wait until the other side has closed."""
    with contextlib.suppress(ConnectionError):
        stranger.sendall(said)
        stranger.shutdown(socket.SHUT_WR)
        while stranger.recv(4096):
            pass
