"""Another driver for a fleet: who has a turn and when, who is left out, and what forbids all of it."""

from dataclasses import replace

import pytest
import recorded_facts as made
from planning_lab import Hosts, deploy, lab, mark, model, stop

from onprem_llm.errors import InvalidError
from onprem_llm.hosts import Current
from onprem_llm.planning.driver_serving import PURPOSE, is_half_out, serving_on
from onprem_llm.planning.driver_upgrade import Seen, UpgradePlan, check_drained, check_reboots, plan_upgrade

OLD, NEW = "550.163.01", "580.95.05"
USED = ("the GPUs are in use by VLLM::Worker",)


def seen(host: str, **changes: object) -> Seen:
    one = Seen(host, gpus=2, loaded=OLD, installed=OLD, then=NEW, kind="open")
    return replace(one, **changes)  # type: ignore[arg-type]


def planned(facts: Hosts, *changed: Seen, version: str = "580") -> UpgradePlan:
    known = {one.host: one for one in changed}
    return plan_upgrade(version, [known.get(name, seen(name)) for name in facts], made.current(facts))


def order(plan: UpgradePlan) -> list[str]:
    return [turn.host for turn in plan.hosts]


def refused(facts: Hosts, *changed: Seen, version: str = "580") -> InvalidError:
    with pytest.raises(InvalidError) as error:
        planned(facts, *changed, version=version)
    assert "nothing was changed" in error.value.message
    assert "--limit" in str(error.value.hint)
    return error.value


@pytest.fixture
def three() -> Hosts:
    """Two replicas on two of three hosts; the first is the gateway."""
    return deploy(lab(1, 1, 1), model("replicas: 2\n"))


def test_the_canary_is_a_host_without_traffic(three: Hosts) -> None:
    plan = planned(three)
    assert order(plan) == ["lab-3", "lab-2", "lab-1"]
    assert plan.why_first == "nothing serves there"
    assert [turn.serves for turn in plan.hosts] == [(), ("tiny/tiny-1",), ("tiny/tiny-0",)]
    assert not any(turn.alone for turn in plan.hosts)


def test_a_drained_host_has_no_traffic() -> None:
    facts = mark(deploy(lab(1, 1), model("replicas: 2\n")), "lab-2", "drained")
    plan = planned(facts)
    assert (order(plan), plan.why_first) == (["lab-2", "lab-1"], "it is drained")
    assert plan.hosts[0].drained
    assert plan.hosts[1].alone == ("tiny",)  # the other replica gets no requests now


def test_where_all_serve_the_canary_is_one_whose_replicas_are_elsewhere_too() -> None:
    facts = deploy(deploy(lab(0, 2, 1), model("replicas: 2\n")), model(name="solo", port=8001))
    plan = planned(facts, seen("lab-1", gpus=0))
    assert order(plan) == ["lab-3", "lab-2"]
    assert plan.why_first == "every host serves; the other replicas carry tiny"
    assert plan.hosts[1].alone == ("solo",)
    assert plan.left_out == (("lab-1", "it has no NVIDIA GPU"),)


def test_what_serves_alone_is_said(three: Hosts) -> None:
    stop(three, "tiny-1")
    (solo,) = [turn for turn in planned(three).hosts if turn.alone]
    assert (solo.host, solo.alone) == ("lab-1", ("tiny",))
    assert serving_on(made.current(three), "lab-2") == ((), ())  # what does not serve misses nothing


def limited(facts: Hosts, *names: str) -> Current:
    whole = made.current(facts)
    out = tuple(name for name in facts if name not in names)
    hosts = tuple(host for host in whole.hosts if host.name in names)
    return replace(whole, hosts=hosts, unreachable=out, left_out=out)


def test_replicas_that_a_limit_leaves_out_count_as_the_gateway_sees_them(three: Hosts) -> None:
    only = limited(three, "lab-1")
    assert serving_on(only, "lab-1") == (("tiny/tiny-0",), ())
    assert not plan_upgrade("580", [seen("lab-1")], only).hosts[0].alone
    three["lab-1"]["gateway"]["servers"]["tiny/tiny-1"]["up"] = False
    assert serving_on(limited(three, "lab-1"), "lab-1") == (("tiny/tiny-0",), ("tiny",))
    three["lab-1"]["gateway"]["servers"]["tiny/tiny-1"].update(up=True, admin="drain")
    assert serving_on(limited(three, "lab-1"), "lab-1") == (("tiny/tiny-0",), ("tiny",))


