"""The settings of a Ray cluster that somebody else runs."""

import pytest

from onprem_llm.errors import InvalidError
from onprem_llm.spec.site import Site, parse_site


def site(**ray: object) -> Site:
    return parse_site({"ray": ray}, "inventory.ini")


def problems(**ray: object) -> str:
    with pytest.raises(InvalidError) as raised:
        site(**ray)
    return f"{raised.value.message}\n{raised.value.details}"


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("10.9.0.1", "http://10.9.0.1:8265"),
        ("ray.local:8443", "http://ray.local:8443"),
        ("https://ray.local", "https://ray.local:8265"),
        ("http://ray.local:80/", "http://ray.local:80"),
        ("[fd00::9]:8265", "http://[fd00::9]:8265"),
    ],
)
def test_where_the_dashboard_is(written: str, meant: str) -> None:
    assert site(address=written, weights="/mnt/w").ray.address == meant


@pytest.mark.parametrize(
    "written",
    ["ray.local/dashboard", "ftp://ray.local", "http://", "ray.local:0", "ray.local:99999", "u:p@ray.local", ""],
)
def test_what_is_no_address_of_one(written: str) -> None:
    said = problems(address=written, weights="/mnt/w")
    assert f"ray.address: found '{written}', expected where the dashboard" in said
    assert "http://HOST:PORT" in said


@pytest.mark.parametrize(
    ("ours", "name"),
    [
        ({"image": "rayproject/ray-llm:2.60.0"}, "image"),
        ({"ports": {"first": 30000, "last": 30999}}, "ports"),
        ({"head_store": "rocksdb"}, "head_store"),
        ({"object_store": 2**30 + 1}, "object_store"),
    ],
)
def test_what_is_for_nodes_of_our_own(ours: dict[str, object], name: str) -> None:
    said = problems(address="10.9.0.1", weights="/mnt/w", **ours)
    assert f"{name}: found with address, expected nothing" in said
    assert "http://10.9.0.1:8265" in said


def test_defaults_that_are_written_out_are_no_contradiction() -> None:
    site(address="10.9.0.1", weights="/mnt/w", image=None, head_store="memory", serve_port=20500)


@pytest.mark.parametrize("name", ["token_file", "weights"])
def test_what_means_nothing_without_an_address(name: str) -> None:
    assert f"{name}: found it without address" in problems(**{name: "/x"})


def test_its_nodes_have_to_see_weights_and_files_are_absolute() -> None:
    assert "weights: found nothing, expected the path at which the nodes" in problems(address="10.9.0.1")
    said = problems(address="10.9.0.1", weights="w", token_file="t")
    assert "ray.weights: found 'w', expected an absolute path" in said
    assert "ray.token_file: found 't', expected an absolute path" in said
