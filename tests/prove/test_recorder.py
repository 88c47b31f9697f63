"""The recorder against real packets: what a host or a container of it sends outside is recorded, with who sent it."""

import subprocess
import time
from pathlib import Path

import pytest

from .conftest import BOX, BOX6, BRIDGE, HOST, HOST6, PEER, Net

CONNECT = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=20)"
SEND = """
import socket, sys, time
s = socket.socket(socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM)
s.sendto(b'measured', (sys.argv[1], int(sys.argv[2])))
time.sleep(float(sys.argv[3]))
"""
# An echo, as ping sends it: type, code, checksum (the kernel's own for ICMPv6), identifier, sequence, data.
ECHO = """
import socket, struct, sys, time
six = ':' in sys.argv[1]
s = socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_RAW, 58 if six else 1)
head, data = struct.pack('!BBHHH', 128 if six else 8, 0, 0, 7, 1), b'measured'
total = sum(struct.unpack('!8H', head + data))
total = (total & 0xffff) + (total >> 16)
s.sendto(head[:2] + struct.pack('!H', ~(total + (total >> 16)) & 0xffff) + head[4:] + data, (sys.argv[1], 0))
time.sleep(20)
"""
QUICK = """
import os, socket, sys
s = socket.socket(); s.setblocking(False); s.connect_ex((sys.argv[1], int(sys.argv[2])))
os._exit(0)
"""


def test_urllib_is_named_with_its_line_and_who_started_it(net: Net) -> None:
    child = net.python("host", "import urllib.request as r; r.urlopen('http://198.51.100.8:8000/x', timeout=20)")
    line = net.wait(lambda line: line["destination"] == "198.51.100.8")
    assert (line["pid"], line["port"], line["source"]) == (child.pid, 8000, HOST)
    assert (line["protocol"], line["container"]) == ("tcp", None)
    assert "urlopen" in str(line["command"])
    assert line["parents"][0] == Path("/proc/self/comm").read_text().strip()


def test_a_container_has_its_own_address_behind_nat_and_is_recorded_once(net: Net) -> None:
    child = net.python("box", CONNECT, "198.51.100.9", "443")
    line = net.wait(lambda line: line["destination"] == "198.51.100.9")
    assert (line["pid"], line["source"]) == (child.pid, BOX)
    # The SYN is sent anew after 1 s and 3 s, and each one leaves as a copy of docker's NAT.
    time.sleep(3.5)
    assert [one["source"] for one in net.lines() if one["destination"] == "198.51.100.9"] == [BOX]


def test_a_name_is_recorded_with_who_asked(net: Net) -> None:
    for place, name in (("host", "models.example.com"), ("box", "telemetry.example.org")):
        child = net.start(place, "getent", "hosts", name)
        line = net.wait(lambda line, name=name: line["name"] == name)
        assert (line["pid"], line["destination"], line["port"]) == (child.pid, "192.0.2.53", 53)
        assert line["command"] == f"getent hosts {name}"


def test_ipv6_and_udp(net: Net) -> None:
    tcp6 = net.python("host", CONNECT, "2001:db8::7", "443")
    assert net.wait(lambda line: line["destination"] == "2001:db8::7")["pid"] == tcp6.pid
    udp6 = net.python("host", SEND, "2001:db8::8", "4789", "20")
    line = net.wait(lambda line: line["destination"] == "2001:db8::8")
    assert (line["pid"], line["protocol"], line["port"]) == (udp6.pid, "udp", 4789)
    udp = net.python("box", SEND, "198.51.100.10", "8125", "20")
    assert net.wait(lambda line: line["port"] == 8125)["pid"] == udp.pid


@pytest.mark.parametrize("there", ["198.51.100.11", "2001:db8::11"])
@pytest.mark.parametrize("place", ["host", "box"])
def test_an_echo_is_recorded_with_who_sent_it(net: Net, place: str, there: str) -> None:
    child = net.python(place, ECHO, there)
    line = net.wait(lambda line: line["destination"] == there)
    assert (line["pid"], line["protocol"], line["port"]) == (child.pid, "icmp", 0)
    assert line["source"] == {"host": {4: HOST, 6: HOST6}, "box": {4: BOX, 6: BOX6}}[place][6 if ":" in there else 4]


