"""Hosts out of rotation and back, and hosts that leave."""

from dataclasses import replace

import pytest
import recorded_facts as made
from planning_lab import Hosts, deploy, lab, mark, model, there
from recorded_facts import Facts

from onprem_llm.errors import InvalidError, UnreachableError
from onprem_llm.hosts import Current
from onprem_llm.planning.host_checks import check_removable, check_replacement, leftovers
from onprem_llm.planning.hosts_change import (
    leaving_text,
    marked,
    plan_drain,
    plan_mark,
    plan_page_image,
    plan_undrain,
    recorded_on,
)
from onprem_llm.planning.no_room import NoRoomError
from onprem_llm.planning.plan import plan
from onprem_llm.planning.types import Plan, Wanted, WantedDeployment
from onprem_llm.spec.deployment import parse_deployment
from onprem_llm.spec.site import Site


def as_is(current: Current) -> Wanted:
    items = [WantedDeployment(parse_deployment(entry.model_yaml, name)) for name, entry in current.book.items()]
    return Wanted(tuple(items), verb="host", gateway_image=made.archive(made.GATEWAY_IMAGE))


def rotation(facts: Hosts, host: str, *, back: bool = False) -> Plan:
    current = made.current(facts)
    gateway = current.gateway
    assert gateway is not None
    make = plan_undrain if back else plan_drain
    return make(Site(), as_is(current), current, gateway, host)


def moved(facts: Hosts, unreachable: tuple[str, ...] = (), **changes: object) -> Plan:
    item = replace(made.again(facts, "tiny", made.archive(made.VLLM_IMAGE)), **changes)  # type: ignore[arg-type]
    return made.planned(facts, item, verb="move", unreachable=unreachable)


@pytest.fixture
def two() -> Hosts:
    return deploy(lab(2, 2), model("replicas: 2\n"))


def test_a_drained_host_ends_its_requests_before_the_gateway_leaves_it_out(two: Hosts) -> None:
    drained = rotation(two, "lab-2")
    assert [step.kind for step in drained.steps] == ["route", "gateway", "marks"]
    assert drained.steps[0].orders["lab-1"]["drain"] == ["tiny/tiny-1"]
    assert [made.in_rotation(facts, "tiny") for _, facts in made.moments(drained, two)][-3:] == [{"tiny-0"}] * 3
    after = made.applied(drained, two)
    assert there(after) == {"tiny-0": "lab-1", "tiny-1": "lab-2"}
    assert rotation(after, "lab-2").is_noop


def test_a_drain_that_fails_puts_the_host_back(two: Hosts) -> None:
    drained = rotation(two, "lab-2")
    for step in drained.steps:
        assert made.in_rotation(made.failed_at(drained, two, step.title), "tiny") >= {"tiny-0"}
    assert made.in_rotation(made.failed_at(drained, two, drained.steps[0].title), "tiny") == {"tiny-0", "tiny-1"}
    assert made.in_rotation(made.failed_at(drained, two, drained.steps[1].title), "tiny") == {"tiny-0", "tiny-1"}


def test_the_last_replica_in_rotation_is_warned_of(two: Hosts) -> None:
    assert not rotation(two, "lab-2").warnings
    after = made.applied(rotation(two, "lab-2"), two)
    (warning,) = rotation(after, "lab-1").warnings
    assert "tiny is left without any replica" in warning


def test_an_update_changes_a_drained_host_without_a_word_to_the_gateway_about_it(two: Hosts) -> None:
    facts = made.applied(rotation(two, "lab-2"), two)
    text = model("replicas: 2\nupdate: {max_surge: 0}\n").replace("8192", "1024")
    update = made.planned(facts, made.deployment(text))
    routes = [order for step in update.steps if step.kind == "route" for order in step.orders.values()]
    assert routes
    assert all("tiny/tiny-1" not in (*order["drain"], *order["ready"]) for order in routes)
    after = made.applied(update, facts)
    assert made.in_rotation(after, "tiny") == {"tiny-0"}
    back = made.applied(rotation(after, "lab-2", back=True), after)
    assert made.in_rotation(back, "tiny") == {"tiny-0", "tiny-1"}
    assert made.planned(back, made.again(back, "tiny")).is_noop


