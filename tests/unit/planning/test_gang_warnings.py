"""What a plan says of a replica that starts over several hosts."""

import recorded_facts as made
from gang_lab import gang, hosts, on_cpus
from planning_lab import Hosts, mark


def said(facts: Hosts, text: str, **more: object) -> list[str]:
    done = made.planned(facts, made.deployment(text), **more)  # type: ignore[arg-type]
    return [text for text in done.warnings if "hosts" in text]


def test_a_silent_host_that_may_be_large_enough_is_named() -> None:
    facts = {**hosts(2), "lab-3": hosts(3, 4)["lab-3"]}
    (text,) = said(facts, gang(nodes="auto"), unreachable=["lab-3"])
    assert text == (
        "wide goes over 2 hosts, since none that was looked at has 4 GPUs of one model; lab-3 was not, and may. It "
        "stays as it starts: bring that host back first, or write resources.nodes: 2"
    )


def test_nothing_is_said_where_it_is_asked_for_or_the_host_is_out_of_the_question() -> None:
    facts = {**hosts(2), "lab-3": hosts(3, 4)["lab-3"]}
    assert not said(facts, gang(nodes=2), unreachable=["lab-3"])
    elsewhere = gang(nodes="auto").replace("nodes: auto", "nodes: auto, hosts: [lab-1, lab-2]")
    assert not said(facts, elsewhere, unreachable=["lab-3"])
    assert not said(mark(facts, "lab-3", "lost"), gang(nodes="auto"), unreachable=["lab-3"])
    assert not said(hosts(2), gang(nodes="auto"))


def test_tensor_parallel_over_hosts_is_said_once_and_not_on_cpus() -> None:
    text = gang(tensor=4, pipeline=1)
    (warning,) = said(hosts(2), text)
    assert warning.startswith(
        "tensor_parallel_size 4 goes over hosts with 2 GPUs each: every layer of every token waits"
    )
    assert "tensor_parallel_size: 2 and pipeline_parallel_size: 2 is what" in warning
    facts = made.applied(made.planned(hosts(2), made.deployment(text)), hosts(2))
    assert not said(facts, text.replace("8192", "1024"))
    assert not said(hosts(2, 0), on_cpus())
