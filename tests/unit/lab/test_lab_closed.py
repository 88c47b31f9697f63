"""Closed labs: what counts as outside, what a packet asks for, and attempts as people read them."""

import random
import struct
from pathlib import Path

import pytest
from click.testing import CliRunner

from onprem_llm.lab import closed, lifecycle, state
from onprem_llm.lab.attempts import group
from onprem_llm.lab.recorder.packets import ETH_P_IP, ETH_P_IPV6, dns_name, parse
from onprem_llm.lab.recorder.routes import Routes
from onprem_llm.lab.state import Host, Lab
from onprem_llm.main import cli

V4 = """\
Iface	Destination	Gateway 	Flags	RefCnt	Use	Metric	Mask		MTU	Window	IRTT
eth0	00000000	0207DB0A	0003	0	0	0	00000000	0	0	0
docker0	000011AC	00000000	0001	0	0	0	0000FFFF	0	0	0
eth0	0007DB0A	00000000	0001	0	0	0	00FFFFFF	0	0	0
"""
V6 = f"""\
{"fd6f6e70726d0000" + "0" * 16} 40 {"0" * 32} 00 {"0" * 32} 00000100 00000001 00000000 00000001     eth0
{"0" * 32} 00 {"0" * 32} 00 {"fd6f" + "0" * 28} 00000400 00000001 00000000 00000003     eth0
ff00{"0" * 28} 08 {"0" * 32} 00 {"0" * 32} 00000100 00000001 00000000 00000001     eth0
{"0" * 32} 00 {"0" * 32} 00 {"0" * 32} ffffffff 00000001 00000000 00200200       lo
"""


@pytest.fixture
def routes(tmp_path: Path) -> Routes:
    (tmp_path / "route").write_text(V4)
    (tmp_path / "ipv6_route").write_text(V6)
    return Routes(tmp_path)


@pytest.mark.parametrize(
    "address", ["198.51.100.7", "10.219.8.1", "172.18.0.1", "169.254.169.254", "239.255.255.250", "2001:db8::1"]
)
def test_outside(routes: Routes, address: str) -> None:
    assert routes.outside(address)


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.219.7.12", "172.17.0.2", "224.0.0.18", "255.255.255.255", "::1", "fd6f:6e70:726d::c", "ff02::1",
     "fe80::1"],
)  # fmt: skip
def test_inside(routes: Routes, address: str) -> None:
    assert not routes.outside(address)


def test_the_uplink_is_where_default_routes_lead(routes: Routes) -> None:
    assert routes.uplinks() == {"eth0"}


def test_bytes_that_mean_nothing_are_no_attempt_and_no_error() -> None:
    dice = random.Random(1)  # noqa: S311
    for _ in range(5000):
        data = dice.randbytes(dice.randrange(0, 90))
        parse(ETH_P_IP, b"\x45" + data)
        parse(ETH_P_IPV6, data)
        dns_name(data)


def test_only_the_first_packet_of_a_connection_is_an_attempt() -> None:
    def tcp(flags: int) -> bytes:
        header = bytes([0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 198, 51, 100, 7])
        return header + struct.pack("!HHIIBBHHH", 40000, 443, 1, 0, 0x50, flags, 0, 0, 0)

    found = parse(ETH_P_IP, tcp(0x02))
    assert found is not None
    assert (found.protocol, found.destination, found.port, found.source_port) == ("tcp", "198.51.100.7", 443, 40000)
    assert [parse(ETH_P_IP, tcp(flags)) for flags in (0x12, 0x10, 0x18, 0x11, 0x04)] == [None] * 5


def test_a_question_has_its_name_and_an_answer_none() -> None:
    question = b"\x12\x34\x01\x00\x00\x01" + bytes(6) + b"\x06models\x07example\x03com\x00\x00\x01\x00\x01"
    assert dns_name(question) == "models.example.com"
    assert dns_name(question[:2] + b"\x81" + question[3:]) is None


def attempt(**changed: object) -> dict[str, object]:
    whole = {
        "time": "2026-11-21T10:00:00.000+00:00", "protocol": "udp", "source": "10.0.0.1", "source_port": 4,
        "destination": "192.0.2.53", "port": 53, "name": "a.example.com", "pid": 7, "command": "curl x",
        "parents": ["sh"], "unit": None, "container": None, "note": None,
    }  # fmt: skip
    return whole | changed