def test_undrain_of_a_host_that_nothing_is_said_of_does_nothing(two: Hosts) -> None:
    assert rotation(two, "lab-2", back=True).is_noop


def starting(facts: Hosts, project: str) -> Facts:
    """Return the container of a replica that loads its weights."""
    container: Facts = facts[there(facts)[project]]["projects"][project]["containers"][0]
    container.update(health="starting")
    return container


def test_a_host_that_is_let_in_while_its_engine_loads_is_in_rotation_once_it_answers(two: Hosts) -> None:
    facts = made.applied(rotation(two, "lab-2"), two)
    container = starting(facts, "tiny-1")  # it was rebooted meanwhile
    back = rotation(facts, "lab-2", back=True)
    assert [step.kind for step in back.steps] == ["gateway", "marks"]
    (warning,) = back.warnings
    assert "tiny/tiny-1 on lab-2 is not up: it gets requests once it answers" in warning
    after = made.applied(back, facts)
    assert "tiny/tiny-1" in after["lab-1"]["gateway"]["servers"]
    starting(after, "tiny-1").update(health=container["health"])
    assert made.in_rotation(after, "tiny") == {"tiny-0", "tiny-1"}
    assert not rotation(facts, "lab-2", back=True).is_noop
    container.update(health="healthy")
    assert not rotation(facts, "lab-2", back=True).warnings


def test_a_host_that_is_drained_while_its_engine_starts_stays_out_once_it_answers(two: Hosts) -> None:
    starting(two, "tiny-1")
    drained = rotation(two, "lab-2")
    assert [step.kind for step in drained.steps] == ["gateway", "marks"]  # it has no requests that could end
    after = made.applied(drained, two)
    assert "tiny/tiny-1" not in after["lab-1"]["gateway"]["servers"]
    assert made.in_rotation(after, "tiny") == {"tiny-0"}


def test_what_a_command_drained_is_a_persons_once_a_person_drains_it(two: Hosts) -> None:
    current = made.current(two)
    assert current.gateway is not None
    drained = plan_drain(Site(), as_is(current), current, current.gateway, "lab-2", "driver upgrade")
    assert drained.steps[-1].orders["lab-1"]["purpose"] == "driver upgrade"
    facts = made.applied(drained, two)
    assert made.current(facts).marks["lab-2"].said == "it is drained (driver upgrade) by me@here"
    over = rotation(facts, "lab-2")
    assert [step.kind for step in over.steps] == ["marks"]
    assert "purpose" not in over.steps[0].orders["lab-1"]
    current = made.current(facts)
    assert current.gateway is not None
    assert plan_drain(Site(), as_is(current), current, current.gateway, "lab-2", "driver upgrade").is_noop
    assert current.digest() != made.current(mark(facts, "lab-2", "drained")).digest()


def test_a_drain_that_was_cut_off_is_taken_back_by_undrain(two: Hosts) -> None:
    assert rotation(two, "lab-2", back=True).is_noop
    two["lab-1"]["gateway"]["servers"]["tiny/tiny-1"]["admin"] = "drain"
    back = rotation(two, "lab-2", back=True)
    assert made.in_rotation(made.applied(back, two), "tiny") == {"tiny-0", "tiny-1"}


