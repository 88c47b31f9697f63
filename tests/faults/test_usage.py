"""What the gateway counts for a key is what its client counted."""

from tests.load.driver import Load
from tests.load.served import Served


def test_requests_and_tokens_equal_the_clients(stub: Served) -> None:
    with Load(stub.rehearsal.settings(stub.name, stub.key, count=200)) as load:
        summary = load.finish()
    load.assert_all_good(200)
    counted = stub.rehearsal.usage(stub.user)
    assert counted["requests"] == summary["answered"] == 200
    assert counted["completion_tokens"] == summary["completion_tokens"] == 100 * 8
    assert counted["prompt_tokens"] == summary["prompt_tokens"] > 0


def test_they_are_still_there_after_a_reload(stub: Served) -> None:
    before = stub.rehearsal.usage(stub.user)
    assert before["requests"] >= 200
    stub.rehearsal.key(f"{stub.user}-b")
    stub.site.run("key", "revoke", f"{stub.user}-b")
    stub.site.run("restart", stub.name, "--yes")
    assert stub.rehearsal.usage(stub.user) == before


def test_refusals_are_counted(stub: Served) -> None:
    user = f"{stub.user}-slow"
    key = stub.rehearsal.key(user, "--rate", "5/hour")
    with Load(stub.rehearsal.settings(stub.name, key, count=20)) as load:
        summary = load.finish()
    assert not load.failed(), load.report()
    assert summary["statuses"] == {"200": 5, "429": 15}
    assert all(one.error for one in load.records if one.status == 429), "429 in OpenAI's shape"
    assert stub.rehearsal.usage(user)["refused"] == 15
    stub.site.run("key", "revoke", user)