@pytest.mark.parametrize("place", ["host", "box"])
def test_what_was_too_quick_is_recorded_all_the_same(net: Net, place: str) -> None:
    for number in range(20):
        net.python(place, QUICK, "198.51.100.20", str(1000 + number)).wait()
        net.python(place, SEND, "198.51.100.21", str(2000 + number), "0").wait()
    net.wait(lambda line: line["port"] == 2019)
    lines = [line for line in net.lines() if str(line["destination"]).startswith("198.51.100.2")]
    assert sorted(int(str(line["port"])) for line in lines) == [*range(1000, 1020), *range(2000, 2020)]
    for line in lines:
        # Who is gone is named among those that ended just then, or said to be gone; nobody else is blamed.
        assert line["note"] if line["pid"] is None else str(line["port"]) in str(line["command"]), line
    assert any(str(line["port"]) in f"{line['command']} {line['note']}" for line in lines)
    assert net.state()["lost"] == 0


def test_many_at_once_are_all_there(net: Net) -> None:
    flood = """
import socket, sys, time
held = [socket.socket() for _ in range(400)]
for number, one in enumerate(held):
    one.setblocking(False); one.connect_ex(('198.51.100.30', 3000 + number))
time.sleep(60)
"""
    child = net.python("host", flood)
    net.wait(lambda line: line["port"] == 3399, 60)
    lines = [line for line in net.lines() if line["destination"] == "198.51.100.30"]
    assert sorted(int(str(line["port"])) for line in lines) == list(range(3000, 3400))
    assert {line["pid"] for line in lines} == {child.pid}
    assert net.state()["lost"] == 0


def test_what_stays_inside_is_neither_touched_nor_recorded(net: Net) -> None:
    serve = ["/usr/bin/python3", "-m", "http.server", "8123", "--directory", "/usr/share/doc"]
    for place in ("host", "peer", "box"):
        net.start(place, *serve)
    fetch = """
import sys, time, urllib.request as r
for attempt in range(100):
    try:
        print(r.urlopen('http://%s:8123/' % sys.argv[1], timeout=5).status); break
    except OSError:
        time.sleep(0.1)
"""
    ways = [("host", PEER), ("peer", HOST), ("box", PEER), ("box", BRIDGE), ("host", BOX), ("host", "127.0.0.1")]
    for place, address in ways:
        assert net.run(place, "/usr/bin/python3", "-c", fetch, address).strip() == "200", (place, address)
    net.python("host", SEND, PEER, "8125", "0").wait()
    net.python("host", SEND, "224.0.0.18", "8126", "0").wait()
    # Attempts before and after show that the recorder was at work all the while.
    net.python("host", SEND, "198.51.100.40", "4000", "0").wait()
    net.wait(lambda line: line["port"] == 4000)
    assert [line["destination"] for line in net.lines()] == ["198.51.100.40"]


def test_nothing_is_answered(net: Net) -> None:
    """No refusal either: connection attempts stand until they time out."""
    code = CONNECT.replace("timeout=20", "timeout=2")
    done = subprocess.run(
        net.argv("host", "/usr/bin/python3", "-c", code, "198.51.100.50", "443"), capture_output=True, text=True,
        check=False, timeout=30,
    )  # fmt: skip
    assert "TimeoutError" in done.stderr


def test_it_says_that_it_is_at_work_and_that_it_ended(net: Net) -> None:
    first = net.state()
    deadline = time.monotonic() + 20
    while net.state()["now"] == first["now"]:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    net.recorder.terminate()
    assert net.recorder.wait(20) == 0
    assert (net.state()["ended"], net.state()["starts"]) == (True, 1)


def test_a_recorder_that_was_killed_says_so_when_it_is_back(net: Net) -> None:
    net.recorder.kill()
    net.recorder.wait()
    net.record()
    assert (net.state()["ended"], net.state()["starts"]) == (False, 2)


EMBEDDED = """
import socket
open('/proc/self/comm', 'w').write('dockerd')
here = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); here.bind(('127.0.0.11', 53))
while True:
    data, _ = here.recvfrom(512)
    out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); out.connect(('192.0.2.53', 53)); out.send(data)
    out.settimeout(20)
    try:
        out.recv(512)
    except OSError:
        pass
"""


def test_who_asks_dockers_own_name_server_is_named_and_not_docker(net: Net) -> None:
    """In a network of Compose a container asks 127.0.0.11, where dockerd listens and asks on its behalf."""
    net.python("box", EMBEDDED)
    net.run("box", "sh", "-c", "until ss -Hlun | grep -q 127.0.0.11; do sleep 0.1; done")
    ask = "import socket, sys; s = socket.socket(type=socket.SOCK_DGRAM); s.connect(('127.0.0.11', 53)); "
    ask += "s.send(bytes.fromhex('123401000001000000000000') + b'\\x04home\\x07example\\0\\0\\1\\0\\1'); s.recv(1)"
    child = net.python("box", ask)
    line = net.wait(lambda line: line["name"] == "home.example")
    assert (line["pid"], line["destination"]) == (child.pid, "192.0.2.53")
    assert "127.0.0.11" in str(line["through"])