def test_a_host_that_was_drained_stays_out_while_it_is_removed() -> None:
    facts = deploy(lab(2, 2, 2), model("replicas: 2\n"))
    facts["lab-3"]["weights"], facts["lab-3"]["images"] = facts["lab-1"]["weights"], facts["lab-1"]["images"]
    facts = made.applied(rotation(facts, "lab-2"), facts)
    current = made.current(facts)
    assert current.gateway is not None
    told = plan_mark(Site(), current, current.gateway, "lab-2", "removed", "host remove", "lab-2")
    facts = made.applied(told, facts)
    assert made.current(facts).marks["lab-2"].was_drained
    assert made.current(facts).digest() == marked(current, "lab-2", "removed").digest()
    move = moved(facts)
    for _, then in made.moments(move, facts):
        at_lab_2 = [s for s in then["lab-1"]["gateway"]["servers"].values() if s["address"] == "10.0.0.3"]
        assert all(server["admin"] == "drain" for server in at_lab_2)
    after = made.applied(move, facts)
    assert "lab-2" not in there(after).values()
    assert len(made.in_rotation(after, "tiny")) == 2
    # Nor does another deployment's change let it in, while its replicas are still there.
    other = made.planned(facts, made.deployment(model(name="other", port=8100)))
    assert made.in_rotation(made.applied(other, facts), "tiny") == {"tiny-0"}


def test_a_host_that_is_removed_cannot_be_drained(two: Hosts) -> None:
    with pytest.raises(InvalidError, match="lab-2 is removed"):
        rotation(mark(two, "lab-2", "removed"), "lab-2")


def test_a_gateway_host_that_was_lost_is_not_taken_for_the_gateway_when_it_is_back(two: Hosts) -> None:
    two["lab-2"]["book"] = {**two["lab-1"]["book"], "gateway": True, "deployments": {}, "hosts": {}}
    assert len(made.current(two).recorded_gateways) == 2
    two["lab-1"]["book"]["hosts"] = {"lab-2": {"state": "lost", "by": None, "at": None}}
    for facts in (two, dict(reversed(two.items()))):
        current = made.current(facts)
        assert current.gateway is not None
        assert current.gateway.name == "lab-1"
        assert leftovers(current, "lab-2") == ["book"]
    with pytest.raises(InvalidError, match="given as the gateway host"):
        rotation(two, "lab-2", back=True)


def test_a_host_without_replicas_is_only_marked() -> None:
    facts = deploy(lab(2, 2), model())
    drained = rotation(facts, "lab-2")
    assert [step.kind for step in drained.steps] == ["marks"]


def test_a_removed_host_serves_until_its_replicas_are_elsewhere() -> None:
    facts = deploy(lab(2, 2, 2), model("replicas: 2\n"))
    host = there(facts)["tiny-1"]
    assert host == "lab-2"
    facts["lab-3"]["weights"] = facts["lab-1"]["weights"]
    facts = mark(facts, host, "removed")
    # Another deployment's change takes nothing away from it.
    told = made.planned(facts, made.deployment(model(name="other", port=8100)))
    assert made.in_rotation(made.applied(told, facts), "tiny") == {"tiny-0", "tiny-1"}
    serving = [len(made.in_rotation(state, "tiny")) for _, state in made.moments(moved(facts), facts)]
    assert min(serving) >= 2
    after = made.applied(moved(facts), facts)
    assert host not in there(after).values()
    assert len(made.in_rotation(after, "tiny")) == 2


def test_a_lost_host_that_comes_back_has_nothing_to_say(two: Hosts) -> None:
    facts = made.applied(moved(mark(two, "lab-2", "lost"), ("lab-2",)), two)
    facts["lab-1"]["book"]["hosts"] = {"lab-2": {"state": "lost", "by": None, "at": None}}
    assert recorded_on(made.current(facts), "lab-2") == {}
    cleaned = made.planned(facts, made.again(facts, "tiny"))
    assert ("lab-2", "remove") in [(change.host, change.action) for change in cleaned.changes]
    assert "lab-2" not in there(made.applied(cleaned, facts)).values()


