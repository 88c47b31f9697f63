"""Changes of replicas: what clients have at each moment, and the way back from each."""

import pytest
import recorded_facts as made
from planning_lab import Hosts, changed, deploy, fewest, model, there
from recorded_facts import Facts

from onprem_llm.errors import InvalidError
from onprem_llm.planning.types import Plan

BEGINS = "Write that revision 2 begins"


def lab(hosts: int = 2, gpus: int = 2) -> Hosts:
    return {f"lab-{n}": made.host(f"lab-{n}", n, gpus=gpus, gateway=n == 1) for n in range(1, hosts + 1)}


def titles(plan: Plan) -> list[str]:
    return [step.title for step in plan.steps]


def at_each_moment(plan: Plan, facts: Hosts, name: str = "tiny") -> list[set[str]]:
    return [made.in_rotation(then, name) for _, then in made.moments(plan, facts)]


@pytest.mark.parametrize(
    ("replicas", "update", "waves", "least"),
    [
        (3, "", [["tiny-0"], ["tiny-1"], ["tiny-2"]], 2),
        (3, "update: {max_unavailable: 2}\n", [["tiny-0", "tiny-1"], ["tiny-2"]], 1),
        (4, "update: {max_unavailable: 2}\n", [["tiny-0", "tiny-1"], ["tiny-2", "tiny-3"]], 2),
        (4, "update: {max_unavailable: 9}\n", [["tiny-0", "tiny-1", "tiny-2", "tiny-3"]], 0),
    ],
)
def test_waves_take_away_no_more_than_they_may(replicas: int, update: str, waves: list[list[str]], least: int) -> None:
    text = model(f"replicas: {replicas}\n{update}")
    facts = deploy(lab(), text)
    plan = made.planned(facts, made.deployment(changed(text)))
    names = [", ".join(wave) for wave in waves]
    count = [f" ({n} of {len(waves)})" if len(waves) > 1 else "" for n in range(1, len(waves) + 1)]
    rolled = [
        title
        for name, many in zip(names, count, strict=True)
        for title in (f"Drain {name}", f"Replace {name}{many}", f"Return {name}")
    ]
    admit = "Let the gateway admit old and new replicas"
    assert titles(plan) == [BEGINS, admit, *rolled, "Tell the gateway", "Write the book"]
    assert fewest(plan, facts) == least
    assert bool([w for w in plan.warnings if "there will be a gap" in w]) is (least == 0)
    after = made.applied(plan, facts)
    assert made.planned(after, made.deployment(changed(text))).is_noop
    assert set(there(after)) == {f"tiny-{n}" for n in range(replicas)}


def test_a_surge_keeps_all_of_them_serving() -> None:
    text = model("replicas: 3\nupdate: {max_unavailable: 0, max_surge: 1}\n")
    facts = deploy(lab(), text)
    plan = made.planned(facts, made.deployment(changed(text)))
    assert titles(plan)[:3] == [BEGINS, "Start tiny", "Let the gateway admit old and new replicas"]
    assert titles(plan)[-4:] == [
        "Drain tiny-0",
        "Tell the gateway",
        "Write the book",
        "Remove what is not wanted any more",
    ]
    assert fewest(plan, facts) == 3
    after = made.applied(plan, facts)
    assert set(there(after)) == {"tiny-1", "tiny-2", "tiny-3"}
    assert made.planned(after, made.deployment(changed(text))).is_noop


def test_a_surge_and_one_away_replace_two_at_once() -> None:
    text = model("replicas: 3\nupdate: {max_unavailable: 1, max_surge: 1}\n")
    facts = deploy(lab(), text)
    plan = made.planned(facts, made.deployment(changed(text)))
    assert "Replace tiny-1, tiny-2" in titles(plan)
    assert fewest(plan, facts) == 2


def test_without_room_none_may_be_away_and_none_can_be_more() -> None:
    text = model("replicas: 4\nupdate: {max_unavailable: 0}\n")
    facts = deploy(lab(), text)
    with pytest.raises(InvalidError, match="max_unavailable of tiny is 0, and there is no room for a replica more"):
        made.planned(facts, made.deployment(changed(text)))
    assert made.planned(facts, made.deployment(text)).is_noop


