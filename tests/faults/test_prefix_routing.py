"""routing: prefix_cache sends like prompts to one replica. By counts here; by vLLM's own metric in the system tests."""

from collections import Counter, defaultdict
from collections.abc import Iterator

import pytest
from tests.load.driver import Load
from tests.load.rehearsal import Rehearsal
from tests.load.served import Served, served, stub_text


@pytest.fixture(scope="module")
def prefixed(rehearsal: Rehearsal) -> Iterator[Served]:
    """Two replicas that are chosen by the prompt's beginning."""
    with served(rehearsal, "prefix", stub_text(rehearsal, "prefix", port=8002, extra="routing: prefix_cache\n")) as one:
        yield one


def conversation(topic: int) -> list[dict[str, str]]:
    """Return a chat whose system prompt and first question are always the same, and whose last question is not."""
    return [
        {"role": "system", "content": f"You know all about topic {topic}."},
        {"role": "user", "content": "Tell me about it."},
        {"role": "assistant", "content": "What exactly?"},
        {"role": "user", "content": "Detail number {n}."},
    ]


@pytest.mark.parametrize("topics", [2, 8])
def test_a_prefix_stays_on_one_replica(prefixed: Served, topics: int) -> None:
    conversations = [conversation(topic) for topic in range(topics)]
    settings = prefixed.rehearsal.settings(prefixed.name, prefixed.key, rate=10, count=200, conversations=conversations)
    with Load(settings) as load:
        load.finish()
    load.assert_all_good(200)
    places: dict[int, Counter[str]] = defaultdict(Counter)
    for one in load.records:
        places[one.conversation][one.served_by] += 1
    for topic, counts in places.items():
        assert max(counts.values()) >= 0.95 * counts.total(), f"topic {topic}: {counts}"
    if topics == 8:
        # Eight prefixes on one of two replicas: one chance in 128. Then nothing was hashed.
        assert len({counts.most_common(1)[0][0] for counts in places.values()}) == 2, places
