"""The changes that nobody may notice: each is made by the command line while the steady load runs."""

from tests.load.driver import Load
from tests.load.rehearsal import until
from tests.load.served import Served, stub_text

OTHER = "other"


def length(served: Served, plus: int) -> tuple[str, str]:
    """Return an exchange in the model.yaml that makes a revision: another max_model_len."""
    base = int(served.text.partition("max_model_len: ")[2].partition(",")[0].partition("}")[0])
    return f"max_model_len: {base}", f"max_model_len: {base + plus}"


def replaced(served: Served, before: dict[str, str]) -> None:
    """Assert that every replica was replaced, and takes requests."""
    after = served.births()
    assert set(after) == set(before)
    assert not set(after.values()) & set(before.values()), "a replica was not replaced"
    served.in_rotation(len(before), 10)


def serves_again(served: Served, load: Load) -> None:
    """Wait until each replica has had requests since now: that the load went on proves little if one takes none."""
    before = served.rehearsal.rotation(served.name)
    load.wait(
        lambda _: all(
            server.sessions >= before[name].sessions + 5 or server.sessions < before[name].sessions
            for name, server in served.rehearsal.rotation(served.name).items()
        ),
        120,
        "each replica has had five requests",
    )


def rolling_update(served: Served, load: Load) -> None:
    before, revision = served.births(), served.rehearsal.revision(served.name)
    exchange = length(served, 64)
    served.deploy(exchange)
    replaced(served, before)
    # Not the next number where an update has failed before: no number is given twice.
    assert served.rehearsal.revision(served.name) > revision
    assert set(served.lengths().values()) == {exchange[1].split()[-1]}


def rollback(served: Served, load: Load) -> None:
    old = served.lengths()
    served.deploy(length(served, 128))
    assert not set(served.lengths().values()) & set(old.values())
    before = served.births()
    served.site.run("rollback", served.name, "--yes", timeout=1200)
    replaced(served, before)
    assert served.lengths() == old


def restart(served: Served, load: Load) -> None:
    before, lengths = served.births(), served.lengths()
    served.site.run("restart", served.name, "--yes", timeout=1200)
    replaced(served, before)
    assert served.lengths() == lengths


def scale(served: Served, load: Load) -> None:
    served.site.run("scale", served.name, "--replicas", "1", "--yes", timeout=1200)
    assert len(served.replicas()) == len(served.up()) == 1
    served.site.run("scale", served.name, "--replicas", "2", "--yes", timeout=1200)
    assert len(served.replicas()) == 2
    served.in_rotation(2, 10)


def gateway_configuration(served: Served, load: Load) -> None:
    rehearsal, site = served.rehearsal, served.site
    before = served.births()
    site.write(f"{OTHER}.yaml", stub_text(rehearsal, OTHER, port=8001, replicas=1))
    try:
        site.run("deploy", f"{OTHER}.yaml", "--yes")
        assert sorted(rehearsal.models(served.key)) == sorted([OTHER, served.name])
        asked = {"model": OTHER, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 4}
        status, answer = rehearsal.ask("/v1/chat/completions", served.key, asked)
        assert status == 200, answer
        assert answer["choices"][0]["message"]["content"].startswith("stub:")
    finally:
        rehearsal.down(OTHER)
    assert rehearsal.models(served.key) == [served.name]
    assert served.births() == before, "another deployment's coming or going touched this one"


def key_revoked(served: Served, load: Load) -> None:
    rehearsal = served.rehearsal
    user = f"{served.user}-leaver"
    key = rehearsal.key(user)
    assert rehearsal.models(key) == [served.name], "a new key works at once"
    served.site.run("key", "revoke", user)
    status, answer = rehearsal.ask("/v1/models", key)
    assert status == 401, "a revoked key is refused at once"
    assert {"message", "type", "code"} <= set(answer["error"])


def host_drained(served: Served, load: Load) -> None:
    host = served.rehearsal.hosts[1]
    there = [name for name, replica in served.replicas().items() if replica.host == host]
    assert there
    served.site.run("host", "drain", host, "--yes", timeout=1200)
    try:
        until(lambda: not set(there) & set(served.up()), 10, f"no replica of {host} in rotation")
        count = len(load.records)
        load.wait(lambda load: len(load.records) >= count + 20, 60, "20 answers while the host is drained")
    finally:
        served.site.run("host", "undrain", host, "--yes", timeout=1200)
    served.in_rotation(2, 60)


CHANGES = {
    change.__name__: change
    for change in (rolling_update, rollback, restart, scale, gateway_configuration, key_revoked, host_drained)
}


def nobody_notices(served: Served, name: str, *, at_least: int, **more: object) -> None:
    """Make a change under load: no request fails, the service never falls below one replica, and both serve after."""
    with served.load(**more) as load, served.watched() as seen:
        CHANGES[name](served, load)
        serves_again(served, load)
        enough = 120 + load.seconds_for(at_least)
        load.wait(lambda load: len(load.records) >= at_least, enough, f"{at_least} answers")
    load.assert_all_good(at_least)
    assert seen
    assert min(seen) >= 1, f"replicas in rotation, again and again: {seen}"
