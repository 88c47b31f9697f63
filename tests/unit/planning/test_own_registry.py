"""The site's own registry: planned before anything is pulled from it, left alone where it is as it should be."""

import hashlib
import json
import re
from dataclasses import replace
from typing import Any

import pytest
import recorded_facts as made
from own_registry import ADDRESS, BLOB, OWN, REGISTRY_IMAGE, SITE, digest, of_kind, planned, store, wanted
from planning_lab import lab, model

from onprem_llm.errors import InvalidError
from onprem_llm.planning.plan import plan
from onprem_llm.planning.serial import from_json, to_json
from onprem_llm.planning.types import ImageSource, Plan, Wanted
from onprem_llm.probe import parse_current
from onprem_llm.rendering.registry import PROJECT
from onprem_llm.spec.site import parse_site


def test_it_is_filled_and_started_before_anything_is_pulled() -> None:
    facts = lab(1, 1)
    done = planned(facts)

    assert [step.kind for step in done.steps[:2]] == ["registry", "stage"]
    assert done.steps[0].hosts == ("lab-1",)
    order: Any = done.steps[0].orders["lab-1"]
    assert order["images"][0]["archive"] == "/images/onprem-llm_registry:1.tar"
    blob = {"path": f"docker/registry/v2/blobs/sha256/{BLOB[:2]}/{BLOB}/data", "size": 5, "sha256": BLOB}
    assert order["store"] == {
        "path": "/srv/onprem-llm/registry/data",
        "source": "/site/registry",
        "files": [blob],
        "links": {"a/link": digest("x")},
    }
    assert {"lab-1", "10.0.0.2"} <= set(order["tls"]["names"])
    assert order["tls"]["file"] == "/srv/onprem-llm/registry/tls/registry.pem"
    assert [change.subject for change in done.changes][:1] == [PROJECT]
    # The weights too: lab-1 has the replica.
    assert done.send_bytes["lab-1"] == 2 * made.GIB + 5 + made.weights("tiny").bytes


def test_hosts_pull_by_digest_and_trust_it_by_the_sites_root() -> None:
    stage: Any = of_kind(planned(lab(1, 1)), "stage").orders
    for host, order in stage.items():
        assert order["trust"] == {"address": ADDRESS, "ca_host": "lab-1"}, host
        assert all(image["pull"].startswith(f"{ADDRESS}/docker.io/") for image in order["images"])
        assert all(image["archive"] is None for image in order["images"])


def test_once_it_runs_it_is_left_alone() -> None:
    facts = lab(1, 1)
    after = made.applied(planned(facts), facts)
    assert planned(after).is_noop


def test_other_images_are_sent_without_a_restart() -> None:
    facts = lab(1, 1)
    after = made.applied(planned(facts), facts)
    done = planned(after, content=store(made.VLLM_IMAGE, made.GATEWAY_IMAGE, "redis:7"))
    order: Any = of_kind(done, "registry").orders["lab-1"]
    assert not order["projects"][0]["recreate"]
    compose = done.files["lab-1"][PROJECT]["compose.yaml"]
    assert hashlib.sha256(compose.encode()).hexdigest() == after["lab-1"]["projects"][PROJECT]["files"]["compose.yaml"]
    assert [step.kind for step in done.steps] == ["registry"]


def why(done: Plan) -> tuple[str, ...]:
    return next(one.reasons for one in done.changes if one.subject == PROJECT and one.host == "lab-1")


@pytest.mark.parametrize("moved", [True, False], ids=["a tag moved", "one more"])
def test_another_bundle_is_not_taken_for_a_file_that_somebody_edited(moved: bool) -> None:
    facts = lab(1, 1)
    after = made.applied(planned(facts), facts)
    content = store(made.VLLM_IMAGE, made.GATEWAY_IMAGE)
    images = {made.GATEWAY_IMAGE: digest("another")} if moved else {"redis:7": digest("redis:7")}
    done = planned(after, content=replace(content, images={**content.images, **images}))
    (reason,) = why(done)
    assert "onprem_llm_site.registry_dir has other images than it serves" in reason
    assert "edited" not in reason