def test_one_replica_with_room_beside_it_changes_without_a_gap() -> None:
    facts = deploy(lab(), model())
    plan = made.planned(facts, made.deployment(changed(model())))
    assert fewest(plan, facts) == 1
    assert not plan.warnings
    (leaving,) = [change for change in plan.changes if change.action == "remove"]
    assert leaving.subject == "tiny-0"
    assert leaving.reasons == ("a new one takes its place: engine args: max_model_len 8192 -> 1024",)
    after = made.applied(plan, facts)
    assert there(after) == {"tiny-1": "lab-1"}
    assert made.planned(after, made.deployment(changed(model()))).is_noop
    back = made.planned(after, made.deployment(model()))
    assert there(made.applied(back, after)) == {"tiny-0": "lab-1"}


def test_one_replica_with_room_gets_other_weights_without_a_gap() -> None:
    facts = deploy(lab(hosts=1), model())
    item = made.deployment(model(), made.weights("tiny", 6_000_000))
    plan = made.planned(facts, item)
    assert fewest(plan, facts) == 1
    assert made.planned(made.applied(plan, facts), item).is_noop


def test_a_spare_brings_nothing_to_a_host_that_had_nothing_of_it() -> None:
    facts = deploy(lab(gpus=1), model())
    plan = made.planned(facts, made.deployment(changed(model())))
    assert not plan.send_bytes
    assert [warning.partition(":")[0] for warning in plan.warnings] == ["there will be a gap"]


def test_one_replica_without_room_has_a_gap_and_it_is_said() -> None:
    facts = deploy(lab(hosts=1, gpus=1), model())
    plan = made.planned(facts, made.deployment(changed(model())))
    assert fewest(plan, facts) == 0
    assert "tiny has one replica, and no host with its weights has room" in plan.warnings[0]
    assert made.planned(made.applied(plan, facts), made.deployment(changed(model()))).is_noop


def test_one_replica_that_none_may_run_beside_has_a_gap_for_that_reason() -> None:
    rule = "update: {max_surge: 0}\n"
    facts = deploy(lab(hosts=1), model(rule))
    plan = made.planned(facts, made.deployment(changed(model(rule))))
    assert fewest(plan, facts) == 0
    assert "tiny has one replica, and update.max_surge is 0: no other one may run" in plan.warnings[0]


def test_one_of_two_that_stand_still_is_no_gap() -> None:
    facts = deploy(lab(), model("replicas: 2\n"))
    facts["lab-2"]["projects"]["tiny-1"]["containers"][0].update(state="exited", health=None)
    plan = made.planned(facts, made.deployment(changed(model("replicas: 2\n"))))
    # What serves nobody is started first, so that it stands in when the other one goes.
    assert titles(plan)[:2] == [BEGINS, "Start tiny"]
    assert [p["name"] for p in plan.steps[1].orders["lab-2"]["projects"]] == ["tiny-1"]
    assert not plan.warnings
    assert fewest(plan, facts) == 1
    assert made.in_rotation(made.applied(plan, facts), "tiny") == {"tiny-0", "tiny-1"}


def test_the_gateway_admits_both_revisions_in_between_and_one_after() -> None:
    text = model("replicas: 2\n")
    facts = deploy(lab(), text)
    plan = made.planned(facts, made.deployment(changed(text)))
    during, after = (plan.files["lab-1"][name]["conf/deployments/tiny.cfg"] for name in ("gateway.during", "gateway"))
    before = plan.files["lab-1"]["gateway.before"]["conf/deployments/tiny.cfg"]
    assert [text.count(":r(1)") for text in (before, during, after)] == [1, 0, 0]
    assert [text.count(":r(1|2)") for text in (before, during, after)] == [0, 1, 0]
    assert [text.count(":r(2)") for text in (before, during, after)] == [0, 0, 1]
    assert before == facts_of_gateway(facts)


