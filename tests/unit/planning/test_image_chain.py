"""An image along the hosts: who gets it that way, what it is called there, and that nothing else changes by it."""

import json
from dataclasses import replace
from typing import Any

import pytest
import recorded_facts as made
import yaml
from image_site import (
    ADDRESS,
    BIG,
    LOOPBACK,
    REGISTRY_IMAGE,
    STORE,
    THREE,
    again,
    chain_of,
    deployed,
    digest,
    lose_image,
    names,
    path,
    planned,
    registries,
    sha,
    shown,
    site,
    steps,
    store,
    wanted,
)
from planning_lab import lab, listener, model

from onprem_llm.errors import InvalidError
from onprem_llm.planning.fan_out import PORTS
from onprem_llm.planning.plan import plan
from onprem_llm.planning.serial import from_json, to_json
from onprem_llm.planning.types import ImageSource
from onprem_llm.probe import parse_current
from onprem_llm.rendering.registry import PROJECT


def test_it_is_passed_on_and_pulled_from_each_hosts_own_registry() -> None:
    facts = lab(1, 1, 1)
    done = planned(facts)

    every, others = ("lab-1", "lab-2", "lab-3"), ("lab-2", "lab-3")
    assert steps(done)[:4] == [("registry", ("lab-1",)), ("fan_out", every), ("registry", others), ("stage", every)]
    own = f"{LOOPBACK}/{path(made.VLLM_IMAGE)}"
    assert names(done) == {"lab-1": f"{ADDRESS}/{path(made.VLLM_IMAGE)}", "lab-2": own, "lab-3": own}
    step = chain_of(done)
    assert step is not None
    order: Any = step.orders["lab-3"]
    layer, shared = sha(f"layer of {made.VLLM_IMAGE}"), sha("shared")
    assert order["blobs"]["path"] == STORE
    assert {(one["path"], one["size"], one["sha256"]) for one in order["blobs"]["files"]} == {
        (f"docker/registry/v2/blobs/sha256/{s[:2]}/{s}/data", size, s) for s, size in ((layer, BIG), (shared, 7))
    }
    assert order["chain"]["members"] == [["lab-1", "10.0.0.2"], ["lab-2", "10.0.0.3"], ["lab-3", "10.0.0.4"]]
    stage: Any = next(one for one in done.steps if one.kind == "stage").orders
    assert {image["pull"] for image in stage["lab-2"]["images"]} == {own}
    assert "trust" not in stage["lab-2"], "it asks the gateway's registry for nothing"
    assert from_json(to_json(done), "plan.json") == done


def test_a_hosts_own_registry_has_that_image_alone_and_is_on_loopback_alone() -> None:
    done = planned(lab(1, 1, 1))
    order: Any = next(step for step in done.steps if step.kind == "registry" and "lab-2" in step.orders).orders["lab-2"]
    assert order["images"][0]["archive"] == "/images/onprem-llm_registry:1.tar"
    assert order["store"]["source"] == "/site/registry"
    assert order["store"]["links"] == {f"links/{sha(made.VLLM_IMAGE)}": digest(made.VLLM_IMAGE)}
    assert order["store"]["keep"] == [digest(made.VLLM_IMAGE)]
    assert "tls" not in order
    service = yaml.safe_load(done.files["lab-2"][PROJECT]["compose.yaml"])["services"]["registry"]
    assert service["ports"] == ["127.0.0.1:5000:5000"]
    assert service["labels"]["onprem-llm.serves"] == digest(made.VLLM_IMAGE)
    assert "tls" not in done.files["lab-2"][PROJECT]["config.yml"]


def test_the_plan_says_so_and_what_is_sent_from_here() -> None:
    done = planned(lab(1, 1, 1))
    why = {one.host: one.reasons for one in done.changes if one.subject == f"image {made.VLLM_IMAGE}"}
    gone = f"image {made.VLLM_IMAGE} is not there"
    assert why == {"lab-1": (gone,), "lab-2": (gone, "passed on from lab-1"), "lab-3": (gone, "passed on from lab-1")}
    assert ("lab-3", PROJECT, "create") in shown(done)
    weights, registry = made.weights("tiny").bytes, 2 * made.GIB
    assert done.send_bytes["lab-1"] == registry + 2 * BIG + 7 + weights
    assert done.send_bytes["lab-2"] == registry + weights, "the registry's own image, and no blob"


def test_a_second_deploy_has_no_step() -> None:
    after = deployed(lab(1, 1, 1))
    assert planned(after).is_noop
    assert planned(after, settings=site(fan_out="never")).is_noop
    assert planned(after, settings=site(fan_out="always")).is_noop


@pytest.mark.parametrize(
    ("replicas", "size", "setting", "chained"),
    [
        (3, BIG, "auto", True),
        (2, BIG, "auto", False),  # one receiver
        (2, BIG, "always", True),
        (3, 5_000_000, "auto", False),
        (3, 5_000_000, "always", True),
        (3, BIG, "never", False),
        (1, BIG, "always", False),  # the gateway's host alone
    ],
)
def test_where_it_is_worth_it(replicas: int, size: int, setting: str, chained: bool) -> None:
    content = store(made.VLLM_IMAGE, made.GATEWAY_IMAGE, size=size)
    done = planned(lab(1, 1, 1), model(f"replicas: {replicas}\n"), settings=site(fan_out=setting), content=content)
    assert (chain_of(done) is not None) == chained
    addresses = {name.partition("/")[0] for name in names(done).values()}
    assert addresses == ({ADDRESS, LOOPBACK} if chained else {ADDRESS})