def test_replicas_go_to_the_host_that_takes_the_others_place() -> None:
    facts = deploy(lab(2, 2, 2, 4), model("replicas: 2\n"))
    assert there(facts) == {"tiny-0": "lab-1", "tiny-1": "lab-2"}
    for state in facts.values():
        state["weights"] = facts["lab-1"]["weights"]
    facts = mark(facts, "lab-2", "removed")
    assert set(there(made.applied(moved(facts), facts)).values()) == {"lab-1", "lab-3"}
    assert set(there(made.applied(moved(facts, only=("lab-4",)), facts)).values()) == {"lab-1", "lab-4"}
    with pytest.raises(NoRoomError, match="no host can carry"):
        moved(facts, only=("nowhere",))


@pytest.mark.parametrize(
    ("host", "lost", "silent", "kind", "said"),
    [
        ("lab-1", False, (), InvalidError, "is the gateway host"),
        ("lab-2", True, (), InvalidError, "answers, so it is not lost"),
        ("lab-2", False, ("lab-2",), UnreachableError, "did not answer"),
        ("lab-9", False, (), InvalidError, "lab-1, lab-2"),
    ],
)
def test_hosts_that_cannot_be_removed(
    two: Hosts, host: str, lost: bool, silent: tuple[str, ...], kind: type[Exception], said: str
) -> None:
    with pytest.raises(kind, match=said):
        check_removable(made.current(two, silent), host, lost=lost)


def test_a_silent_host_can_be_declared_lost(two: Hosts) -> None:
    check_removable(made.current(two, ("lab-2",)), "lab-2", lost=True)


def test_a_replacement_must_be_prepared_and_free(two: Hosts) -> None:
    current = made.current(two)
    with pytest.raises(InvalidError, match="its own place"):
        check_replacement(current, "lab-2", "lab-2")
    with pytest.raises(InvalidError, match="is drained"):
        check_replacement(marked(current, "lab-1", "drained"), "lab-2", "lab-1")
    two["lab-1"]["engine"]["running"] = False
    with pytest.raises(InvalidError, match="is not prepared"):
        check_replacement(made.current(two), "lab-2", "lab-1")


def test_marks_are_part_of_what_a_plan_is_based_on(two: Hosts) -> None:
    current = made.current(two)
    assert marked(current, "lab-2", "drained").digest() != current.digest()
    assert marked(marked(current, "lab-2", "drained"), "lab-2", None).digest() == current.digest()
    gateway = current.gateway
    assert gateway is not None
    first = plan_mark(Site(), current, gateway, "lab-2", "lost", "host remove", "lab-2")
    assert first.steps[0].orders["lab-1"]["marks"] == {"lab-2": "lost"}
    again = marked(current, "lab-2", "lost")
    assert plan_mark(Site(), again, gateway, "lab-2", "lost", "host remove", "lab-2").is_noop
    assert leaving_text([]) == []
    assert plan(Site(), made.wanted(two, made.again(two, "tiny")), current).is_noop


def test_the_pages_image_is_brought_to_the_next_gateway_host_while_the_page_serves(two: Hosts) -> None:
    current = made.current(two)
    wanted = replace(as_is(current), ui_image=made.archive(made.UI_IMAGE))
    assert current.gateway is not None
    result = plan_page_image(made.Site(), wanted, current, current.gateway, "lab-2")
    (step,) = result.steps
    assert (step.kind, list(step.orders)) == ("stage", ["lab-2"])
    assert [image["ref"] for image in step.orders["lab-2"]["images"]] == [made.UI_IMAGE]
    after = made.current(made.applied(result, two))
    assert after.gateway is not None
    assert plan_page_image(made.Site(), wanted, after, after.gateway, "lab-2").is_noop
    two["lab-1"]["projects"].pop("open-webui")
    nobody = made.current(two)
    assert nobody.gateway is not None
    assert plan_page_image(made.Site(), wanted, nobody, nobody.gateway, "lab-2").is_noop
