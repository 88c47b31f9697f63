"""Hosts' own registries: what they keep while images come and go."""

from dataclasses import replace
from typing import Any

import pytest
import recorded_facts as made
import yaml
from image_site import (
    ADDRESS,
    BIG,
    LOOPBACK,
    NEWER,
    REGISTRY_IMAGE,
    THREE,
    again,
    chain_of,
    deployed,
    digest,
    lose_image,
    names,
    path,
    planned,
    pulled,
    registries,
    sha,
    site,
    steps,
    store,
    wanted,
)
from planning_lab import Hosts, lab

from onprem_llm.errors import InvalidError
from onprem_llm.planning.plan import plan
from onprem_llm.planning.types import ImageSource, Plan
from onprem_llm.probe import parse_current
from onprem_llm.rendering.registry import PROJECT
from onprem_llm.spec.site import Site

UPDATE = (THREE.replace(made.VLLM_IMAGE, NEWER), store(made.VLLM_IMAGE, made.GATEWAY_IMAGE, NEWER))


def moved(facts: Hosts) -> Hosts:
    """The gateway is on lab-2 now."""
    facts["lab-2"]["book"], facts["lab-1"]["book"] = facts["lab-1"]["book"], None
    facts["lab-1"]["projects"].pop("gateway")
    facts["lab-2"]["keys"] |= facts["lab-1"]["keys"]
    return facts


def test_a_newer_image_brings_only_its_own_blobs_and_keeps_what_serves() -> None:
    after = deployed(lab(1, 1, 1))
    text, content = UPDATE
    done = planned(after, text, content=content)
    step = chain_of(done)
    assert step is not None
    files: Any = step.orders["lab-1"]["blobs"]
    assert {one["sha256"] for one in files["files"]} == {sha(f"layer of {NEWER}"), sha("shared")}
    order: Any = registries(done).steps[1].orders["lab-2"]
    assert order["store"]["keep"] == sorted([digest(made.VLLM_IMAGE), digest(NEWER)]), "the old one may be put back"
    newer = made.applied(done, after)
    assert planned(newer, text, content=content).is_noop, "what nobody means any more stays until the next one comes"


def test_what_nobody_means_any_more_goes_when_the_next_one_comes() -> None:
    after = deployed(lab(1, 1, 1))
    text, content = UPDATE
    newer = deployed(after, text, content=content)
    newest = "vllm/vllm-openai:v0.13.0"
    content = store(made.VLLM_IMAGE, made.GATEWAY_IMAGE, NEWER, newest)
    done = planned(newer, THREE.replace(made.VLLM_IMAGE, newest), content=content)
    order: Any = registries(done).steps[1].orders["lab-2"]
    assert order["store"]["keep"] == sorted([digest(NEWER), digest(newest)])


def test_another_deployments_image_stays_in_the_registry_of_its_host() -> None:
    after = deployed(lab(2, 2, 2))
    other = THREE.replace("name: tiny", "name: other").replace(made.VLLM_IMAGE, NEWER).replace("8000", "8100")
    content = store(made.VLLM_IMAGE, made.GATEWAY_IMAGE, NEWER)
    done = planned(after, other, content=content)
    order: Any = registries(done).steps[1].orders["lab-3"]
    assert order["store"]["keep"] == sorted([digest(made.VLLM_IMAGE), digest(NEWER)])
    assert {one.action for one in done.changes if one.subject.startswith("tiny")} <= {"keep"}


def test_a_container_that_is_gone_is_started_again_with_what_it_served() -> None:
    after = deployed(lab(1, 1, 1))
    after["lab-2"]["projects"][PROJECT]["containers"] = []
    done = planned(after)
    assert steps(done) == [("registry", ("lab-2",))]
    assert [one.reasons for one in done.changes if one.subject == PROJECT and one.host == "lab-2"] == [
        ("container is gone",)
    ]


