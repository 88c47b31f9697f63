"""Who keeps like prompts on one replica: hit rates of vLLM's own prefix cache, by what routes to two of it."""

import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

from gateway_client import Body, Way
from gateway_parts import Engine

WORDS = ("amber", "basin", "cedar", "delta", "ember", "fjord", "grove", "heath", "inlet", "jetty", "knoll", "ledge")
LONG, SHORT = 120, 12  # words: a document, a remark
CHATS, TURNS = 40, 6
CLIENTS = 8
METRIC = re.compile(r"^vllm:prefix_cache_(queries|hits)(?:_total)?\{[^}]*\} (\S+)$", re.MULTILINE)


@dataclass(frozen=True)
class Seen:
    """Tokens that a replica's cache was asked for, and that it had."""

    queries: float
    hits: float

    def __sub__(self, other: "Seen") -> "Seen":
        return Seen(self.queries - other.queries, self.hits - other.hits)


def seen(engine: Engine) -> Seen:
    found = {name: float(value) for name, value in METRIC.findall(engine.get("/metrics"))}
    return Seen(found["queries"], found["hits"])


def conversations(salt: str) -> list[Body]:
    """Return chats that grow turn by turn, all in the same stage, in any order; a salt makes them new to all caches."""
    made = []
    for turn in range(TURNS):
        stage = [_conversation(f"{salt} {number}", turn) for number in range(CHATS)]
        random.Random(turn).shuffle(stage)  # noqa: S311
        made += stage
    return made


def documents(salt: str) -> list[Body]:
    """Return different first questions on documents, each of them a long system prompt, in any order."""
    made = [_chat(_text(f"{salt} {one}", LONG), f"Question {n}?") for one in range(CHATS) for n in range(TURNS)]
    random.Random(0).shuffle(made)  # noqa: S311
    return made


WORKLOADS = {"conversations": conversations, "documents": documents}


def _conversation(seed: str, turn: int) -> Body:
    said = [_text(f"{seed} {number}", SHORT) for number in range(2 * turn + 1)]
    return _chat(_text(seed, LONG), *said)


def _chat(system: str, *said: str) -> Body:
    turns = [{"role": ("user", "assistant")[number % 2], "content": text} for number, text in enumerate(said)]
    return {"max_tokens": 1, "messages": [{"role": "system", "content": system}, *turns]}


def _text(seed: str, words: int) -> str:
    chosen = random.Random(seed)  # noqa: S311
    return f"{seed}: " + " ".join(chosen.choice(WORDS) for _ in range(words))


def hit_rate(way: Way, engines: list[Engine], bodies: list[Body]) -> tuple[float, float]:
    """Return the share of the prompts' tokens that were in a cache, and the busiest replica's share of them all."""
    gone = _gone(engines, lambda: way.round(bodies, CLIENTS))
    asked = [one.queries for one in gone]
    return sum(one.hits for one in gone) / sum(asked), max(asked) / sum(asked)


def landing(way: Way, engines: list[Engine], salt: str) -> list[dict[str, float]]:
    """Ask with two prompts, one after the other; return the share that its replica had of each, and the hits there."""
    found = []
    for prefix in range(2):
        bodies = [_conversation(f"{salt} {prefix}", 0)] * 200
        gone = _gone(engines, lambda asked=bodies: way.round(asked, CLIENTS))  # type: ignore[misc]
        most = max(gone, key=lambda one: one.queries)
        share = most.queries / sum(one.queries for one in gone)
        found.append({"share": round(share, 4), "hit_rate": round(most.hits / most.queries, 4)})
    return found


def _gone(engines: list[Engine], work: Callable[[], object]) -> list[Seen]:
    before = [seen(one) for one in engines]
    work()
    time.sleep(1)  # vLLM counts beside its work
    return [seen(one) - old for one, old in zip(engines, before, strict=True)]


def compare(ways: list[Way], engines: list[Engine], workload: str, rounds: int) -> dict[str, dict[str, float]]:
    """Return medians by way; all are asked for the same shape of work, each round with new words."""
    rates: dict[str, list[tuple[float, float]]] = {way.name: [] for way in ways}
    for way in ways:
        way.round(WORKLOADS[workload](f"{way.name} before")[:16], CLIENTS)
        way.forget()
    for number in range(rounds):
        for way in ways[number % len(ways) :] + ways[: number % len(ways)]:
            asked = WORKLOADS[workload](f"{way.name} {number}")
            rates[way.name].append(hit_rate(way, engines, asked))
    found = {}
    for name, rounds_of_it in rates.items():
        hits, busiest = zip(*rounds_of_it, strict=True)
        found[name] = {"hit_rate": round(median(hits), 3), "busiest": round(median(busiest), 3)}
    return found