def test_what_one_program_tries_again_is_one_line() -> None:
    later = "2026-11-21T10:00:05.000+00:00"
    recorded = {
        "a": [attempt(), attempt(time=later, source_port=5, pid=8), attempt(command="wget x")],
        "b": [attempt(container={"name": "open-webui", "image": "i"}, command="python " + "x" * 200)],
    }
    found = group(recorded)
    assert [(one.host, one.count, one.last) for one in found if one.command == "curl x"] == [("a", 2, later)]
    assert len(found) == 3
    in_container = next(one for one in found if one.host == "b")
    assert in_container.who.endswith("… in container open-webui")
    assert in_container.where == "a.example.com (asked of 192.0.2.53:53/udp)"


def test_an_unknown_sender_is_said_to_be_unknown() -> None:
    one = group({"a": [attempt(command=None, pid=None, note="gone", destination="2001:db8::1", port=443, name=None)]})[
        0
    ]
    assert (one.who, one.where) == ("unknown: gone", "[2001:db8::1]:443/udp")


def test_our_own_probe_is_no_attempt_but_what_only_goes_there_is() -> None:
    ours = attempt(destination=closed.PROBE_ADDRESS, command=f"python3 -c {closed.PROBE}", port=30000, name=None)
    assert group({"a": [ours]}) == []
    assert len(group({"a": [{**ours, "command": "curl 192.0.2.1"}]})) == 1


def test_the_recorder_and_its_unit_go_into_the_host_before_it_boots(monkeypatch: pytest.MonkeyPatch) -> None:
    put = {}
    monkeypatch.setattr(closed.engine, "put", lambda name, files: put.update({file.path: file.text for file in files}))
    host = Host("p-1", "10.213.0.11", None)
    closed.furnish(Lab("p", "debian-13", False, "", None, "10.213.0.0/24", "i", [host], True), host)
    unit = put[f"/etc/systemd/system/{closed.UNIT}"]
    assert f"python3 -m recorder {closed.FOLDER} 10.213.0.0/24" in unit
    assert {path for path in put if path.startswith(closed.PROGRAM)} >= {
        f"{closed.PROGRAM}/recorder/{name}.py" for name in ("__init__", "__main__", "packets", "askers", "dead_end")
    }
    assert any(closed.UNIT in text for path, text in put.items() if "sysinit.target.d" in path)


def test_hosts_call_themselves_as_they_are_told() -> None:
    hosts = state.plan_hosts("prove", "10.213.0.0/24", [None, "1xT4-16GB"], ["gpu1"])
    assert [(host.name, host.hostname) for host in hosts] == [("prove-1", "gpu1"), ("prove-2", None)]


def test_hosts_that_call_themselves_the_same_keep_their_own_attempts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    hosts = [Host(f"lab-{number}", f"10.219.7.{10 + number}", None, "gpu-1") for number in (1, 2)]
    state.save(Lab("lab", "debian-13", False, "575.57.08", None, "10.219.7.0/24", "inventory.ini", hosts, closed=True))
    monkeypatch.setattr(closed, "recorded", lambda host: host.address)
    assert lifecycle.attempts("lab") == {"lab-1": "10.219.7.11", "lab-2": "10.219.7.12"}


def test_attempts_name_the_hosts_of_a_rehearsal_as_its_proof_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    hosts = state.plan_hosts("prove", "10.219.7.0/24", [None, None], ["gpu1", "gpu2"])
    state.save(Lab("prove", "debian-13", False, "575.57.08", None, "10.219.7.0/24", "i", hosts, closed=True))
    recorded = closed.Recorded((attempt(),), None)
    monkeypatch.setattr(closed, "recorded", lambda host: recorded)
    assert lifecycle.attempts("prove") == {"gpu1": recorded, "gpu2": recorded}
    for words in (["--json"], []):
        done = CliRunner().invoke(cli, ["lab", "attempts", "--name", "prove", *words])
        assert done.exit_code == 0, done.output
        assert "gpu1" in done.output
        assert "gpu2" in done.output
        assert "prove-1" not in done.output