def test_a_configuration_of_it_that_somebody_edited_is_said_to_be() -> None:
    facts = lab(1, 1)
    after = made.applied(planned(facts), facts)
    after["lab-1"]["projects"][PROJECT]["files"]["config.yml"] = "0" * 64
    done = planned(after)
    assert why(done) == ("config.yml was edited on the host",)
    order: Any = of_kind(done, "registry").orders["lab-1"]
    assert order["projects"][0]["recreate"], "compose.yaml is the same, and it runs on with what it read"


def test_a_certificate_that_ends_is_renewed_with_a_restart() -> None:
    facts = lab(1, 1)
    after = made.applied(planned(facts), facts)
    after["lab-1"]["certificates"]["registry"]["not_after"] = made.STARTED
    after["lab-1"]["host"]["now"] = made.STARTED
    order: Any = of_kind(planned(after), "registry").orders["lab-1"]
    assert order["projects"][0]["recreate"]


def test_one_that_started_before_its_certificate_was_renewed_starts_anew() -> None:
    """A run was killed between the two. More images at once are no reason to leave its container as it is."""
    facts = lab(1, 1)
    after = made.applied(planned(facts), facts)
    after["lab-1"]["certificates"]["registry"]["written"] = made.STARTED - 1
    assert planned(after).is_noop
    after["lab-1"]["certificates"]["registry"]["written"] = made.STARTED + 1
    done = planned(after)
    assert [(one.action, one.reasons) for one in done.changes if one.subject == PROJECT] == [
        ("restart", ("it started before its certificate was renewed",))
    ]
    more = planned(after, content=store(made.VLLM_IMAGE, made.GATEWAY_IMAGE, "redis:7"))
    for one in (done, more):
        order: Any = of_kind(one, "registry").orders["lab-1"]
        assert order["projects"][0]["recreate"]


def test_a_registry_that_moved_restarts_no_replica() -> None:
    facts = lab(1, 1)
    after = made.applied(planned(facts), facts)
    after["lab-2"]["book"] = after["lab-1"]["book"]
    after["lab-1"]["book"] = None
    after["lab-1"]["projects"].pop("gateway")
    after["lab-2"]["keys"] |= after["lab-1"]["keys"]
    done = planned(after, address="10.0.0.3:5000")
    assert [step.hosts for step in done.steps if step.kind == "registry"] == [("lab-2",)]
    replicas = {(change.action, change.reasons) for change in done.changes if change.subject.startswith("tiny")}
    assert replicas == {("keep", ())}
    assert done.steps[-1].kind in {"remove", "book_copy"}
    former: Any = next(step.orders for step in done.steps if step.title == "Remove the former registry")
    assert former["lab-1"]["projects"] == [{"name": PROJECT, "path": "/srv/onprem-llm/registry", "purge": True}]


def test_a_setting_that_is_left_out_takes_it_away_last() -> None:
    facts = lab(1, 1)
    after = made.applied(planned(facts), facts)
    site = parse_site({"open_webui": {"enabled": False}}, "test")
    text = model().replace("8192", "1024")  # the replica is replaced too
    without = replace(
        made.wanted(after, made.deployment(text, image=made.archive(made.VLLM_IMAGE))),
        ui_image=None,
        gateway_image=made.archive(made.GATEWAY_IMAGE),
    )
    done = plan(site, without, parse_current(after))
    last = next(step for step in reversed(done.steps) if step.kind != "book_copy")
    assert (last.kind, last.title) == ("remove", "Remove the former registry")
    assert last.orders["lab-1"]["projects"] == [{"name": PROJECT, "path": OWN, "purge": True}]
    assert [(one.host, one.action) for one in done.changes if one.subject == PROJECT] == [("lab-1", "remove")]
    gone = made.applied(done, after)
    assert PROJECT not in gone["lab-1"]["projects"]
    assert plan(site, replace(without, registry=None), parse_current(gone)).is_noop