def test_a_drained_host_that_has_no_turn_is_not_forgotten(three: Hosts) -> None:
    there = seen("lab-2", loaded=NEW, installed=NEW, done=True)
    plan = planned(mark(three, "lab-2", "drained"), there)
    assert (plan.drained, plan.there) == (("lab-2",), ("lab-2",))
    assert [(turn.host, turn.alone, turn.beside) for turn in plan.hosts] == [
        ("lab-3", (), ()),
        ("lab-1", ("tiny",), ("lab-2",)),
    ]
    with pytest.raises(InvalidError) as refused:
        check_drained(plan)
    assert (
        refused.value.message == "lab-2 is drained, and tiny would have no replica in lab-1's turn; nothing was changed"
    )
    assert "onprem-llm host undrain lab-2" in str(refused.value.hint)
    # Nor where a limit leaves it out.
    only = plan_upgrade("580", [seen("lab-1")], limited(three, "lab-1"))
    assert (only.drained, only.hosts[0].beside) == (("lab-2",), ("lab-2",))
    check_drained(planned(mark(three, "lab-3", "drained"), there))  # nothing is there that is missed


def test_a_drained_host_whose_turn_comes_first_may_be_let_in_by_then(three: Hosts) -> None:
    plan = planned(mark(three, "lab-2", "drained"), seen("lab-2", loaded=None, installed=NEW))
    assert (order(plan), plan.drained) == (["lab-2", "lab-3", "lab-1"], ("lab-2",))
    assert plan.hosts[2].beside == ("lab-2",)
    check_drained(plan)


def test_what_an_upgrade_left_drained_is_first_and_counts_for_the_turns_after_it(three: Hosts) -> None:
    plan = planned(mark(three, "lab-2", "drained", PURPOSE))
    assert order(plan) == ["lab-2", "lab-3", "lab-1"]
    assert (plan.why_first, plan.left) == ("an earlier run left it drained", ("lab-2",))
    assert [(turn.left, turn.alone, turn.beside) for turn in plan.hosts] == [
        (True, (), ()),
        (False, (), ()),
        (False, (), ()),
    ]
    check_drained(plan)
    # A gateway host, too, which would be last.
    assert order(planned(mark(three, "lab-1", "drained", PURPOSE)))[0] == "lab-1"
    # What a person has drained is nobody else's.
    by_hand = planned(mark(three, "lab-2", "drained"))
    assert (by_hand.left, by_hand.hosts[-1].beside) == ((), ("lab-2",))


def test_a_host_that_has_the_version_and_was_left_drained_has_a_turn_to_be_let_in(three: Hosts) -> None:
    there = [seen(host, loaded=NEW, installed=NEW, done=True) for host in three]
    plan = planned(mark(three, "lab-2", "drained", PURPOSE), *there)
    assert [(turn.host, turn.only_let_in) for turn in plan.hosts] == [("lab-2", True)]
    assert plan.there == ("lab-1", "lab-2", "lab-3")
    assert planned(mark(three, "lab-2", "drained"), *there).hosts == ()
    # Under a limit it has none, and whoever would be the last to serve has none either.
    only = limited(mark(three, "lab-2", "drained", PURPOSE), "lab-1")
    plan = plan_upgrade("580", [seen("lab-1")], only)
    assert (plan.left, plan.hosts[0].beside) == (("lab-2",), ("lab-2",))


def test_a_drain_that_was_cut_off_is_seen_at_the_gateway(three: Hosts) -> None:
    assert not is_half_out(made.current(three), "lab-2")
    three["lab-1"]["gateway"]["servers"]["tiny/tiny-1"]["admin"] = "drain"
    assert is_half_out(made.current(three), "lab-2")
    assert not is_half_out(made.current(mark(three, "lab-2", "drained")), "lab-2")


def test_gateways_come_last_even_where_nothing_serves_there() -> None:
    facts = lab(1, 1)
    assert order(planned(facts)) == ["lab-2", "lab-1"]
    assert planned(facts, seen("lab-2", gpus=0)).why_first == "no other host is left"