def test_a_configuration_that_somebody_edited_is_put_right_with_a_restart() -> None:
    after = deployed(lab(1, 1, 1))
    after["lab-2"]["projects"][PROJECT]["files"]["config.yml"] = "0" * 64
    done = planned(after)
    assert steps(done) == [("registry", ("lab-2",))]
    order: Any = registries(done).steps[0].orders["lab-2"]
    assert order["projects"][0]["recreate"]


def without_its_image(facts: Hosts, host: str, *, running: bool = False) -> Hosts:
    facts[host]["images"] = [image for image in facts[host]["images"] if REGISTRY_IMAGE not in image["tags"]]
    if not running:
        facts[host]["projects"][PROJECT]["containers"] = []
    return facts


def unaided(facts: Hosts, settings: Site | None = None, **change: Any) -> Plan:
    """Plan where no archive of the registry's image is on the control host."""
    ask = replace(wanted(facts, **change), registry_image=ImageSource(REGISTRY_IMAGE))
    return plan(settings or site(), ask, parse_current(facts))


def test_its_own_image_comes_again_where_an_archive_has_it() -> None:
    done = planned(without_its_image(deployed(lab(1, 1, 1)), "lab-2"))
    order: Any = registries(done).steps[0].orders["lab-2"]
    assert [one["archive"] for one in order["images"]] == ["/images/onprem-llm_registry:1.tar"]


@pytest.mark.parametrize("setting", ["auto", "always", "never"])
def test_one_that_nothing_can_start_again_is_left_alone_and_said_with_what_mends_it(setting: str) -> None:
    after = without_its_image(deployed(lab(1, 1, 1)), "lab-2")
    done = unaided(after, site(fan_out=setting))
    assert done.is_noop, "what runs is as it should be, and the registry's blobs stay for the day it is mended"
    (warning,) = [text for text in done.warnings if "lab-2" in text]
    assert REGISTRY_IMAGE in warning
    assert "onprem_llm_site.images_dir" in warning


def test_an_image_that_such_a_host_lacks_is_pulled_from_the_gateway() -> None:
    after = without_its_image(deployed(lab(1, 1, 1)), "lab-2")
    lose_image(after, "lab-2")
    done = unaided(after)
    assert {host: name.partition("/")[0] for host, name in names(done).items()} == {
        "lab-1": ADDRESS, "lab-2": ADDRESS, "lab-3": LOOPBACK
    }  # fmt: skip
    assert steps(registries(done)) == []
    assert [text for text in done.warnings if "lab-2" in text]
    with pytest.raises(InvalidError, match="image onprem-llm/registry:1 is not on lab-2") as refused:
        unaided(after, site(fan_out="always"))
    assert "onprem_llm_site.fan_out: auto" in str(refused.value.hint)


def test_one_that_runs_while_its_image_is_called_otherwise_runs_on() -> None:
    done = unaided(without_its_image(deployed(lab(1, 1, 1)), "lab-2", running=True))
    assert done.is_noop
    assert [text for text in done.warnings if "lab-2" in text]


def lost(facts: Hosts, host: str, *kept: str) -> Hosts:
    """The folder of a host's registry has these images alone, as the probe says it."""
    facts[host]["projects"][PROJECT]["stored"] = [digest(ref) for ref in kept]
    return facts


def test_a_folder_that_is_whole_changes_nothing() -> None:
    assert planned(lost(deployed(lab(1, 1, 1)), "lab-2", made.VLLM_IMAGE)).is_noop


def test_a_folder_that_was_lost_is_not_filled_for_what_docker_has() -> None:
    done = planned(lost(deployed(lab(1, 1, 1)), "lab-2"))
    order: Any = registries(done).steps[0].orders["lab-2"]
    assert (order["store"]["files"], order["store"]["keep"]) == ([], [])
    assert "lab-2" not in done.send_bytes
    after = made.applied(done, lost(deployed(lab(1, 1, 1)), "lab-2"))
    assert planned(lost(after, "lab-2")).is_noop, "its label says now what it has"


