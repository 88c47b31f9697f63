"""Two prefixes under `routing: prefix_cache`: each lands on one replica, shown by vLLM's own prefix-cache metric."""

import math
import re
from collections.abc import Iterator

import pytest
from conftest import tiny
from tests.load.driver import Load
from tests.load.rehearsal import Rehearsal, Replica
from tests.load.served import Served, served

REQUESTS = 40
# Long enough for several blocks of the KV cache, and for two words of it to differ between the topics at the start.
LONG = "The mountain is high and the river is long. " * 12
# In the container, past the firewall, over whatever TLS the engine has.
METRICS = """\
import ssl, urllib.request
for scheme in ("http", "https"):
    try:
        context = ssl._create_unverified_context() if scheme == "https" else None
        print(urllib.request.urlopen(scheme + "://127.0.0.1:8000/metrics", timeout=10, context=context).read().decode())
        break
    except OSError as error:
        problem = error
else:
    raise SystemExit(str(problem))
"""


def counted(replica: Replica) -> tuple[float, float]:
    """Return the tokens that a replica looked up in its prefix cache since it started, and those that it found."""
    text = replica.lab.exec_root(replica.host, "docker", "exec", replica.container, "python3", "-c", METRICS)
    found = []
    for name in ("prefix_cache_queries", "prefix_cache_hits"):
        values = re.findall(rf"^vllm:{name}_total(?:{{[^}}]*}})? ([0-9.e+]+)$", text, re.MULTILINE)
        assert values, f"vLLM has no metric {name}_total"
        found.append(math.fsum(float(value) for value in values))
    return found[0], found[1]


@pytest.fixture(scope="module")
def prefixed(rehearsal: Rehearsal) -> Iterator[Served]:
    """Two replicas that are chosen by the prompt's beginning."""
    with served(rehearsal, "tiny", tiny(2, "prefix_cache")) as one:
        yield one


def ask(prefixed: Served, topic: str, count: int) -> None:
    """Ask about one topic, one question after another, half of them streamed."""
    said = [
        {"role": "system", "content": f"Topic {topic}. {LONG}"},
        {"role": "user", "content": "Tell me about it."},
        {"role": "assistant", "content": "What exactly?"},
        {"role": "user", "content": "Detail number {n}."},
    ]
    settings = prefixed.rehearsal.settings(prefixed.name, prefixed.key, workers=2, count=count, conversations=[said])
    with Load(settings) as load:
        load.finish()
    assert not load.bad(), load.report()


@pytest.mark.parametrize("topic", ["one", "two"])
def test_a_prefix_stays_on_one_replica(prefixed: Served, topic: str) -> None:
    replicas = prefixed.replicas()
    # The first fills the cache, the second shows how many tokens the prefix is.
    ask(prefixed, topic, 1)
    warm = {name: counted(one) for name, one in replicas.items()}
    ask(prefixed, topic, 1)
    hits = {name: counted(one)[1] - warm[name][1] for name, one in replicas.items()}
    prefix = max(hits.values())
    assert prefix > 0, "the second request found nothing of the first: it went elsewhere, or nothing is cached"
    before = {name: counted(one) for name, one in replicas.items()}
    ask(prefixed, topic, REQUESTS)
    after = {name: counted(one) for name, one in replicas.items()}
    asked = {name: after[name][0] - before[name][0] for name in replicas}
    found = {name: after[name][1] - before[name][1] for name in replicas}
    assert max(asked.values()) >= 0.95 * sum(asked.values()), asked
    # Had a request gone to the other replica, it would have found nothing there.
    assert max(found.values()) >= 0.95 * REQUESTS * prefix, (found, prefix)
