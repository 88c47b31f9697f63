"""A deployment behind Ray Serve, beside one on hosts: its path, no key, and nodes that come and go."""

import concurrent.futures
import json
import signal
import time
from collections.abc import Iterator

import pytest
from ask import CHAT, ask, chat
from rig import IMAGE, Engine, Rig, backend

from onprem_llm.rendering.haproxy import Gateway, Server

NODES = ("ray-10-0-0-3", "ray-10-0-0-4", "ray-10-0-0-5")


class Cluster:
    """A gateway with three nodes of Ray, of which the last has no proxy, and one replica on a host."""

    def __init__(self, folder: object) -> None:
        self.nodes = [Engine(name, "Tiny 世界", prefix="/tiny").start() for name in NODES[:2]]
        self.plain = Engine("plain-0", "plain").start()
        servers = tuple(node.server() for node in self.nodes)
        servers = (*servers, Server(NODES[2], servers[0].address, 9))
        backends = (
            backend("tiny", [], served_name="Tiny 世界", admits=(), servers=servers, prefix="/tiny"),
            backend("plain", [self.plain]),
        )
        gateway = Gateway(IMAGE, "/srv/onprem-llm", "0.0.0.0", 8080, False, 1 << 20, 600, backends)  # noqa: S104
        self.rig = Rig(folder, gateway)  # type: ignore[arg-type]
        self.rig.write()
        self.rig.key("alice")
        self.rig.start()
        self.rig.until(lambda: self.state(2).startswith("DOWN"), 10)

    def state(self, node: int) -> str:
        return self.rig.servers()[f"tiny/{NODES[node]}"]

    def stop(self) -> None:
        self.rig.stop()
        for one in (*self.nodes, self.plain):
            one.process.kill()
            one.process.wait()


@pytest.fixture
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    made = Cluster(tmp_path_factory.mktemp("ray"))
    try:
        yield made
    finally:
        made.stop()


def test_a_request_gets_the_prefix_and_loses_the_clients_key(cluster: Cluster) -> None:
    for path in (CHAT, f"/tiny{CHAT}"):
        seen = ask(cluster.rig.url, f"{path}?a=b", chat("Tiny 世界")).seen
        assert seen["path"] == f"/tiny{CHAT}?a=b"
        assert "authorization" not in seen["headers"]
    assert ask(cluster.rig.url, CHAT, chat("Tiny 世界"), key=None).status == 401
    plain = ask(cluster.rig.url, CHAT, chat("plain")).seen
    assert (plain["path"], plain["headers"]["authorization"]) == (CHAT, "Bearer engine-key-of-plain")


def test_a_path_that_ray_does_not_have_is_refused_by_the_gateway(cluster: Cluster) -> None:
    refused = ask(cluster.rig.url, "/v1/responses", {"model": "Tiny 世界", "input": "hi"})
    assert (refused.status, refused.error["code"]) == (404, "unsupported_path")
    assert ask(cluster.rig.url, "/v1/responses", {"model": "plain", "input": "hi"}).status == 200


def test_nodes_with_a_proxy_share_the_requests_and_the_one_without_is_down(cluster: Cluster) -> None:
    assert (cluster.state(0), cluster.state(1)) == ("UP", "UP")
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(ask, cluster.rig.url, CHAT, {**chat("Tiny 世界"), "sleep": 0.2}) for _ in range(12)]
    assert {one.result().seen["server"] for one in asked} == set(NODES[:2])


def test_a_stream_on_a_proxy_that_is_being_drained_goes_on_to_its_end(cluster: Cluster) -> None:
    body = {**chat("Tiny 世界"), "stream": True, "chunks": 60, "every": 0.1}
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        streams = [pool.submit(ask, cluster.rig.url, CHAT, body) for _ in range(2)]
        time.sleep(0.5)
        cluster.nodes[0].process.send_signal(signal.SIGUSR1)
        cluster.rig.until(lambda: cluster.state(0).startswith("DOWN"), 10)
        assert not all(stream.done() for stream in streams), "the drain was to be seen while they ran"
        assert {ask(cluster.rig.url, CHAT, chat("Tiny 世界")).seen["server"] for _ in range(6)} == {NODES[1]}
    for stream in streams:
        events = [line for line in stream.result().body.decode().splitlines() if line.startswith("data: {")]
        assert [json.loads(line[6:])["number"] for line in events] == list(range(60))


def test_a_node_that_dies_is_gone_around(cluster: Cluster) -> None:
    cluster.nodes[0].process.kill()
    cluster.nodes[0].process.wait()  # what it took on its way out it would have to answer
    answers = [ask(cluster.rig.url, CHAT, chat("Tiny 世界")).status for _ in range(10)]
    assert answers == [200] * 10
    cluster.rig.until(lambda: cluster.state(0).startswith("DOWN"), 10)
    cluster.nodes[0].start()
    cluster.rig.until(lambda: cluster.state(0) == "UP", 10)


def test_it_is_listed_with_the_others(cluster: Cluster) -> None:
    listed = ask(cluster.rig.url, "/v1/models", method="GET").json["data"]
    assert sorted(one["id"] for one in listed) == ["Tiny 世界", "plain"]