def facts_of_gateway(facts: Hosts) -> str:
    """Return the configuration that a plan for what runs already would load."""
    return made.planned(facts, made.deployment(model("replicas: 2\n"))).files["lab-1"]["gateway"][
        "conf/deployments/tiny.cfg"
    ]


@pytest.mark.parametrize(
    "change",
    ["update: {max_unavailable: 2}\n", "port: 8050\n", "routing: session\n", "readiness: {path: /v1/models}\n"],
)
def test_any_change_ends_in_a_second_deploy_that_does_nothing(change: str) -> None:
    text = model("replicas: 3\n").replace("port: 8000\n", "") + ("" if "port" in change else "port: 8000\n")
    facts = deploy(lab(), text)
    plan = made.planned(facts, made.deployment(text + change))
    assert not plan.is_noop
    assert fewest(plan, facts) >= 2
    assert made.planned(made.applied(plan, facts), made.deployment(text + change)).is_noop


def test_another_request_of_readiness_is_asked_once_though_nothing_restarts() -> None:
    facts = deploy(lab(), model())
    plan = made.planned(facts, made.deployment(model("readiness: {path: /v1/models}\n")))
    (project,) = plan.steps[0].orders["lab-1"]["projects"]
    assert (project["readiness"]["method"], project["readiness"]["path"]) == ("GET", "/v1/models")
    assert [change.action for change in plan.changes if change.subject == "tiny-0"] == ["keep"]
    assert titles(plan) == ["Start tiny", "Write the book"]


def test_replicas_that_listen_elsewhere_are_told_to_the_gateway_wave_by_wave() -> None:
    facts = deploy(lab(), model("replicas: 2\n", port=8000))
    text = model("replicas: 2\n", port=9000)
    plan = made.planned(facts, made.deployment(text))
    assert titles(plan).count("Tell the gateway where they listen now") == 2
    assert fewest(plan, facts) == 1
    for title in titles(plan)[: titles(plan).index("Write the book")]:
        assert made.in_rotation(made.failed_at(plan, facts, title), "tiny") == {"tiny-0", "tiny-1"}
    assert made.planned(made.applied(plan, facts), made.deployment(text)).is_noop


def test_a_second_host_switches_the_engines_to_tls_and_nobody_notices() -> None:
    facts = deploy(lab(hosts=1), model("replicas: 2\n"))
    facts["lab-2"] = made.host("lab-2", 2, gpus=2)
    plan = made.planned(facts, made.deployment(model("replicas: 2\n")))
    assert plan.steps[0].orders["lab-1"]["engine_tls"] == {"name": "engine.lab-1", "ca_host": "lab-1"}
    assert fewest(plan, facts) == 1
    after = made.applied(plan, facts)
    assert all(server["tls"] for server in after["lab-1"]["gateway"]["servers"].values())
    assert made.planned(after, made.deployment(model("replicas: 2\n"))).is_noop


@pytest.mark.parametrize("update", ["", "update: {max_surge: 1}\n", "update: {max_unavailable: 2}\n"])
def test_whatever_fails_the_old_revision_serves_as_before(update: str) -> None:
    text = model("replicas: 2\n" + update)
    facts = deploy(lab(), text)
    plan = made.planned(facts, made.deployment(changed(text)))
    for title in titles(plan)[: titles(plan).index("Write the book")]:
        after = made.failed_at(plan, facts, title)
        assert made.in_rotation(after, "tiny") == {"tiny-0", "tiny-1"}, title
        running = {p: s["projects"][p]["containers"][0]["labels"]["onprem-llm.revision"] for s in after.values()
                   for p in s["projects"] if p.startswith("tiny")}  # fmt: skip
        assert running == {"tiny-0": "1", "tiny-1": "1"}, title
        assert after["lab-1"]["gateway"]["admits"]["tiny"] == ["1"], title


