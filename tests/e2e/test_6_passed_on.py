"""An image that hosts pass on, and that each pulls from its own registry. Stub engines, bytes counted on the wire."""

import json
import re
import secrets
import shutil
from collections.abc import Iterator

import pytest
from conftest import Lab, Site
from tests.load.large_images import write_registry_with
from tests.load.rehearsal import Rehearsal
from tests.load.served import Served, stub_text

from onprem_llm.own_registry import read_own_registry

IMAGE = "example/stub-wide:1"
LAYER = 60_000_000  # bytes; with the stub's own it is more than the registry's image, which this machine sends to each
TABLE = "onprem_llm_test"


class Wire:
    """What comes to a host over the network: from one host, and from all others."""

    def __init__(self, lab: Lab, host: str, other: str) -> None:
        self.lab, self.host = lab, host
        rules = [
            f"add table inet {TABLE}", f"delete table inet {TABLE}", f"add table inet {TABLE}",
            f"add counter inet {TABLE} host", f"add counter inet {TABLE} others",
            f"add chain inet {TABLE} input {{ type filter hook input priority -300; }}",
            # Not what the host says to itself: docker's pull from the container of its registry.
            f"add rule inet {TABLE} input iifname != eth0 accept",
            f"add rule inet {TABLE} input ip saddr {other} counter name host accept",
            f"add rule inet {TABLE} input counter name others",
        ]  # fmt: skip
        lab.exec_root(host, "nft", "\n".join(rules))

    def came(self) -> tuple[int, int]:
        """Return the bytes (from that host, from others) since the last time."""
        listed = self.lab.exec_root(self.host, "nft", "reset", "counters", "table", "inet", TABLE)
        found = dict(re.findall(r"counter (\w+) \{\s*packets \d+ bytes (\d+)", listed))
        return int(found["host"]), int(found["others"])

    def end(self) -> None:
        self.lab.exec_root(self.host, "nft", "delete", "table", "inet", TABLE)


@pytest.fixture(scope="module")
def wide(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Two replicas on two hosts, of an image that the site's registry alone has; not deployed yet."""
    settings = (site.folder / "group_vars/all.yml").read_text()
    changed = settings.replace("port: 3000", "enabled: false")
    site.write("group_vars/all.yml", f"{changed}  registry_dir: registry\n  fan_out: always\n")
    scratch = tmp_path_factory.mktemp("images") / "layout"
    write_registry_with(scratch, site.folder / "registry", IMAGE, LAYER, secrets.randbelow(2**32))
    rehearsal = Rehearsal(site)
    text = stub_text(rehearsal, "wide", port=8040).replace("onprem-llm/stub-engine:1", IMAGE)
    yield Served(rehearsal, "wide", text)
    site.run("down", "wide", "--purge", "--yes", code=None)
    site.write("group_vars/all.yml", settings)
    shutil.rmtree(site.folder / "registry")


@pytest.fixture(scope="module")
def wire(wide: Served) -> Iterator[Wire]:
    """The second host's."""
    first, second = wide.rehearsal.hosts[:2]
    counting = Wire(wide.site.lab, second, wide.rehearsal.address(first))
    yield counting
    counting.end()


def digests(wide: Served) -> list[str]:
    """Return what docker on the second host calls the image by digest; none where it has none."""
    asked = ("docker", "image", "inspect", "--format", "{{json .RepoDigests}}", IMAGE)
    shown = wide.site.lab.exec_root(wide.rehearsal.hosts[1], *asked, check=False)
    found: list[str] = json.loads(shown) if shown.strip() else []
    return found


def test_it_comes_from_the_gateway_host_once_and_is_pulled_on_loopback(wide: Served, wire: Wire) -> None:
    first, second = wide.rehearsal.hosts[:2]
    shown = wide.deploy()
    said = shown.stdout + shown.stderr
    assert f"passed on from {first}" in said
    assert "from this machine instead" not in said
    from_gateway, from_others = wire.came()
    size = sum(read_own_registry(wide.site.folder / "registry", None).store.blobs.values())
    print(f"image {size}, from the gateway host {from_gateway}, from others {from_others}")
    # At least the layer that no earlier run can have left there. How much more: hosts here are kept busy by others;
    # benchmarks/fanout counts what is sent.
    assert from_gateway > LAYER, said
    assert from_others < 0.7 * size, said
    (name,) = digests(wide)
    assert re.fullmatch(r"127\.0\.0\.1:5000/docker\.io/example/stub-wide@sha256:[0-9a-f]{64}", name)
    compose = wide.site.lab.exec_root(second, "sh", "-c", "cat /srv/onprem-llm/wide-*/compose.yaml")
    assert f'image: "{name}"' in compose
    listening = wide.site.lab.exec_root(second, "ss", "-Hltn", "sport = :5000").split()
    assert "127.0.0.1:5000" in listening
    assert not [one for one in listening if one.endswith(":5000") and not one.startswith("127.")]
    wide.in_rotation(2, 20)


def test_then_there_is_nothing_more_to_do(wide: Served) -> None:
    assert wide.site.json("plan", wide.file)["noop"] is True


def test_an_image_that_is_gone_comes_back_with_the_gateway_hosts_registry_stopped(wide: Served, wire: Wire) -> None:
    lab, (first, second) = wide.site.lab, wide.rehearsal.hosts[:2]
    (name,) = digests(wide)
    lab.exec_root(first, "docker", "stop", "registry-registry-1")
    lab.exec_root(second, "sh", "-c", f"docker rm -f wide-1-vllm-1; docker image rm -f {IMAGE} {name}")
    assert digests(wide) == []
    # By hand too, as long as nobody has started the gateway host's again.
    lab.exec_root(second, "docker", "pull", "--quiet", name)
    lab.exec_root(second, "docker", "image", "rm", "-f", name)
    wire.came()
    wide.deploy()
    assert digests(wide) == [name]
    assert max(wire.came()) < LAYER / 4, "neither from the gateway host nor from here"
    wide.in_rotation(2, 20)


def test_it_goes_with_the_last_replica_of_its_host(wide: Served) -> None:
    second = wide.rehearsal.hosts[1]
    wide.site.run("down", "wide", "--purge", "--yes")
    left = wide.site.lab.exec_root(second, "sh", "-c", "docker ps --all --format {{.Names}}; ls /srv/onprem-llm")
    assert "registry" not in left
    assert digests(wide) == []