def test_an_earlier_runs_bad_host_is_first_again(three: Hosts) -> None:
    bad = seen("lab-1", loaded=None, installed=NEW)
    plan = planned(three, bad, seen("lab-3", loaded=NEW, installed=NEW, done=True))
    assert order(plan) == ["lab-1", "lab-2"]
    assert plan.why_first == f"driver {NEW} is there since an earlier run, and does not run"
    assert plan.there == ("lab-3",)


def test_all_there_is_nothing_to_do(three: Hosts) -> None:
    plan = planned(three, *(seen(host, loaded=NEW, installed=NEW, done=True) for host in three))
    assert (plan.hosts, plan.there, plan.why_first) == ((), ("lab-1", "lab-2", "lab-3"), "")


def test_who_has_no_driver_is_bootstraps(three: Hosts) -> None:
    plan = planned(three, seen("lab-3", loaded=None, installed=None, then=None))
    assert plan.left_out == (("lab-3", "it has no driver: bootstrap installs one"),)
    assert order(plan) == ["lab-2", "lab-1"]


def test_who_is_gone_is_left_out(three: Hosts) -> None:
    plan = planned(mark(three, "lab-3", "lost"))
    assert plan.left_out == (("lab-3", "the book says that it is lost"),)


SOURCES = "found driver 550 in Debian's sources, expected one for Hopper: branch 580 as was asked for"


def test_no_hosts_sources_have_it(three: Hosts) -> None:
    error = refused(three, *(seen(host, then=None, refused=SOURCES) for host in three))
    assert error.details == f"lab-1, lab-2, lab-3: {SOURCES}"
    assert error.exit_code == 3


def test_one_host_that_cannot_have_it_stops_all_before_anything_is_touched(three: Hosts) -> None:
    why = "found Volta, which driver 590 cannot run, expected a branch for them: 525 to 580"
    error = refused(three, seen("lab-2", then=None, refused=why), version="590")
    assert error.message.startswith("driver 590 cannot be brought to lab-2;")
    assert error.details == f"lab-2: {why}"


def test_an_image_in_use_that_would_not_run(three: Hosts) -> None:
    facts = deploy(lab(1, 1), model("replicas: 2\n").replace(made.VLLM_IMAGE, "vllm/vllm-openai:v0.20.2"))
    back = [seen(host, loaded=NEW, installed=NEW, then="570.86.15") for host in facts]
    error = refused(facts, *back, version="570")
    assert "driver 570.86.15 cannot run vllm/vllm-openai:v0.20.2 (CUDA 13.0, driver >= 580.65.06)" in str(error.details)
    assert "tiny-0 runs there" in str(error.details)
    # The same image where it is not: nobody minds.
    plan = planned(lab(1, 1), *back, version="570")
    assert plan.downgrades == ("lab-2", "lab-1")


def test_an_image_that_runs_on_an_older_driver_runs_on_a_newer_one(three: Hosts) -> None:
    for facts in three.values():
        facts["gpus"]["driver"] = OLD
    assert order(planned(three)) == ["lab-3", "lab-2", "lab-1"]


def test_a_downgrade_is_named(three: Hosts) -> None:
    plan = planned(three, seen("lab-2", loaded="590.44.01", installed="590.44.01"))
    assert plan.downgrades == ("lab-2",)
    assert seen("x", loaded="580.105.08", then="580.95.05").is_downgrade
    assert not seen("x", loaded="580.95.05", then="580.105.08").is_downgrade


def test_a_reboot_that_nobody_allows_stops_all_before_anything_is_touched(three: Hosts) -> None:
    plan = planned(three, seen("lab-2", reboot=USED))
    check_reboots(plan, allowed=True)
    check_reboots(planned(three), allowed=False)
    with pytest.raises(InvalidError) as error:
        check_reboots(plan, allowed=False)
    assert "lab-2" in error.value.message
    assert "nothing was changed" in error.value.message
    assert error.value.details == f"lab-2: {USED[0]}"
    assert "onprem_llm_site.reboot" in str(error.value.hint)


def test_what_a_host_returned() -> None:
    returned = {
        "driver_upgrade": {"gpus": 8, "names": "Hopper", "loaded": OLD, "installed": OLD, "then": NEW, "kind": "open",
                           "done": False, "refused": ""},
        "reboot": list(USED),
    }  # fmt: skip
    assert Seen.of("a", returned) == seen("a", gpus=8, reboot=USED)
    assert Seen.of("a", {"driver_upgrade": {"at_work": "process 7"}}).at_work == "process 7"
    assert Seen.of("a", {}) == Seen("a")
