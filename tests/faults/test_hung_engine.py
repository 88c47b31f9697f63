"""SIGSTOP of an engine: out of rotation within 15 s, started again by its host, and back; the control host idles."""

import time

from tests.load.rehearsal import until
from tests.load.served import Served

VICTIM = "stub-1"


def test_a_hung_replica_leaves_is_restarted_and_returns(stub: Served) -> None:
    replica = stub.replicas()[VICTIM]
    signature, born = replica.fingerprint, replica.born
    with stub.load() as load:
        before = time.time()
        replica.signal("STOP")
        until(lambda: VICTIM not in stub.up(), 20, "the replica out of rotation")
        left = time.time()
        until(lambda: replica.born != born, 180, "the container was started again by its host")
        stub.in_rotation(2, 60)
        back = time.time()
        load.wait(
            lambda load: any(one.served_by == signature and one.started > back for one in load.records),
            30,
            "the replica answers again",
        )
    assert left - before <= 15
    sent = [one for one in load.records if before <= one.started <= left]
    assert any(one.failure or one.ended - one.started > 3 for one in sent), "nothing was sent to it while it hung"
    for one in load.bad():
        assert one.started <= left, one
        assert one.ended >= before, one
        # A stream that had begun when the replica stopped has its status already, and can only be cut.
        begun = one.status == 200 and one.kind == "stream" and one.first <= before + 1
        assert begun or (one.status == 504 and one.error), one
    assert len(load.bad()) <= 20, load.report()
