"""A host that is off during an update never brings its old revision back into rotation."""

import subprocess
import time

from tests.load.changes import length
from tests.load.rehearsal import until
from tests.load.served import Served


def test_the_old_revision_stays_out(stub: Served) -> None:
    host = stub.rehearsal.hosts[1]
    (name, replica), *_ = [(name, one) for name, one in stub.replicas().items() if one.host == host]
    old = stub.lengths()[name]
    subprocess.run(["docker", "kill", host], check=True, capture_output=True, timeout=60)
    until(lambda: name not in stub.up(), 20, "the replica of the host that is off out of rotation")
    with stub.load() as load:
        exchange = length(stub, 64)
        stub.write(exchange)
        stub.site.run("deploy", stub.file, "--yes", "--skip-unreachable", timeout=600)
        assert stub.up(), "the others have the new revision"
        subprocess.run(["docker", "start", host], check=True, capture_output=True, timeout=60)
        until(lambda: healthy(replica), 120, "the old engine runs again on its host")
        end = time.monotonic() + 30
        while time.monotonic() < end:
            assert name not in stub.up(), "the old revision is in rotation"
            time.sleep(0.5)
        # Still the old one, and still well: it is kept out for its revision, and nothing else.
        assert stub.lengths()[name] == old
        assert healthy(replica)
        stub.site.run("deploy", stub.file, "--yes", timeout=600)
        stub.in_rotation(2, 30)
    load.assert_all_good(200)
    assert set(stub.lengths().values()) == {exchange[1].split()[-1]}


def healthy(replica) -> bool:
    """Tell whether docker on its host finds the engine healthy; a host that boots has no docker yet."""
    argv = ("docker", "inspect", "--format", "{{.State.Health.Status}}", replica.container)
    return replica.lab.exec_root(replica.host, *argv, check=False).strip() == "healthy"
