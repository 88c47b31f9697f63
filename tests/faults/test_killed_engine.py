"""kill -9 of an engine: nobody fails but those that were in flight on it, and it comes back by itself."""

import time

import pytest
from tests.load.driver import Load
from tests.load.rehearsal import until
from tests.load.served import Served


@pytest.mark.parametrize("number", [0, 1])  # on the gateway's own host, on another
def test_only_those_in_flight_fail(stub: Served, number: int) -> None:
    # An update while a host was off may have given it another number.
    victim = next(name for name, one in stub.replicas().items() if one.host == stub.rehearsal.hosts[number])
    with stub.load() as load:
        lost = sum(killed(stub, victim, load) for _ in range(3))
        load.wait(lambda load: len(load.records) >= 200, 60, "200 answers")
    print(f"{victim} killed three times: {lost} of {len(load.records)} requests lost")
    assert len(load.bad()) == lost, load.report()


def killed(stub: Served, victim: str, load: Load) -> int:
    """Kill it, wait until it answers again; return how many requests that cost."""
    replica = stub.replicas()[victim]
    signature, born, first = replica.fingerprint, replica.born, len(load.records)
    before = time.time()
    replica.signal("KILL")
    until(lambda: replica.born != born, 30, "the container was started again")
    gone = replica.finished
    stub.in_rotation(2, 60)
    load.wait(
        lambda load: any(one.served_by == signature and one.started > gone + 1 for one in load.records),
        30,
        "the replica answers again",
    )
    bad = [one for one in load.records[first:] if one.failure or one.status != 200]
    for one in bad:
        # A process takes a moment to die; whoever came after that is served by the other replica.
        assert one.started <= gone, (gone, one)
        assert one.ended >= before, one
        assert one.served_by in {"", signature}, one
        # With its status sent, a stream can only be cut.
        assert one.status == 200 or (one.status in {502, 504} and one.error), one
    # 20 requests a second that take 160 ms: three in flight on both, a few more in an unlucky moment.
    assert len(bad) <= 8, load.report()
    return len(bad)