def test_an_image_that_both_lost_comes_along_the_chain_and_is_counted() -> None:
    after = lost(deployed(lab(1, 1, 1)), "lab-2")
    lose_image(after, "lab-2")
    step = chain_of(planned(after))
    assert step is not None
    assert step.hosts == ("lab-1", "lab-2")
    for disk in after["lab-2"]["disks"].values():
        disk["free"] = 2 * (BIG + 7) - 1
    with pytest.raises(InvalidError, match=r"not enough disk on lab-2: .* of the registry"):
        planned(after, settings=site(fan_out="always"))
    # What it pulls from the gateway host nobody counts, so there is room for that.
    assert names(planned(after))["lab-2"].startswith(f"{ADDRESS}/")


@pytest.mark.parametrize("setting", ["auto", "never"])
def test_an_image_that_the_folder_has_no_more_comes_back_from_the_hosts_own(setting: str) -> None:
    """Another bundle was loaded without it; the book's revision still means it."""
    after = deployed(lab(1, 1, 1))
    lose_image(after, "lab-2")
    less = store(made.GATEWAY_IMAGE)
    after["lab-1"]["projects"][PROJECT]["files"]["contents"] = sha(
        f"{digest(made.GATEWAY_IMAGE)} {made.GATEWAY_IMAGE}\n"
    )
    done = planned(after, item=again(after), content=less, settings=site(fan_out=setting))
    assert names(done)["lab-2"].startswith(f"{LOOPBACK}/")
    stage: Any = next(step for step in done.steps if step.kind == "stage").orders
    assert [(host, one["pull"]) for host, order in stage.items() for one in order["images"]] == [
        ("lab-2", f"{LOOPBACK}/{path(made.VLLM_IMAGE)}")
    ]
    assert steps(registries(done)) == [], "nothing here says what blobs it has: there is nothing to compare"
    assert chain_of(done) is None
    # A host without a registry of its own asks the gateway host, which removes none.
    lose_image(after, "lab-3")
    del after["lab-3"]["projects"][PROJECT]
    done = planned(after, item=again(after), content=less, settings=site(fan_out=setting))
    assert {name: at.partition("/")[0] for name, at in names(done).items() if name != "lab-1"} == {
        "lab-2": LOOPBACK, "lab-3": ADDRESS
    }  # fmt: skip


def test_an_image_of_another_registry_is_not_looked_for_there() -> None:
    after = deployed(lab(1, 1, 1))
    lose_image(after, "lab-2")
    item = made.again(after, "tiny", image=pulled(made.VLLM_IMAGE, "registry.example:5000"))
    done = planned(after, item=item, content=store(made.GATEWAY_IMAGE))
    assert names(done)["lab-2"].startswith("registry.example:5000/")


def test_the_gateway_moves_and_no_replica_starts_anew() -> None:
    after = moved(deployed(lab(1, 1, 1)))
    at = "10.0.0.3:5000"
    ask = wanted(after, item=made.deployment(THREE, image=pulled(made.VLLM_IMAGE, at)))
    ask = replace(ask, gateway_image=pulled(made.GATEWAY_IMAGE, at))
    done = plan(site(), ask, parse_current(after))
    assert {one.reasons for one in done.changes if one.subject.startswith("tiny")} == {()}
    assert done.revision == 1
    assert steps(registries(done)) == [("registry", ("lab-2",))]
    service = yaml.safe_load(done.files["lab-2"][PROJECT]["compose.yaml"])["services"]["registry"]
    assert service["ports"] == [f"{at}:5000"]
    former: Any = next(step.orders for step in done.steps if step.title == "Remove the former registry")
    assert set(former) == {"lab-1"}
    # Of its blobs, those that its own registry had are there.
    assert done.send_bytes["lab-2"] == BIG