@pytest.mark.parametrize(
    ("purge", "set_still", "data_goes"), [(False, True, False), (True, True, True), (False, False, True)]
)
def test_it_goes_with_the_last_deployment(purge: bool, set_still: bool, data_goes: bool) -> None:
    facts = lab(1, 1)
    after = made.applied(planned(facts), facts)
    site = SITE if set_still else parse_site({"open_webui": {"enabled": False}}, "test")
    ask = Wanted((), remove="tiny", purge=purge, registry=store() if set_still else None)
    done = plan(site, ask, parse_current(after))
    entries: Any = of_kind(done, "remove").orders["lab-1"]["projects"]
    assert {"name": PROJECT, "path": OWN, "purge": data_goes} in entries
    assert ("lab-1", PROJECT, "remove") in [(one.host, one.subject, one.action) for one in done.changes]
    assert PROJECT not in made.applied(done, after)["lab-1"]["projects"]


def test_its_port_is_nobody_elses() -> None:
    facts = lab(1, 1)
    facts["lab-1"]["listeners"].append(
        {"address": "10.0.0.2", "port": 5000, "pid": 9, "process": "other", "container": None}
    )
    with pytest.raises(InvalidError, match="5000"):
        planned(facts)


def test_room_for_what_it_serves_is_looked_at() -> None:
    facts = lab(1, 1)
    with pytest.raises(InvalidError, match=r"not enough disk on lab-1: .* of the registry"):
        planned(facts, content=store(made.VLLM_IMAGE, size=901 * made.GIB))


def test_its_own_image_comes_as_an_archive() -> None:
    facts = lab(1, 1)
    ask = replace(wanted(facts), registry_image=ImageSource(REGISTRY_IMAGE))
    with pytest.raises(InvalidError, match="image onprem-llm/registry:1 is not on lab-1") as refused:
        plan(SITE, ask, parse_current(facts))
    assert "images_dir" in str(refused.value.hint)


def test_an_ipv6_address_cannot_be_in_an_images_name() -> None:
    facts = lab(1, 1)
    facts["lab-1"] |= {"addresses": ["fd00::1"], "default_address": "fd00::1"}
    with pytest.raises(InvalidError, match="IPv6"):
        planned(facts)


def test_images_come_from_one_place() -> None:
    with pytest.raises(InvalidError) as refused:
        parse_site({"registry_dir": "registry", "registry": {"address": "registry.local:5000"}}, "test")
    assert "registry_dir and registry" in str(refused.value.details)


@pytest.mark.parametrize(
    ("kind", "place", "value", "said"),
    [
        ("stage", ("trust", "address"), "../../cron.d/x", "plain name"),
        ("stage", ("trust", "ca_host"), "../lab-2", "plain name"),
        ("registry", ("tls", "ca_host"), "../lab-2", "plain name"),
        ("registry", ("tls", "file"), "/etc/passwd", f"below {OWN}"),
        ("registry", ("tls", "file"), f"{OWN}/../../../etc/passwd", f"below {OWN}"),
        ("registry", ("tls", "file"), OWN, f"below {OWN}"),
        ("registry", ("store", "path"), "/etc", f"below {OWN}"),
        ("registry", ("store", "path"), f"{OWN}-2/data", f"below {OWN}"),
        ("registry", ("store", "files", 0, "path"), "../../../etc/cron.d/x", "without .."),
        ("registry", ("store", "links"), {"/etc/cron.d/x": "sha256:0"}, "without .."),
        ("registry", ("projects", 0, "path"), "/etc", "/registry"),
        ("registry", ("projects", 0, "path"), "srv/registry", "/registry"),
        ("registry", ("projects", 0, "path"), "/srv/../etc/registry", "/registry"),
        ("registry", ("projects",), [], "one project named registry"),
    ],
)
def test_an_edited_plan_writes_nothing_beside_it(
    kind: str, place: tuple[str | int, ...], value: object, said: str
) -> None:
    done = planned(lab(1, 1))
    assert from_json(to_json(done), "plan.json") == done
    edited = json.loads(to_json(done))
    at = next(iter(next(step["orders"] for step in edited["steps"] if step["kind"] == kind).values()))
    for key in place[:-1]:
        at = at[key]
    at[place[-1]] = value
    with pytest.raises(InvalidError, match=r"plan\.json: .*steps.*" + re.escape(said)):
        from_json(json.dumps(edited), "plan.json")
