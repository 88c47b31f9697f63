"""Whom the host talks to, and whether docker's address pools would hide one of them."""

from __future__ import annotations

import ipaddress
import json
import os
import re
import socket
from pathlib import Path
from typing import Any, Dict, Iterable, Iterator

from ansible.module_utils.host_preflight_findings import (
    Finding,
    daemon_settings,
    finding,
    judged,
    output_of,
    read,
)

Network = Dict[str, Any]
# Docker's own bridges: what they use is docker's already, and collides with nothing.
DOCKER_BRIDGE = re.compile(r"docker0|docker_gwbridge|br-[0-9a-f]{12}")
DOCKERS_OWN = [f"172.{second}.0.0/16" for second in range(17, 32)] + ["192.168.0.0/16"]
ESTABLISHED = "01"


def network_facts(peers: Iterable[str]) -> tuple[Network, list[Finding]]:
    """Return routes, addresses, peers and docker's networks (IPv4), and a finding when they cannot be read."""
    routes = _ip("route", "show", "table", "all")
    links = _ip("address", "show")
    if routes is None or links is None:
        remedy = "Install iproute2 (Debian, Ubuntu) or iproute (RHEL family)."
        return _facts([], [], peers), [finding("routes", "error", "`ip -json` does not work", "iproute2", remedy)]
    return _facts(routes, links, peers), []


def pool_findings(network: Network, pools: list[dict[str, Any]] | None) -> list[Finding]:
    """Compare the pools that docker will use with what the host needs; the first collision is named."""
    wanted = pools if pools is not None else network["pools"]
    bases = [str(pool["base"]) for pool in wanted] if wanted else DOCKERS_OWN
    remedy = (
        "Set container_engine_address_pools (onprem_llm_site.docker.address_pools for the onprem-llm command) "
        "to networks that this host does not need, for example [{base: 10.200.0.0/16, size: 24}]."
    )
    expected = "networks that the host does not need"
    for base in bases:
        for taken, why in _taken(network):
            if ipaddress.ip_network(base, strict=False).overlaps(taken):
                found = f"docker would use {base}, which hides {taken} ({why})"
                return [finding("address_pools", "error", found, expected, remedy)]
    found = ", ".join(bases) if wanted else "docker's own, no collision"
    return [judged("address_pools", True, found, expected, remedy)]


def _facts(routes: list[Network], links: list[Network], peers: Iterable[str]) -> Network:
    own = [route for route in routes if DOCKER_BRIDGE.fullmatch(route.get("dev", ""))]
    others = [route for route in routes if route not in own and _is_unicast(route)]
    gateways = {str(route["gateway"]) for route in others if "gateway" in route}
    # The key is "pools": None where daemon.json says nothing, so that Python can tell it from an empty list.
    return {
        "routes": [{"network": _network(route["dst"]), "device": route.get("dev", "")} for route in others],
        "addresses": sorted(_addresses(links)),
        "peers": sorted(gateways | _name_servers() | ssh_clients() | _resolved(peers)),
        "pools": daemon_settings().get("default-address-pools"),
        "docker_networks": sorted({_network(route["dst"]) for route in own if _is_unicast(route)}),
    }


def _ip(*arguments: str) -> list[Network] | None:
    text = output_of(["ip", "-4", "-json", *arguments])
    if text is None:
        return None
    try:
        return list(json.loads(text or "[]"))
    except ValueError:
        return None


def _is_unicast(route: Network) -> bool:
    """Leave out the kernel's own entries (local, broadcast) and loopback."""
    return route.get("type", "unicast") == "unicast" and route.get("dev") != "lo"


def _network(destination: str) -> str:
    return "0.0.0.0/0" if destination == "default" else str(ipaddress.ip_network(destination, strict=False))


def _addresses(links: list[Network]) -> Iterator[str]:
    for link in links:
        name = link.get("ifname", "")
        if name != "lo" and not DOCKER_BRIDGE.fullmatch(name):
            for entry in link.get("addr_info", []):
                if "local" in entry:
                    yield "{}/{}".format(entry["local"], entry["prefixlen"])


def _name_servers() -> set[str]:
    """Return those that are asked in the end: behind systemd-resolved, its upstream servers."""
    text = read("/run/systemd/resolve/resolv.conf") or read("/etc/resolv.conf")
    fields = (line.split() for line in text.splitlines())
    return {each[1] for each in fields if len(each) > 1 and each[0] == "nameserver" and not each[1].startswith("127.")}


def _resolved(peers: Iterable[str]) -> set[str]:
    """Return the peers' IPv4 addresses; a name that does not resolve is left out, it cannot be hidden either."""
    found: set[str] = set()
    for peer in peers:
        try:
            found |= {str(entry[4][0]) for entry in socket.getaddrinfo(peer, None, socket.AF_INET)}
        except (OSError, UnicodeError):
            continue
    return found


def ssh_clients() -> set[str]:
    """Return the far ends of every SSH session, ours too: sudo takes SSH_CONNECTION away, sshd's sockets stay."""
    inodes = _sshd_socket_inodes()
    found: set[str] = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in read(table).splitlines()[1:]:
            fields = line.split()
            if fields[3] == ESTABLISHED and fields[9] in inodes:
                found |= _far_end(fields[2])
    return found


def _sshd_socket_inodes() -> set[str]:
    inodes: set[str] = set()
    for process in Path("/proc").glob("[0-9]*"):
        if not read(str(process / "comm")).startswith("sshd"):
            continue
        for descriptor in _descriptors(process):
            try:
                target = os.readlink(descriptor)
            except OSError:
                continue
            if target.startswith("socket:["):
                inodes.add(target[len("socket:[") : -1])
    return inodes


def _descriptors(process: Path) -> list[Path]:
    """Return a process's open files; none when it has ended meanwhile."""
    try:
        return list((process / "fd").iterdir())
    except OSError:
        return []


def _far_end(field: str) -> set[str]:
    """Read /proc/net/tcp's `0100007F:0016`: 32-bit words in the host's byte order; IPv6 only where it maps IPv4."""
    words = bytes.fromhex(field.split(":")[0])
    packed = b"".join(words[at : at + 4][::-1] for at in range(0, len(words), 4))
    address = ipaddress.ip_address(packed)
    mapped = address if isinstance(address, ipaddress.IPv4Address) else address.ipv4_mapped
    return set() if mapped is None or mapped.is_loopback else {str(mapped)}


def _taken(network: Network) -> Iterator[tuple[ipaddress.IPv4Network, str]]:
    for route in network["routes"]:
        yield from _usable(route["network"], "a route by " + route["device"])
    for address in network["addresses"]:
        yield from _usable(address, "the host's address " + address)
    for peer in network["peers"]:
        yield from _usable(peer, f"it talks to {peer}: an SSH client, gateway, name server, registry or mirror")


def _usable(text: str, why: str) -> Iterator[tuple[ipaddress.IPv4Network, str]]:
    try:
        found = ipaddress.ip_interface(text).network
    except ValueError:
        return
    if isinstance(found, ipaddress.IPv4Network) and found.prefixlen > 0:
        yield found, why
