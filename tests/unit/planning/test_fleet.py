"""How many replicas, on which hosts and GPUs, and on which ports."""

import pytest
import recorded_facts as made
from planning_lab import deploy, lab, label, listener, model, port, stop, there

from onprem_llm.errors import InvalidError


def test_replicas_spread_over_hosts_and_packed_ones_fill_them() -> None:
    spread = there(deploy(lab(4, 4, 4), model("replicas: 3\n")))
    assert sorted(spread.values()) == ["lab-1", "lab-2", "lab-3"]
    packed = there(deploy(lab(4, 4, 4), model("replicas: 3\n", resources=", placement: pack")))
    assert len(set(packed.values())) == 1


def test_packing_goes_on_elsewhere_where_a_host_is_full() -> None:
    packed = there(deploy(lab(2, 2), model("replicas: 3\n", resources=", placement: pack")))
    assert sorted(packed.values()) == ["lab-1", "lab-1", "lab-2"]


@pytest.mark.parametrize("placement", ["spread", "pack"])
def test_the_tightest_fit_counts_the_memory_that_is_free(placement: str) -> None:
    facts = lab(3, 3)
    facts["lab-2"]["gpus"]["devices"][0].update(memory_used=70000)  # somebody's: two are left there
    assert there(deploy(facts, model(resources=f", placement: {placement}"))) == {"tiny-0": "lab-2"}


def test_a_group_of_gpus_is_on_one_host_and_no_gpu_has_two() -> None:
    facts = deploy(lab(3, 3), model("replicas: 2\n", gpus=2))
    given = [set(label(facts, f"tiny-{n}", "gpus").split(",")) for n in range(2)]
    assert [len({gpu.rpartition("-")[0] for gpu in group}) for group in given] == [1, 1]
    assert not given[0] & given[1]
    with pytest.raises(InvalidError, match="no host can carry tiny-2: it needs 2 GPUs of H100 on one host") as raised:
        made.planned(facts, made.deployment(model("replicas: 3\n", gpus=2)))
    assert "GPU 0 is tiny-" in (raised.value.details or "")


def test_gpus_are_given_once_within_one_plan() -> None:
    facts = deploy(lab(4), model("replicas: 4\n"))
    assert len({label(facts, f"tiny-{n}", "gpus") for n in range(4)}) == 4
    with pytest.raises(InvalidError, match="no host can carry tiny-4") as raised:
        made.planned(lab(4), made.deployment(model("replicas: 5\n")))
    assert "GPU 0 goes to another replica" in (raised.value.details or "")


def test_a_plan_says_why_hosts_were_passed_over() -> None:
    facts = lab(2, 2, 0, 1)
    facts["lab-2"]["gpus"]["devices"] = [made.gpu("lab-2", n, made.L4) for n in range(2)]
    facts["lab-4"]["gpus"]["devices"][0]["processes"] = [{"pid": 42, "name": "python", "memory": 9}]
    passed = made.planned(facts, made.deployment(model())).passed_over
    assert passed == {"lab-2": "no H100", "lab-3": "no GPU", "lab-4": "GPU 0 is used by python (pid 42)"}


def test_more_replicas_touch_none_that_run_and_fill_gaps_in_the_numbers() -> None:
    facts = deploy(lab(2, 2), model("replicas: 2\n"))
    grown = made.planned(facts, made.deployment(model("replicas: 4\n")))
    assert {c.subject: c.action for c in grown.changes if c.subject.startswith("tiny")} == {
        "tiny-0": "keep", "tiny-1": "keep", "tiny-2": "create", "tiny-3": "create",
    }  # fmt: skip
    after = made.applied(grown, facts)
    assert [label(after, f"tiny-{n}", "revision") for n in range(4)] == ["1", "1", "2", "2"]
    assert made.in_rotation(after, "tiny") == set(there(after))
    assert made.planned(after, made.deployment(model("replicas: 4\n"))).is_noop
    stop(after, "tiny-0")
    fewer = made.applied(made.planned(after, made.deployment(model("replicas: 2\n"))), after)
    assert list(there(fewer)) == ["tiny-1", "tiny-2"]  # those that serve are kept
    again = made.applied(made.planned(fewer, made.deployment(model("replicas: 3\n"))), fewer)
    assert list(there(again)) == ["tiny-0", "tiny-1", "tiny-2"]


def test_fewer_are_drained_before_they_go_and_none_is_changed() -> None:
    facts = deploy(lab(2, 2), model("replicas: 3\n"))
    fewer = made.planned(facts, made.again(facts, "tiny", replicas=1), verb="scale")
    assert [step.title for step in fewer.steps] == [
        "Drain tiny-1, tiny-2", "Tell the gateway", "Write the book", "Remove what is not wanted any more",
    ]  # fmt: skip
    assert [u.orders["lab-1"]["ready"] for u in fewer.steps[0].undo] == [["tiny/tiny-1", "tiny/tiny-2"]]
    assert {c.reasons for c in fewer.changes if c.action == "remove"} == {("it is not wanted any more",)}
    after = made.applied(fewer, facts)
    assert there(after) == {"tiny-0": there(facts)["tiny-0"]}
    assert made.planned(after, made.again(after, "tiny")).is_noop