@pytest.mark.parametrize("update", ["", "update: {max_surge: 1}\n", "update: {max_unavailable: 2}\n"])
@pytest.mark.parametrize("missed", [(), None])
def test_where_the_book_cannot_be_written_the_new_revision_serves(update: str, missed: tuple[str, ...] | None) -> None:
    text = model("replicas: 2\n" + update)
    facts = deploy(lab(), text)
    plan = made.planned(facts, made.deployment(changed(text)))
    after = made.failed_at(plan, facts, "Write the book", missed=missed)
    assert len(made.in_rotation(after, "tiny")) == 2
    other = made.planned(after, made.deployment(model(name="other", port=8100)))
    assert all(len(rotation) == 2 for rotation in at_each_moment(other, after))


@pytest.mark.parametrize("missed", [["tiny-1"], ["tiny-0", "tiny-1"], None])
@pytest.mark.parametrize("updates", [0, 1])
def test_what_a_failed_step_had_not_come_to_stays_what_it_was(updates: int, missed: list[str] | None) -> None:
    text = model("replicas: 2\nupdate: {max_unavailable: 2}\n")
    facts = deploy(lab(hosts=1), text)
    for number in range(updates):
        facts = deploy(facts, text.replace("8192", f"{number + 2}048"))
    plan = made.planned(facts, made.deployment(changed(text)))
    after = made.failed_at(plan, facts, "Replace tiny-0, tiny-1", missed=missed)
    assert made.in_rotation(after, "tiny") == {"tiny-0", "tiny-1"}
    assert after["lab-1"]["projects"] == facts["lab-1"]["projects"]


def test_a_replica_of_a_drained_host_goes_back_too() -> None:
    text = model("replicas: 2\nupdate: {max_surge: 0}\n")
    facts = deploy(lab(), text)
    facts["lab-1"]["book"]["hosts"] = {"lab-2": {"state": "drained", "by": "me@here", "at": None}}
    plan = made.planned(facts, made.deployment(changed(text)))
    assert [p["name"] for p in plan.steps[1].orders["lab-2"]["projects"]] == ["tiny-1"]
    for title in ("Start tiny", "Replace tiny-0", "Tell the gateway"):
        after = made.failed_at(plan, facts, title)
        assert after["lab-2"]["projects"] == facts["lab-2"]["projects"], title
        assert after["lab-1"]["projects"]["tiny-0"] == facts["lab-1"]["projects"]["tiny-0"], title


@pytest.mark.parametrize(
    ("state", "back"),
    [
        ({"health": "starting"}, ["Put the old tiny-1 back"]),
        ({"health": "unhealthy"}, []),
        ({"state": "exited", "health": None}, []),
        ({"state": "restarting", "health": "starting"}, []),
        ({"health": "starting", "restarts": 4}, []),
    ],
)
def test_what_did_not_run_is_not_worth_going_back_to(state: Facts, back: list[str]) -> None:
    text = model("replicas: 2\n")
    facts = deploy(lab(), text)
    facts["lab-2"]["projects"]["tiny-1"]["containers"][0].update(state)
    plan = made.planned(facts, made.deployment(changed(text)))
    assert titles(plan)[:2] == [BEGINS, "Start tiny"]
    assert [step.title for step in plan.steps[1].undo] == back


def test_the_ways_back_undo_what_was_done_and_nothing_else() -> None:
    text = model("replicas: 2\n")
    facts = deploy(lab(), text)
    plan = made.planned(facts, made.deployment(changed(text)))
    _, admit, drain, replace, back, *_ = plan.steps
    assert [(u.kind, u.orders["lab-1"]["project"]["source"]) for u in admit.undo] == [("gateway", "gateway.before")]
    assert [(u.kind, u.orders["lab-1"]["ready"]) for u in drain.undo] == [("route", ["tiny/tiny-0"])]
    assert drain.orders["lab-1"] == {"drain": ["tiny/tiny-0"], "ready": [], "wait": 300}
    assert back.orders["lab-1"] == {"drain": [], "ready": ["tiny/tiny-0"], "ready_wait": 30}
    (restore,) = replace.undo
    there = facts["lab-1"]["projects"]["tiny-0"]
    stood = {"files": there["files"], "secrets": there["secrets_digest"]}
    assert restore.orders == {
        "lab-1": {"projects": [{"name": "tiny-0", "path": "/srv/onprem-llm/tiny-0", **stood, "wait": 1800}]}
    }
    assert [(u.kind, u.orders["lab-1"]["drain"]) for u in back.undo] == [("route", ["tiny/tiny-0"])]
    assert not plan.steps[-1].undo


