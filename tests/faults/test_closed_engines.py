"""Engines are for the gateway alone: a third host gets no connection, before and after a reboot."""

import subprocess

from tests.load.rehearsal import until
from tests.load.served import Served

CONNECT = """\
import socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), 3).close()
    print("connected")
except OSError as error:
    print("refused", error)
"""
PORT = "8000"


def connects(stub: Served, source: str, host: str) -> bool:
    """Try to connect to the engine of a host from another."""
    address = stub.rehearsal.address(host)
    said = stub.rehearsal.lab.exec_root(source, "python3", "-c", CONNECT, address, PORT)
    assert said.startswith(("connected", "refused")), said
    return said.startswith("connected")


def test_only_the_gateway_connects(stub: Served) -> None:
    gateway, second, third = stub.rehearsal.hosts
    # Without this the rest would pass with no engine at all.
    assert connects(stub, gateway, second)
    assert not connects(stub, third, second)
    assert not connects(stub, third, gateway)
    assert not connects(stub, second, gateway)


def test_nor_after_a_reboot(stub: Served) -> None:
    gateway, second, third = stub.rehearsal.hosts
    subprocess.run(["docker", "restart", second], check=True, capture_output=True, timeout=180)
    until(lambda: connects(stub, gateway, second), 120, "the engine is back")
    assert not connects(stub, third, second)
    stub.in_rotation(2, 60)
