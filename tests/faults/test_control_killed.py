"""The control host dies in the middle of an update: the service goes on, and a second deploy finishes it."""

from tests.load.changes import length, serves_again
from tests.load.rehearsal import until
from tests.load.served import Served, background

REFUSED = 6


def test_a_second_deploy_finishes_the_update(stub: Served) -> None:
    before = stub.births()
    exchange = length(stub, 64)
    with stub.load() as load, stub.watched() as seen:
        stub.write(exchange)
        with background(stub.site, "deploy", stub.file, "--yes") as deploying:
            # One replica is gone from rotation: the update is between its two ends.
            until(lambda: len(stub.up()) == 1 or deploying.poll() is not None, 180, "the update to have begun")
            assert deploying.poll() is None, "the deploy ended before it could be killed"
        count = len(load.records)
        load.wait(lambda load: len(load.records) >= count + 60, 60, "60 answers with the control host off")
        again = stub.site.run("deploy", stub.file, "--yes", code=None, timeout=600)
        if again.returncode == REFUSED:
            # The dead run's lock is still there; the message names the way.
            assert "--break-lock" in again.stderr
            stub.site.run("deploy", stub.file, "--yes", "--break-lock", timeout=600)
        else:
            assert again.returncode == 0, again.stdout + again.stderr
        serves_again(stub, load)
    load.assert_all_good(200)
    assert min(seen) >= 1, seen
    assert set(stub.lengths().values()) == {exchange[1].split()[-1]}
    assert not set(stub.births().values()) & set(before.values())
    assert stub.site.json("plan", stub.file)["noop"] is True
