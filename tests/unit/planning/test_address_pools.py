"""Docker's address pools against what a host needs."""

from ipaddress import IPv4Network

import pytest

from onprem_llm.errors import InvalidError
from onprem_llm.planning.address_pools import AddressPool, choose_pools


def network(*routes: str, peers: tuple[str, ...] = (), pools: object = None) -> dict[str, object]:
    return {
        "routes": [{"network": route, "device": "eth0"} for route in ("0.0.0.0/0", *routes)],
        "addresses": ["203.0.113.7/24", "fd00::2/64"],
        "peers": ["203.0.113.1", "fd00::1", *peers],
        "pools": pools,
    }


def pool(base: str, size: int = 24) -> AddressPool:
    return AddressPool(IPv4Network(base), size)


def test_dockers_own_pools_are_kept_where_nothing_collides() -> None:
    assert choose_pools("h", network("10.0.0.0/8")) is None


def test_a_default_route_is_no_collision() -> None:
    assert choose_pools("h", network()) is None


@pytest.mark.parametrize(
    ("routes", "peers", "chosen"),
    [
        (("172.17.0.0/16",), (), "172.18.0.0/16"),
        ((), ("172.17.3.4",), "172.18.0.0/16"),  # an SSH client behind the default gateway
        (("192.168.1.0/24",), (), "172.17.0.0/16"),
        (("172.16.0.0/12",), (), "10.200.0.0/16"),
        (("172.16.0.0/12", "10.200.0.0/13"), (), "10.208.0.0/16"),
        (("172.16.0.0/12", "10.0.0.0/9", "10.128.0.0/9"), (), "192.168.0.0/20"),
        (("172.16.0.0/12", "10.0.0.0/8", "192.168.0.0/18"), (), "192.168.64.0/20"),
    ],
)
def test_the_first_free_network_is_chosen(routes: tuple[str, ...], peers: tuple[str, ...], chosen: str) -> None:
    assert choose_pools("h", network(*routes, peers=peers)) == (pool(chosen),)


def test_pools_of_the_site_come_first() -> None:
    present = [{"base": "10.9.0.0/16", "size": 24}]
    assert choose_pools("h", network(pools=present), [pool("10.8.0.0/16")]) == (pool("10.8.0.0/16"),)


def test_pools_of_the_host_are_kept() -> None:
    """So a second bootstrap chooses what the first one wrote."""
    first = choose_pools("h", network("172.17.0.0/16"))
    assert first is not None
    written = [entry.as_order() for entry in first]
    assert choose_pools("h", network("172.17.0.0/16", pools=written)) == first


def test_a_colliding_pool_of_the_site_is_refused_with_another() -> None:
    with pytest.raises(InvalidError) as caught:
        choose_pools("gpu7", network("10.8.4.0/24"), [pool("10.8.0.0/16")])
    assert "gpu7: docker's address pool 10.8.0.0/16" in caught.value.message
    assert "10.8.4.0/24" in caught.value.message
    assert "onprem_llm_site.docker.address_pools" in str(caught.value.hint)
    assert "{base: 172.17.0.0/16, size: 24}" in str(caught.value.hint)


def test_a_colliding_pool_of_the_host_is_refused() -> None:
    with pytest.raises(InvalidError, match=r"its /etc/docker/daemon\.json gives it"):
        choose_pools("h", network("10.8.4.0/24", pools=[{"base": "10.8.0.0/16", "size": 24}]))


def test_nothing_free_is_said() -> None:
    with pytest.raises(InvalidError, match="no private network is free"):
        choose_pools("h", network("172.16.0.0/12", "10.0.0.0/8", "192.168.0.0/16"))


@pytest.mark.parametrize("raw", [{"base": "10.0.0.0/16", "size": 8}, {"base": "10.0.0.1/16", "size": 24}])
def test_a_pool_that_is_none(raw: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"size|host bits"):
        AddressPool.parse(raw)


def test_a_broken_pool_of_the_host_is_named() -> None:
    with pytest.raises(InvalidError, match=r"h: /etc/docker/daemon\.json: default-address-pools"):
        choose_pools("h", network(pools=[{"base": "10.8.0.0"}]))


def test_a_new_pool_is_free_of_dockers_own_networks() -> None:
    """Tried: docker0 as a /16 in a pool of the same /16 leaves docker no network to give out."""
    found = {**network("172.20.0.0/16"), "docker_networks": ["172.17.0.0/16", "172.18.0.0/16"]}
    assert choose_pools("h", found) == (pool("172.19.0.0/16"),)


def test_dockers_own_networks_are_no_collision() -> None:
    assert choose_pools("h", {**network(), "docker_networks": ["172.17.0.0/16"]}) is None