def test_more_that_fail_are_removed_and_the_first_ones_never_were_touched() -> None:
    facts = deploy(lab(), model())
    plan = made.planned(facts, made.deployment(model("replicas: 3\n")))
    assert titles(plan) == ["Bring images and weights", BEGINS, "Start tiny", "Tell the gateway", "Write the book"]
    for title in titles(plan)[1:-1]:
        after = made.failed_at(plan, facts, title)
        assert there(after) == {"tiny-0": "lab-1"}
        assert set(after["lab-1"]["gateway"]["servers"]) == {"tiny/tiny-0"}


@pytest.mark.parametrize("update", ["", "update: {max_surge: 1}\n", "update: {max_unavailable: 2}\n"])
def test_another_served_name_that_fails_is_put_back_whole(update: str) -> None:
    facts = deploy(lab(), model("replicas: 3\n" + update))
    plan = made.planned(facts, made.deployment(model("replicas: 3\nserved_name: big\n" + update)))
    for title in titles(plan)[: titles(plan).index("Write the book")]:
        after = made.failed_at(plan, facts, title)  # every way back into rotation is checked there
        assert made.in_rotation(after, "tiny") == {"tiny-0", "tiny-1", "tiny-2"}, title


def test_what_a_failed_first_deploy_started_stays_to_be_looked_at() -> None:
    plan = made.planned(lab(), made.deployment(model()))
    assert [step.undo for step in plan.steps] == [()] * len(plan.steps)


def test_a_restart_rolls_over_what_nothing_differs_in() -> None:
    facts = deploy(lab(), model("replicas: 2\n"))
    plan = made.planned(facts, made.again(facts, "tiny"), restart=True, verb="restart")
    assert [c.reasons for c in plan.changes if c.action == "restart"] == [("asked for",)] * 2
    assert titles(plan)[:3] == ["Drain tiny-0", "Replace tiny-0 (1 of 2)", "Return tiny-0"]
    replaced = plan.steps[1].orders["lab-1"]["projects"][0]
    assert replaced["recreate"] is True
    assert plan.revision == 1
    assert fewest(plan, facts) == 1
    record = plan.steps[-1].orders["lab-1"]
    assert record["event"] == {"action": "restart", "deployment": "tiny", "revision": 1}
    assert made.planned(made.applied(plan, facts), made.deployment(model("replicas: 2\n"))).is_noop


def test_a_rollback_is_a_new_revision_with_the_old_image_and_no_other() -> None:
    facts = deploy(lab(), model("replicas: 2\n"))
    newer = made.archive(made.VLLM_IMAGE, as_id="sha256:" + "3" * 64)
    old = made.again(facts, "tiny")
    first = made.planned(facts, made.deployment(changed(model("replicas: 2\n")), image=newer))
    facts = made.applied(first, facts)
    plan = made.planned(facts, old, verb="rollback")
    assert plan.revision == 3
    assert f"image: {made.image_id(made.VLLM_IMAGE)}" in plan.files["lab-1"]["tiny-0"]["compose.yaml"]
    assert fewest(plan, facts) == 1
    assert made.planned(made.applied(plan, facts), old).is_noop
    for state in facts.values():
        state["images"] = [image for image in state["images"] if image["id"] != made.image_id(made.VLLM_IMAGE)]
    with pytest.raises(InvalidError, match=r"the image of that revision .* is not on lab-1, and nothing can bring it"):
        made.planned(facts, old, verb="rollback")


def test_another_served_name_is_a_gap_and_it_is_said() -> None:
    facts = deploy(lab(), model("replicas: 2\n"))
    text = model("replicas: 2\nserved_name: big\n")
    plan = made.planned(facts, made.deployment(text))
    assert [w for w in plan.warnings if "gap" in w and "clients must ask for big" in w]
    assert made.planned(made.applied(plan, facts), made.deployment(text)).is_noop
