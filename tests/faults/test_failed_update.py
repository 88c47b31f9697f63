"""An update that cannot start: the old revision serves on, nothing fails, and the exit code says so."""

import pytest
from tests.load.served import Served

FAILED = 5
CHANGES = {
    "an image that cannot start": ("stub-engine:1", "stub-engine:broken"),
    "an argument that vLLM refuses": ("max_model_len: 512", "max_model_len: 512, no_such_arg: 1"),
}
SAID = {"an image that cannot start": "libcuda.so.1", "an argument that vLLM refuses": "no-such-arg"}


@pytest.mark.parametrize("name", CHANGES)
def test_the_old_revision_serves_on(stub: Served, name: str) -> None:
    before, lengths = stub.births(), stub.lengths()
    with stub.load() as load, stub.watched() as seen:
        done = stub.deploy(CHANGES[name], code=FAILED)
        stub.in_rotation(2, 30)
        load.wait(lambda load: len(load.records) >= 200, 60, "200 answers")
    load.assert_all_good(200)
    assert min(seen) >= 1, seen
    # The engine's own words, so that a person sees why.
    assert SAID[name] in done.stdout + done.stderr
    after = stub.births()
    assert any(after[one] == before[one] for one in before), "the update went on to the second replica"
    assert stub.lengths() == lengths
    for replica in stub.replicas().values():
        assert "no-such-arg" not in replica.inspect("json .Config.Cmd")
        assert "broken" not in replica.inspect(".Config.Image")
    # With the file as it was, there is nothing left to do.
    stub.write()
    assert stub.site.json("plan", stub.file)["noop"] is True