def test_scale_goes_to_hosts_that_have_the_weights_only() -> None:
    facts = deploy(lab(1, 1), model())
    with pytest.raises(InvalidError, match="no host can carry tiny-1") as raised:
        made.planned(facts, made.again(facts, "tiny", replicas=2), verb="scale")
    assert "it has not the weights tiny-" in (raised.value.details or "")
    facts = deploy(facts, model("replicas: 2\n"))
    facts = made.applied(made.planned(facts, made.again(facts, "tiny", replicas=1), verb="scale"), facts)
    grown = made.planned(facts, made.again(facts, "tiny", replicas=2), verb="scale")
    assert "stage" not in [step.kind for step in grown.steps]
    assert made.in_rotation(made.applied(grown, facts), "tiny") == {"tiny-0", "tiny-1"}


def test_scale_goes_to_hosts_that_have_the_image_or_can_be_sent_it() -> None:
    facts = deploy(lab(1, 1, 1), model())
    facts["lab-2"]["weights"] = facts["lab-3"]["weights"] = facts["lab-1"]["weights"]
    with pytest.raises(InvalidError, match="no host can carry tiny-1") as raised:
        made.planned(facts, made.again(facts, "tiny", replicas=2), verb="scale")
    assert f"lab-2  1     {made.H100}  0     it has not the image {made.VLLM_IMAGE}" in (raised.value.details or "")
    assert "images_dir" in (raised.value.hint or "")
    sent = made.planned(facts, made.again(facts, "tiny", made.archive(made.VLLM_IMAGE), replicas=2), verb="scale")
    assert there(made.applied(sent, facts))["tiny-1"] == "lab-2"
    facts["lab-3"]["images"] = facts["lab-1"]["images"]
    grown = made.planned(facts, made.again(facts, "tiny", replicas=2), verb="scale")
    assert there(made.applied(grown, facts))["tiny-1"] == "lab-3"
    assert "it has not the image" in grown.passed_over["lab-2"]


def test_a_replica_that_stopped_is_started_where_it_was() -> None:
    facts = deploy(lab(2, 2), model("replicas: 2\n"))
    stop(facts, "tiny-1")
    plan = made.planned(facts, made.deployment(model("replicas: 2\n")))
    assert [step.title for step in plan.steps] == ["Start tiny"]
    assert set(plan.steps[0].orders) == {"lab-1", "lab-2"}  # the gateway host makes the key
    assert there(made.applied(plan, facts)) == there(facts)


def test_a_project_of_one_name_on_two_hosts_is_cleared_where_the_book_does_not_have_it() -> None:
    facts = deploy(lab(2, 2), model("replicas: 2\n"))
    facts["lab-1"]["projects"]["tiny-1"] = facts["lab-2"]["projects"]["tiny-1"]
    plan = made.planned(facts, made.deployment(model("replicas: 2\n")))
    assert [(c.host, c.subject, c.reasons) for c in plan.changes if c.action == "remove"] == [
        ("lab-1", "tiny-1", ("another one has its name",))
    ]
    assert [step.kind for step in plan.steps] == ["remove"]
    after = made.applied(plan, facts)
    assert there(after) == {"tiny-0": "lab-1", "tiny-1": "lab-2"}
    assert made.planned(after, made.deployment(model("replicas: 2\n"))).is_noop


def test_replicas_on_one_host_take_the_next_free_ports_and_keep_them() -> None:
    facts = lab(4)
    facts["lab-1"]["listeners"].append(listener(8001))
    facts = deploy(facts, model("replicas: 3\n"))
    assert [port(facts, f"tiny-{n}") for n in range(3)] == [8000, 8002, 8003]
    facts["lab-1"]["listeners"] = [listener(number, "docker-proxy") for number in (8000, 8002, 8003)]
    assert made.planned(facts, made.deployment(model("replicas: 3\n"))).is_noop
    stop(facts, "tiny-0")
    facts = deploy(facts, model("replicas: 2\n"))
    assert [port(facts, name) for name in there(facts)] == [8002, 8003]


def test_a_port_that_nobody_asked_for_moves_on_and_one_that_was_asked_for_is_an_error() -> None:
    facts = lab(2)
    facts["lab-1"]["listeners"].append(listener(8000))
    assert port(deploy(facts, model(port=None)), "tiny-0") == 8001
    with pytest.raises(InvalidError, match="port 8000 is in use on lab-1: nginx"):
        made.planned(facts, made.deployment(model()))


def test_two_deployments_that_name_no_port_share_a_host() -> None:
    facts = deploy(deploy(lab(2), model(port=None)), model(name="second", port=None))
    assert (port(facts, "tiny-0"), port(facts, "second-0")) == (8000, 8001)
    assert made.in_rotation(facts, "tiny") == {"tiny-0"}
    assert made.in_rotation(facts, "second") == {"second-0"}


@pytest.mark.parametrize(("before", "after"), [(8000, 8050), (8050, 8000), (8000, 9000)])
def test_another_port_in_model_yaml_is_followed(before: int, after: int) -> None:
    facts = deploy(lab(2), model("update: {max_surge: 0}\n", port=before))
    text = model("update: {max_surge: 0}\n", port=after)
    facts = deploy(facts, text)
    assert port(facts, "tiny-0") == after
    assert made.planned(facts, made.deployment(text)).is_noop
