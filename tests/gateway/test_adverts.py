"""keepalived on the gateway's network, and a neighbour that says it has the address."""

import ipaddress
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from kit import Kit
from rig import bridge, docker

from onprem_llm.rendering.keepalived import CONFIG, SharedAddress, draft, router_id


def place(number: int) -> str:
    """Return an address of docker's bridge that no container has come to."""
    return str(ipaddress.ip_network(f"{bridge()}/16", strict=False)[-number])


def advert(shared: str, source: str, to: str, ttl: int) -> bytes:
    """Return an IP packet with VRRP 3 in it, of one who has the address and comes before all others."""
    head = struct.pack("!BBBBH", 0x31, router_id(shared), 254, 1, 30)
    addresses = socket.inet_aton(source) + socket.inet_aton(to)
    pseudo = addresses + struct.pack("!BBH", 0, 112, 12)
    words = struct.unpack("!12H", pseudo + head + b"\0\0" + socket.inet_aton(shared))
    said = head + struct.pack("!H", 0xFFFF - sum(words) % 0xFFFF) + socket.inet_aton(shared)
    return struct.pack("!BBHHHBBH", 0x45, 0, 32, 0, 0, ttl, 112, 0) + addresses + said


@pytest.fixture
def keeper(kit: Kit, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """keepalived beside the gateway, and the address that it keeps."""
    shared = place(10)
    made = draft(SharedAddress(kit.rig.gateway.image, shared, "eth0", kit.rig.address, (place(11),)))
    (tmp_path / CONFIG).write_text(made.files[CONFIG])
    body = made.body
    name = f"{kit.rig.name}-address"
    rights = [f"--{word}={one}" for word in ("cap_drop", "cap_add") for one in body[word]]  # type: ignore[attr-defined]
    options = [one.replace("_", "-", 1) for one in rights]
    volume = f"{tmp_path / CONFIG}:/etc/keepalived/{CONFIG}:ro"
    where = ["--network", f"container:{kit.rig.name}", "--volume", volume]
    docker("run", "--detach", "--name", name, *where, *options, kit.rig.gateway.image, *body["command"])  # type: ignore[misc]
    try:
        yield name, shared
    finally:
        subprocess.run(["docker", "rm", "--force", name], capture_output=True, check=False, timeout=60)


def log(name: str) -> str:
    done = subprocess.run(["docker", "logs", name], capture_output=True, text=True, check=False, timeout=30)
    return done.stdout + done.stderr


def test_nobody_takes_the_address_but_the_other_gateway(kit: Kit, keeper: tuple[str, str]) -> None:
    name, shared = keeper
    kit.rig.until(lambda: "Entering MASTER STATE" in log(name), 15)
    assert "unknown" not in log(name).lower()  # a word of the configuration that this keepalived has not got

    def lost_to(source: str, ttl: int) -> bool:
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as one:
            for _ in range(5):
                one.sendto(advert(shared, source, kit.rig.address, ttl), (kit.rig.address, 0))
                time.sleep(0.1)
        return "Entering BACKUP STATE" in log(name).rpartition("Entering MASTER STATE")[2]

    assert not lost_to(bridge(), 255)
    assert not lost_to(place(11), 64)
    assert lost_to(place(11), 255)
