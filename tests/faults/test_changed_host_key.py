"""A host that shows another SSH key may be another host: nothing is deployed, there or elsewhere, until it is right."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.load.changes import length
from tests.load.served import Served

UNREACHABLE = 4
AWAY = "/root/ssh-before"
CHANGE = f"mkdir {AWAY} && mv /etc/ssh/ssh_host_* {AWAY} && ssh-keygen -A && systemctl restart ssh"
BACK = f"if [ -d {AWAY} ]; then rm /etc/ssh/ssh_host_*; mv {AWAY}/* /etc/ssh; rmdir {AWAY}; systemctl restart ssh; fi"


@pytest.fixture
def host(stub: Served) -> Iterator[str]:
    """The host of the second replica; it has its own keys again when the test ends."""
    second = stub.rehearsal.hosts[1]
    yield second
    stub.rehearsal.lab.exec_root(second, "sh", "-c", BACK)


@pytest.fixture
def cold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Have the next command log in anew: a connection that is still open sees no key."""
    numbers = itertools.count()

    def make() -> None:
        monkeypatch.setenv("ANSIBLE_SSH_CONTROL_PATH_DIR", str(tmp_path / str(next(numbers))))

    return make


def test_nothing_is_deployed_while_a_host_shows_another_key(stub: Served, host: str, cold: Callable[[], None]) -> None:
    lab = stub.rehearsal.lab
    replicas, before, revision = stub.replicas(), stub.births(), stub.rehearsal.revision(stub.name)
    exchange = length(stub, 64)
    with stub.load() as load:
        lab.exec_root(host, "sh", "-c", CHANGE)
        shown = lab.exec_root(host, "ssh-keygen", "-lf", "/etc/ssh/ssh_host_ed25519_key.pub").split()[1]
        cold()
        stub.write(exchange)
        said = stub.site.run("deploy", stub.file, "--yes", code=UNREACHABLE).stderr
        print(said)
        assert f"{host}: unreachable" in said
        address = stub.rehearsal.address(host)
        # Both fingerprints: the one shown is to be compared with the host's console.
        assert f"IDENTIFICATION HAS CHANGED: {address} offers ED25519 {shown}, but " in said
        assert f"ssh-keygen -R '{address}' -f " in said
        assert "nothing was changed" in said
        assert {name: one.born for name, one in replicas.items()} == before
        load.wait(lambda load: len(load.records) >= 200, 60, "200 answers")
        lab.exec_root(host, "sh", "-c", BACK)
        cold()
        assert stub.rehearsal.revision(stub.name) == revision
        assert stub.births() == before
        stub.deploy(exchange)
    load.assert_all_good(200)
    assert set(stub.lengths().values()) == {exchange[1].split()[-1]}
