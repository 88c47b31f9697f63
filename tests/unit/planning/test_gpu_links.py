"""Of more GPUs than a replica takes, those that reach each other best are taken; which do not is said."""

import itertools
import time

import planning_lab
import pytest
import recorded_facts as made
from planning_lab import Hosts, deploy, label, model

from onprem_llm.hosts import Gpu
from onprem_llm.planning.gpu_links import best_joined, worst_link

# Pairs with a bridge each, in two sockets; as two boards of four that are joined in the middle; a DGX A100.
BRIDGED = {"0-1": "NODE", "0-2": "NV4", "1-3": "NV4", "2-3": "NODE", "0-3": "NODE", "1-2": "NODE"}
SOCKETS = {
    f"{one}-{other}": "PIX" if one // 2 == other // 2 else "NODE" if one // 4 == other // 4 else "SYS"
    for one, other in itertools.combinations(range(8), 2)
}
SWITCH = {f"{one}-{other}": "NV12" for one, other in itertools.combinations(range(8), 2)}


def gpus(*indices: int) -> list[Gpu]:
    return [Gpu(index, f"GPU-{index}", "NVIDIA A100", 40960, 0, "8.0", ()) for index in indices]


def chosen(links: dict[str, str], count: int, *free: int) -> tuple[int, ...]:
    return tuple(sorted(gpu.index for gpu in best_joined(gpus(*free), count, links)))


@pytest.mark.parametrize(
    ("links", "count", "free", "expected"),
    [
        (BRIDGED, 2, (0, 1, 2, 3), (0, 2)),
        (BRIDGED, 2, (1, 2, 3), (1, 3)),
        (BRIDGED, 2, (0, 1), (0, 1)),
        (BRIDGED, 1, (1, 0), (1,)),
        (SOCKETS, 2, (0, 2, 3, 7), (2, 3)),
        (SOCKETS, 4, (1, 2, 4, 5, 6, 7), (4, 5, 6, 7)),
        (SOCKETS, 4, (0, 1, 2, 3, 4, 5, 6, 7), (0, 1, 2, 3)),
        (SWITCH, 2, (3, 5, 1), (3, 5)),  # in the order in which they are offered
        ({}, 2, (3, 1, 0), (1, 3)),
        ({"0-1": "SYS"}, 2, (0, 1, 2), (0, 1)),  # of others nothing is known
        ({"0-1": "NV4", "0-2": "NV18", "1-2": "NV4"}, 2, (0, 1, 2), (0, 2)),
        ({"0-1": "what", "0-2": "SYS", "1-2": "X"}, 2, (0, 1, 2), (0, 2)),
    ],
)
def test_those_that_reach_each_other_best(
    links: dict[str, str], count: int, free: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    assert chosen(links, count, *free) == expected


def test_the_worst_link_of_some_is_what_counts() -> None:
    assert worst_link(gpus(0, 2), BRIDGED) == "NV4"
    assert worst_link(gpus(0, 1, 2), BRIDGED) == "NODE"
    assert worst_link(gpus(0), BRIDGED) is None
    assert worst_link(gpus(0, 1), {}) is None


def test_sixteen_are_looked_through_in_no_time() -> None:
    links = {
        f"{one}-{other}": ("PIX", "NODE", "SYS")[(one ^ other).bit_length() // 2]
        for one, other in itertools.combinations(range(16), 2)
    }
    begun = time.perf_counter()
    assert len(best_joined(gpus(*range(16)), 8, links)) == 8
    assert len(best_joined(gpus(*range(200)), 8, {**links, "16-17": "NV4"})) == 8
    assert time.perf_counter() - begun < 5


def site(links: dict[str, str], *counts: int) -> Hosts:
    hosts = planning_lab.lab(*counts)
    hosts["lab-1"]["gpus"]["links"] = links
    return hosts


def test_a_replica_is_given_them_and_keeps_them() -> None:
    after = deploy(site(BRIDGED, 4), model("replicas: 2\n", gpus=2))
    assert label(after, "tiny-0", "gpus") == "GPU-lab-1-0,GPU-lab-1-2"
    assert label(after, "tiny-1", "gpus") == "GPU-lab-1-1,GPU-lab-1-3"
    # Links that were not seen this time, or that are others now, move nothing.
    after["lab-1"]["gpus"]["links"] = {}
    assert made.planned(after, made.deployment(model("replicas: 2\n", gpus=2))).is_noop


def test_what_is_joined_through_the_processors_is_said() -> None:
    warnings = made.planned(site(SOCKETS, 8), made.deployment(model(gpus=8))).warnings
    (said,) = [text for text in warnings if "SYS" in text]
    assert said.startswith("tiny-0 on lab-1: some of its 8 GPUs reach each other through both processors alone (SYS)")
    for links, count in ((SOCKETS, 4), (SWITCH, 8), ({}, 8)):
        done = made.planned(site(links, 8), made.deployment(model(gpus=count)))
        assert not any("SYS" in one for one in done.warnings)
    alone = model(gpus=8).replace("tensor_parallel_size", "data_parallel_size")
    assert not any("SYS" in one for one in made.planned(site(SOCKETS, 8), made.deployment(alone)).warnings)
