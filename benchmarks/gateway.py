"""What the gateway costs, and what it brings, beside vllm-router and LiteLLM's proxy.

Run as `make bench-gateway` (`ARGS=--quick` for the first part alone, in under 2 minutes). Three parts, each with
everything asked in turns, so that a busy machine is busy for all: an instant engine, which shows the cost alone; real
vLLM; and two real vLLMs with long prompts in common, where it counts who answers. Figures are medians over the rounds.
The last line is one JSON object.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import gateway_prefix as prefix
from gateway_client import Body, Way
from gateway_parts import (
    ENGINE_KEYS,
    Engine,
    cpu_seconds,
    gateway,
    instant_engine,
    litellm,
    others,
    vllm_engines,
    vllm_router,
)

CLIENTS = 8
LIMITS = {"p50_ms": 1.0, "p99_ms": 5.0, "vllm_throughput_ratio": 0.95, "prefix_share": 0.95}
ASKED = [{"role": "user", "content": "Say one word."}]
ONE_TOKEN: Body = {"max_tokens": 1, "messages": ASKED}
SIXTEEN: Body = {"max_tokens": 16, "ignore_eos": True, "temperature": 0, "messages": ASKED}

# A replica's cache holds about half of what the last part asks for.
BLOCK_SIZE, BLOCKS = 32, 450


def all_ways(stack: ExitStack, engines: list[Engine]) -> tuple[list[Way], str]:
    """Return direct (to the first engine), the gateway, and what is compared with it; the gateway's container."""
    behind, container = gateway(stack, engines)
    ways = [Way("direct", engines[0].address, engines[0].port, ENGINE_KEYS[0]), behind]
    found = others()
    if found:
        ways += [vllm_router(stack, found, engines), litellm(stack, found, engines)]
    return ways, container


def measure(ways: list[Way], body: Body, rounds: int, requests: int) -> None:
    """Ask in turns, from another one on each round; who is slow is asked less, for a round to take 2 s or so."""
    counts = {}
    for way in ways:
        way.round([body] * 40, CLIENTS)
        way.round([body] * 40, CLIENTS)
        counts[way.name] = min(requests, max(80, int(way.rates[-1] * 2)))
        way.forget()
    for number in range(rounds):
        for way in ways[number % len(ways) :] + ways[: number % len(ways)]:
            way.round([body] * counts[way.name], CLIENTS)


def against(direct: Way, way: Way) -> dict[str, float]:
    return {
        "p50_ms": round(way.quantile(0.5) - direct.quantile(0.5), 3),
        "p99_ms": round(way.quantile(0.99) - direct.quantile(0.99), 3),
        "throughput_ratio": round(way.rate / direct.rate, 3),
    }


def table(title: str, ways: Sequence[Way]) -> dict[str, dict[str, float]]:
    """Print a part; return what each way adds to the first one."""
    print(f"\n{title}\n{'':14}{'p50 ms':>9}{'p99 ms':>9}{'added':>8}{'added':>8}{'answers/s':>11}{'ratio':>7}")
    found = {}
    for way in ways:
        added = against(ways[0], way)
        print(
            f"{way.name:14}{way.quantile(0.5):9.2f}{way.quantile(0.99):9.2f}{added['p50_ms']:+8.2f}"
            f"{added['p99_ms']:+8.2f}{way.rate:11.1f}{added['throughput_ratio']:7.3f}",
            flush=True,
        )
        found[way.name] = added
    return {name: added for name, added in found.items() if name != ways[0].name}


def instant(rounds: int) -> dict[str, Any]:
    with ExitStack() as stack:
        ways, container = all_ways(stack, [instant_engine(stack)])
        measure(ways, ONE_TOKEN, rounds, 800)
        found = table(f"An instant engine, {CLIENTS} clients, one-token answers", ways)
        before = cpu_seconds(container)
        ways[1].round([ONE_TOKEN] * 4000, CLIENTS)
        cpu = round((cpu_seconds(container) - before) / 4000 * 1e6)
    print(f"the gateway's processes work {cpu} us a request")
    return {"added": found, "gateway_cpu_us": cpu}


def real(rounds: int) -> dict[str, Any]:
    with ExitStack() as stack:
        ways, _ = all_ways(stack, vllm_engines(stack, 1, blocks=BLOCKS, block_size=BLOCK_SIZE))
        measure(ways, SIXTEEN, rounds, 80)
        return table(f"Real vLLM, {CLIENTS} clients, 16-token answers", ways)


def prefixes(rounds: int) -> dict[str, Any]:
    """Measure hit rates by who routes, and that of two prompts each stays on one replica."""
    with ExitStack() as stack:
        engines = vllm_engines(stack, 2, blocks=BLOCKS, block_size=BLOCK_SIZE)
        behind, _ = gateway(stack, engines)
        spread, cached = replace(behind, name="least_load"), replace(behind, name="prefix_cache", model="cached")
        compared, found = [spread, cached], others()
        if found:
            compared.append(vllm_router(stack, found, engines))
        rates = {}
        for workload in prefix.WORKLOADS:
            rates[workload] = prefix.compare(compared, engines, workload, rounds)
            print(f"\nTwo vLLMs, {prefix.CHATS} {workload}, {prefix.TURNS} requests on each, {prefix.CLIENTS} clients")
            print(f"{'':14}{'hit rate':>9}{'busiest':>9}{'answers/s':>11}")
            for way in compared:
                one = rates[workload][way.name]
                print(f"{way.name:14}{one['hit_rate']:9.3f}{one['busiest']:9.3f}{way.rate:11.1f}", flush=True)
        landed = prefix.landing(cached, engines, "two prompts")
    print("two prompts under prefix_cache, each on one replica: " + ", ".join(f"{one['share']:.1%}" for one in landed))
    return {"workloads": rates, "two_prompts": landed}


def within(found: dict[str, Any]) -> bool:
    added = found["instant"]["added"]["gateway"]
    kept = added["p50_ms"] <= LIMITS["p50_ms"] and added["p99_ms"] <= LIMITS["p99_ms"]
    if "vllm" in found:
        kept &= found["vllm"]["gateway"]["throughput_ratio"] >= LIMITS["vllm_throughput_ratio"]
        kept &= all(one["share"] >= LIMITS["prefix_share"] for one in found["prefix"]["two_prompts"])
    return bool(kept)


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the instant engine alone, fewer rounds")
    quick = parser.parse_args(arguments).quick
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    found: dict[str, Any] = {"instant": instant(7 if quick else 15)}
    if not quick:
        found["vllm"] = real(9)
        found["prefix"] = prefixes(3)
    print()
    print(json.dumps({"name": "gateway", "compared": "each way against a replica asked directly, in turns", **found,
                      "limits": LIMITS, "within": within(found), "load": round(os.getloadavg()[0], 1),
                      "cores": os.cpu_count()}))  # fmt: skip


if __name__ == "__main__":
    main(sys.argv[1:])
