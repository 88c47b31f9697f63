"""Replicas on hosts that are silent, drained or lost."""

import copy

import recorded_facts as made
from planning_lab import conf, deploy, lab, label, mark, model, there

from onprem_llm.planning.plan import plan


def test_a_silent_replica_stays_at_the_gateway_and_another_can_be_added() -> None:
    facts = deploy(lab(2, 2), model("replicas: 2\n"))
    same = made.planned(facts, made.deployment(model("replicas: 2\n")), unreachable=["lab-2"])
    assert same.is_noop
    assert "server tiny-1 10.0.0.3:8000 " in conf(same)
    grown = made.planned(facts, made.again(facts, "tiny", replicas=3), verb="scale", unreachable=["lab-2"])
    after = made.applied(grown, facts)
    assert there(after) == {"tiny-0": "lab-1", "tiny-1": "lab-2", "tiny-2": "lab-1"}
    assert made.in_rotation(after, "tiny") == {"tiny-0", "tiny-1", "tiny-2"}
    assert made.planned(after, made.again(after, "tiny")).is_noop


def test_a_host_that_was_off_during_an_update_never_brings_its_old_revision_back() -> None:
    text = model("replicas: 2\nupdate: {max_surge: 0}\n")
    facts = deploy(deploy(lab(2, 2), text), model(name="other", port=8100))
    text = text.replace("8192", "1024")
    updated = made.planned(facts, made.deployment(text), unreachable=["lab-2"])
    facts = made.applied(updated, facts)
    assert label(facts, "tiny-1", "revision") == "1"
    assert ":r(2)" in conf(updated)
    assert made.in_rotation(facts, "tiny") == {"tiny-0"}
    # Nor does a change of another deployment, while the host is still off and once it is back.
    item = made.deployment(model("routing: session\n", name="other", port=8100))
    for away in (["lab-2"], []):
        told = made.planned(facts, item, unreachable=away)
        assert ":r(2)" in conf(told)
        assert made.in_rotation(made.applied(told, facts), "tiny") == {"tiny-0"}
    # The next deploy of its own brings it to the revision that is wanted.
    after = made.applied(made.planned(facts, made.deployment(text)), facts)
    assert made.in_rotation(after, "tiny") == {"tiny-0", "tiny-1"}
    assert label(after, "tiny-1", "revision") == "2"


def test_a_stranger_with_a_deployments_name_is_no_server() -> None:
    facts = deploy(lab(2, 2), model())
    facts["lab-2"]["projects"]["tiny-7"] = copy.deepcopy(facts["lab-1"]["projects"]["tiny-0"])
    told = made.planned(facts, made.deployment(model(name="other", port=8100)))
    assert "tiny-7" not in conf(told)
    own = made.planned(facts, made.deployment(model()))
    assert [(c.host, c.subject) for c in own.changes if c.action == "remove"] == [("lab-2", "tiny-7")]
    assert "tiny-7" not in conf(own)
    assert made.planned(made.applied(own, facts), made.deployment(model())).is_noop


def test_a_drained_hosts_replicas_stay_and_get_no_requests() -> None:
    text = model("replicas: 2\nupdate: {max_surge: 0}\n")
    facts = mark(deploy(lab(2, 2), text), "lab-2", "drained")
    plan = made.planned(facts, made.deployment(text))
    assert "tiny-1" not in conf(plan)
    after = made.applied(plan, facts)
    assert there(after) == {"tiny-0": "lab-1", "tiny-1": "lab-2"}
    assert made.in_rotation(after, "tiny") == {"tiny-0"}
    assert made.planned(after, made.deployment(text)).is_noop
    changed = made.planned(after, made.deployment(text.replace("8192", "1024")))
    assert not [step for step in changed.steps if step.kind == "route" and "tiny/tiny-1" in str(step.orders)]
    end = made.applied(changed, after)
    assert [label(end, f"tiny-{n}", "revision") for n in range(2)] == ["2", "2"]
    grown = made.planned(after, made.deployment(model("replicas: 3\n")))
    assert grown.passed_over == {"lab-2": "it is drained by me@here"}
    assert there(made.applied(grown, after))["tiny-2"] == "lab-1"


def test_a_lost_hosts_replicas_are_placed_anew_under_their_numbers() -> None:
    facts = mark(deploy(lab(2, 2), model("replicas: 2\n")), "lab-2", "lost")
    plan = made.planned(facts, made.deployment(model("replicas: 2\n")), unreachable=["lab-2"])
    assert {"tiny-0", "tiny-1"} <= set(plan.files["lab-1"])
    assert set(plan.steps[-2].orders["lab-1"]["states"]) == {"tiny/tiny-0", "tiny/tiny-1"}
    after = made.applied(plan, facts)
    assert made.in_rotation({"lab-1": after["lab-1"]}, "tiny") == {"tiny-0", "tiny-1"}
    assert made.planned(after, made.deployment(model("replicas: 2\n")), unreachable=["lab-2"]).is_noop
    # It comes back as it was: what stands there is cleared, and was never let in.
    back = made.planned(after, made.deployment(model("replicas: 2\n")))
    assert [(c.host, c.subject) for c in back.changes if c.action == "remove"] == [("lab-2", "tiny-1")]
    assert made.planned(made.applied(back, after), made.deployment(model("replicas: 2\n"))).is_noop


def test_a_lost_host_is_no_server_for_a_change_of_another_deployment() -> None:
    facts = deploy(lab(2, 2), model("replicas: 2\n"))
    facts = mark(deploy(facts, model(name="other", port=8100, resources=", hosts: [lab-1]")), "lab-2", "lost")
    item = made.deployment(model("routing: session\n", name="other", port=8100, resources=", hosts: [lab-1]"))
    assert "tiny-1" not in conf(made.planned(facts, item, unreachable=["lab-2"]))


def test_down_says_what_it_leaves_on_a_silent_host_and_takes_it_once_it_is_back() -> None:
    facts = deploy(deploy(lab(2, 2), model("replicas: 2\n")), model(name="other", port=8100))
    seen = {"lab-1": facts["lab-1"]}
    done = plan(made.Site(), made.without(seen, "tiny"), made.current(seen, ("lab-2",)))
    assert [warning.partition(",")[0] for warning in done.warnings] == ["tiny-1 is left running on lab-2"]
    after = made.applied(done, facts)
    assert made.in_rotation(after, "tiny") == set()
    rest = plan(made.Site(), made.without(after, "tiny"), made.current(after))
    assert not rest.warnings
    assert there(made.applied(rest, after)) == {}
