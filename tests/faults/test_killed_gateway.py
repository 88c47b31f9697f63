"""The gateway killed: it is back in seconds with keys as they were, without the control host."""

import time

from tests.load.rehearsal import GATEWAY, Replica, until
from tests.load.served import Served


def test_it_comes_back_with_the_keys_as_they_were(stub: Served) -> None:
    rehearsal = stub.rehearsal
    gone = rehearsal.key(f"{stub.user}-gone")
    rehearsal.site.run("key", "revoke", f"{stub.user}-gone")
    # Drains and reloads leave a state on disk; what a gateway reads when it starts must not be from their middle.
    rehearsal.site.run("restart", stub.name, "--yes")
    gateway = Replica(rehearsal.lab, rehearsal.gateway_host, GATEWAY)
    born = gateway.born
    with stub.load() as load:
        killed = time.time()
        gateway.signal("KILL")
        until(lambda: gateway.born != born, 30, "the gateway's container was started again")
        stub.in_rotation(2, 30)
        back = time.time()
        load.wait(
            lambda load: sum(one.started > back and not one.failure for one in load.records) >= 60, 30, "60 answers"
        )
    for one in load.bad():
        assert one.ended >= killed, one
        assert one.started <= killed + 10, one
    assert all(one.status in {0, 200, 503} for one in load.records), load.report()
    status, answer = rehearsal.ask("/v1/models", gone)
    assert status == 401, answer
