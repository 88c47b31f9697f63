"""A lab's own network: a free /24, so that two labs and the machine's own routes do not meet."""

import ipaddress
import json
import subprocess
from collections.abc import Iterable

from docker.types import IPAMConfig, IPAMPool

from onprem_llm.errors import OnpremError
from onprem_llm.lab import engine

POOL = ipaddress.IPv4Network("10.213.0.0/16")
FIRST_HOST = 11


def address(subnet: str, number: int) -> str:
    """Return the address of host `number` (from 1) in `subnet`: 10.213.0.0/24, 2 → 10.213.0.12."""
    return str(ipaddress.IPv4Network(subnet)[FIRST_HOST + number - 1])


def free_subnet(taken: Iterable[str]) -> str:
    """Return the first /24 of the pool that overlaps none of `taken` (networks in CIDR form)."""
    used = [ipaddress.ip_network(one, strict=False) for one in taken]
    for candidate in POOL.subnets(new_prefix=24):
        if not any(candidate.overlaps(one) for one in used if isinstance(one, ipaddress.IPv4Network)):
            return str(candidate)
    raise OnpremError(f"no free /24 in {POOL}", hint="remove labs that nobody uses: onprem-llm lab down --name NAME")


def taken_subnets() -> list[str]:
    """Return every network that docker or the machine's routes know."""
    ranges = [entry for one in engine.client().networks.list() for entry in one.attrs["IPAM"]["Config"] or []]
    return [entry["Subnet"] for entry in ranges if "Subnet" in entry] + _routes()


def ensure(name: str, lab: str, subnet: str, *, internal: bool = False) -> None:
    """Make the lab's network if there is none; docker forwards nothing out of one that is internal."""
    networks = engine.client().networks
    # Asked for by label: two networks may have one name, and docker finds names by their beginnings.
    if not networks.list(filters=engine.labelled(lab)):
        networks.create(
            name, labels={engine.LABEL: lab}, internal=internal, ipam=IPAMConfig(pool_configs=[IPAMPool(subnet)])
        )


def _routes() -> list[str]:
    try:
        done = subprocess.run(["ip", "-json", "-4", "route"], capture_output=True, text=True, check=False, timeout=30)
    except FileNotFoundError:
        return []
    routes = json.loads(done.stdout) if done.returncode == 0 and done.stdout.strip() else []
    # Only routes as specific as the pool: a default route or a 10.0.0.0/8 to the company covers everything.
    networks = [ipaddress.ip_network(route["dst"]) for route in routes if route["dst"] != "default"]
    return [str(one) for one in networks if one.prefixlen >= POOL.prefixlen]