def test_an_image_that_the_registry_does_not_have_is_pulled_as_before() -> None:
    done = planned(lab(1, 1, 1), content=store(made.GATEWAY_IMAGE))
    assert chain_of(done) is None
    assert {name.partition("/")[0] for name in names(done).values()} == {ADDRESS}


def test_hosts_without_an_address_each_pull_from_the_gateway() -> None:
    facts = lab(1, 1, 1)
    for name in ("lab-2", "lab-3"):
        facts[name]["addresses"], facts[name]["default_address"] = ["10.0.0.9"], "10.0.0.9"
    assert chain_of(planned(facts)) is None


def test_without_the_registrys_archive_hosts_pull_from_the_gateway_unless_the_site_insists() -> None:
    facts = lab(1, 1, 1)
    facts["lab-1"]["images"].append({"id": made.image_id(REGISTRY_IMAGE), "tags": [REGISTRY_IMAGE], "digests": []})
    ask = replace(wanted(facts), registry_image=ImageSource(REGISTRY_IMAGE))
    assert chain_of(plan(site(), ask, parse_current(facts))) is None
    with pytest.raises(InvalidError, match="image onprem-llm/registry:1 is not on lab-2") as refused:
        plan(site(fan_out="always"), ask, parse_current(facts))
    assert "onprem_llm_site.fan_out: auto" in str(refused.value.hint)


def test_a_gateway_host_without_the_registrys_image_is_refused_and_no_setting_would_help() -> None:
    facts = lab(1, 1, 1)
    ask = replace(wanted(facts), registry_image=ImageSource(REGISTRY_IMAGE))
    for setting in ("auto", "always"):
        with pytest.raises(InvalidError, match="image onprem-llm/registry:1 is not on lab-1") as refused:
            plan(site(fan_out=setting), ask, parse_current(facts))
        assert "fan_out" not in str(refused.value.hint)


def test_the_chain_takes_a_port_that_is_free_on_all() -> None:
    facts = lab(1, 1, 1)
    facts["lab-3"]["listeners"].append(listener(PORTS[0]))
    step = chain_of(planned(facts))
    assert step is not None
    chain: Any = step.orders["lab-2"]["chain"]
    assert chain["port"] == PORTS[1]


def test_the_book_has_an_address_that_all_hosts_know() -> None:
    facts = lab(1, 1, 1)
    text = THREE.replace("gpu_models: [H100]", "gpu_models: [H100], hosts: [lab-2, lab-3]").replace("3\n", "2\n")
    after = deployed(facts, text)
    assert after["lab-1"]["book"]["deployments"]["tiny"]["images"] == {
        made.VLLM_IMAGE: f"{ADDRESS}/{path(made.VLLM_IMAGE)}"
    }
    assert planned(after, text).is_noop


@pytest.mark.parametrize("verb", ["scale", "restart", "rollback"])
def test_other_verbs_make_no_new_revision_of_the_same_image(verb: str) -> None:
    after = deployed(lab(1, 1, 1))
    item = again(after, replicas=2) if verb == "scale" else again(after)
    done = planned(after, item=item, verb=verb, restart=verb == "restart")
    kept = {one.subject: one.reasons for one in done.changes if one.subject in {"tiny-0", "tiny-1"}}
    if verb == "restart":
        assert set(kept.values()) == {("asked for",)}
    else:
        assert set(kept.values()) == {()}
    assert done.revision == (2 if verb == "scale" else 1)
    assert not any("image" in reason and "another" in reason for one in done.changes for reason in one.reasons)


def test_a_host_that_comes_later_gets_it_along_the_chain_too() -> None:
    """Since others have had it that way: also what a host lacks that died in the middle."""
    after = deployed(lab(1, 1, 1, 1))
    done = planned(after, THREE.replace("replicas: 3", "replicas: 4"))
    step = chain_of(done)
    assert step is not None
    assert step.hosts == ("lab-1", "lab-4")
    assert steps(registries(done)) == [("registry", ("lab-4",))]
    assert names(done)["lab-4"].startswith(f"{LOOPBACK}/")


def test_an_image_that_is_gone_comes_back_from_the_hosts_own_registry() -> None:
    after = deployed(lab(1, 1, 1))
    lose_image(after, "lab-2")
    done = planned(after)
    assert chain_of(done) is None
    assert steps(done)[:2] == [("registry", ("lab-2",)), ("stage", ("lab-2",))]
    stage: Any = done.steps[1].orders["lab-2"]
    assert [image["pull"] for image in stage["images"]] == [f"{LOOPBACK}/{path(made.VLLM_IMAGE)}"]
    assert {one.subject for one in done.changes if one.host == "lab-3" and one.action != "keep"} == set()


def test_a_deploy_that_was_cut_off_goes_on_without_a_chain() -> None:
    facts = lab(1, 1, 1)
    done = planned(facts)
    after = made.cut_off(done, facts, "Fill and start the hosts' own registries")
    second = planned(after)
    assert chain_of(second) is None
    assert names(second) == names(done)


def test_an_edited_plan_writes_nothing_beside_the_registries() -> None:
    for place, value, said in (
        (("blobs", "path"), "/etc", "registry/data"),
        (("blobs", "path"), "/srv/../etc/registry/data", "registry/data"),
        (("blobs", "files", 0, "path"), "../../etc/cron.d/x", "without .."),
    ):
        edited = json.loads(to_json(planned(lab(1, 1, 1))))
        at: Any = next(step["orders"] for step in edited["steps"] if step["kind"] == "fan_out")["lab-2"]
        for key in place[:-1]:
            at = at[key]
        at[place[-1]] = value
        with pytest.raises(InvalidError, match=rf"plan\.json: .*{said}"):
            from_json(json.dumps(edited), "plan.json")
