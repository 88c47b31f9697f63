"""Which address pools docker may use on a host: pure arithmetic over what playbooks/preflight.yml reports.

Docker hands out 172.17.0.0/16 and its neighbours, then 192.168.0.0/16. Where a site routes one of them, or
administers its hosts from one, docker's bridge takes the way back to the administrator: the host is cut off
the moment docker starts. So the pools are compared first, and others chosen where that would happen.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, ip_interface
from itertools import chain
from typing import Final

from onprem_llm.errors import InvalidError

SITE_SETTING: Final = "onprem_llm_site.docker.address_pools"
DAEMON_JSON: Final = "/etc/docker/daemon.json"


@dataclass(frozen=True)
class AddressPool:
    """One entry of docker's `default-address-pools`: networks of /`size` are cut out of `base`."""

    base: IPv4Network
    size: int

    @classmethod
    def parse(cls, raw: Mapping[str, object]) -> "AddressPool":
        """Read `{"base": "10.200.0.0/16", "size": 24}`; ValueError when it is not that."""
        base = IPv4Network(str(raw["base"]))
        size = int(str(raw["size"]))
        if not base.prefixlen <= size <= 29:
            raise ValueError(f"size {size} is not between {base.prefixlen} (that of {base}) and 29")
        return cls(base, size)

    def as_order(self) -> dict[str, str | int]:
        """Return it as daemon.json and the roles spell it."""
        return {"base": str(self.base), "size": self.size}

    def __str__(self) -> str:
        """Return the network, which is what a message is about."""
        return str(self.base)


@dataclass(frozen=True)
class Taken:
    """A network that the host needs, and why, for the message."""

    network: IPv4Network
    why: str


DOCKERS_OWN: Final = (
    *(AddressPool(IPv4Network(f"172.{second}.0.0/16"), 16) for second in range(17, 32)),
    AddressPool(IPv4Network("192.168.0.0/16"), 20),
)


def choose_pools(
    host: str, network: Mapping[str, object], wanted: Sequence[AddressPool] | None = None
) -> tuple[AddressPool, ...] | None:
    """Return the pools to write for `host`, or None where docker's own are fine and nothing is to be written.

    `network` is what host_preflight returned; `wanted` are the site's pools. The site's come first, then what the
    host's daemon.json already says, then docker's own, then the first private network that nothing uses.
    Raises InvalidError when the site's or the host's pools collide, or nothing is free.
    """
    taken = tuple(taken_networks(network))
    # A new pool must be free of what docker has given out already, too: docker0 as a /16 would leave nothing of it.
    used = (*taken, *(each for text in _texts(network.get("docker_networks")) for each in _taken(text, "docker's")))
    if wanted:
        return _unless_collision(host, tuple(wanted), taken, used, f"{SITE_SETTING} gives it")
    if present := _pools(host, network.get("pools")):
        return _unless_collision(host, present, taken, used, f"its {DAEMON_JSON} gives it")
    if not _collisions(DOCKERS_OWN, taken):
        return None
    return (_first_free(host, used),)


def taken_networks(network: Mapping[str, object]) -> Iterator[Taken]:
    """Yield the IPv4 networks of the host's routes, interfaces and peers; a default route is none."""
    for route in _mappings(network.get("routes")):
        yield from _taken(str(route.get("network")), f"it has a route to it by {route.get('device')}")
    for address in _texts(network.get("addresses")):
        yield from _taken(address, f"its address is {address}")
    for peer in _texts(network.get("peers")):
        yield from _taken(peer, f"it talks to {peer} (an SSH client, a gateway, a name server, a registry or a mirror)")


def _taken(text: str, why: str) -> Iterator[Taken]:
    """Yield nothing for IPv6, for a default route, and for what is not an address."""
    try:
        found = ip_interface(text).network
    except ValueError:
        return
    if isinstance(found, IPv4Network) and found.prefixlen > 0:
        yield Taken(found, why)


def _unless_collision(
    host: str, pools: tuple[AddressPool, ...], taken: Iterable[Taken], used: Iterable[Taken], source: str
) -> tuple[AddressPool, ...]:
    collisions = _collisions(pools, taken)
    if not collisions:
        return pools
    pool, other = collisions[0]
    raise InvalidError(
        f"{host}: docker's address pool {pool} ({source}) hides {other.network} from the host: {other.why}",
        hint=f"set {SITE_SETTING} in group_vars to networks that {host} does not need, "
        f"for example [{{base: {_first_free(host, used)}, size: 24}}]",
    )


def _collisions(pools: Iterable[AddressPool], taken: Iterable[Taken]) -> list[tuple[AddressPool, Taken]]:
    others = tuple(taken)
    return [(pool, other) for pool in pools for other in others if pool.base.overlaps(other.network)]


def _first_free(host: str, taken: Iterable[Taken]) -> AddressPool:
    """Return one pool of /24 networks: 256 of them where a /16 is free, 16 where only a /20 is."""
    others = tuple(taken)
    for base in _candidates():
        if not any(base.overlaps(other.network) for other in others):
            return AddressPool(base, 24)
    raise InvalidError(
        f"{host}: no private network is free for docker: its routes cover 10.0.0.0/8, 172.16.0.0/12 and 192.168.0.0/16",
        hint=f"set {SITE_SETTING} in group_vars to a network that is given to no one else, "
        "for example [{base: 198.18.0.0/16, size: 24}]",
    )


def _candidates() -> Iterator[IPv4Network]:
    """Yield docker's usual networks first, then the upper end of 10.0.0.0/8, which sites use last, then small ones."""
    ten = tuple(IPv4Network("10.0.0.0/8").subnets(new_prefix=16))
    small = (IPv4Network(text).subnets(new_prefix=20) for text in ("172.16.0.0/12", "10.0.0.0/8", "192.168.0.0/16"))
    own = (pool.base for pool in DOCKERS_OWN if pool.base.prefixlen == 16 and pool.size == 16)
    return chain(own, ten[200:], reversed(ten[:200]), *small)


def _pools(host: str, raw: object) -> tuple[AddressPool, ...]:
    try:
        return tuple(AddressPool.parse(entry) for entry in _mappings(raw))
    except (KeyError, ValueError) as error:
        raise InvalidError(
            f"{host}: {DAEMON_JSON}: default-address-pools: {error}",
            hint="correct it on the host: a list of mappings with base and size",
        ) from error


def _mappings(raw: object) -> Iterator[Mapping[str, object]]:
    if isinstance(raw, Sequence) and not isinstance(raw, str):
        yield from (entry for entry in raw if isinstance(entry, Mapping))


def _texts(raw: object) -> Iterator[str]:
    if isinstance(raw, Sequence) and not isinstance(raw, str):
        yield from (entry for entry in raw if isinstance(entry, str))
