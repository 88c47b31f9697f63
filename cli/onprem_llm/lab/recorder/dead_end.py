"""python3 -m recorder.dead_end SUBNET: give this host a way out that ends at once, as a rack's is that is closed.

Its default routes (IPv6's, too) go to a router that is not there, at an Ethernet address that nobody has: what is sent
there is lost on the cable, and no answer ever comes, not even a refusal. Its name server is behind that router. Hosts
without any route would fail at once, before anything is sent that could be recorded.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import subprocess
import sys
from pathlib import Path

# A router of that number in the lab's network; hosts have numbers from 11 on.
ROUTER = 2
ETHERNET = "02:00:00:00:00:02"
# Of documentation's addresses (RFC 5737), which are nobody's.
NAME_SERVER = "192.0.2.53"
NETWORK_V6 = ipaddress.IPv6Network("fd6f:6e70:7265:6d00::/64")


def close(subnet: str) -> None:
    """Lay the routes; safe to repeat. SystemExit where this host has no address in `subnet`."""
    network = ipaddress.IPv4Network(subnet)
    interface, address = _interface(network)
    router = str(network[ROUTER])
    _ip("neighbour", "replace", router, "lladdr", ETHERNET, "nud", "permanent", "dev", interface)
    _ip("route", "replace", "default", "via", router, "dev", interface)
    # Docker switches IPv6 off in its containers.
    with contextlib.suppress(OSError):
        Path(f"/proc/sys/net/ipv6/conf/{interface}/disable_ipv6").write_text("0")
        number = int(address) - int(network.network_address)
        router = str(NETWORK_V6[ROUTER])
        _ip("-6", "address", "replace", f"{NETWORK_V6[number]}/64", "dev", interface, "nodad")
        _ip("-6", "neighbour", "replace", router, "lladdr", ETHERNET, "nud", "permanent", "dev", interface)
        _ip("-6", "route", "replace", "default", "via", router, "dev", interface)
    # In place: it is a mount of docker's, which cannot be replaced.
    Path("/etc/resolv.conf").write_text(f"nameserver {NAME_SERVER}\n")


def _interface(network: ipaddress.IPv4Network) -> tuple[str, ipaddress.IPv4Address]:
    for link in json.loads(_ip("-json", "-4", "address")):
        for one in link["addr_info"]:
            if ipaddress.ip_address(one["local"]) in network:
                return link["ifname"], ipaddress.IPv4Address(one["local"])
    raise SystemExit(f"no interface has an address in {network}")


def _ip(*words: str) -> str:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"ip {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


if __name__ == "__main__":
    close(sys.argv[1])
