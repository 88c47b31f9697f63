"""Which host and which GPUs, and why not the others."""

import pytest
import recorded_facts as made
from recorded_facts import Facts

from onprem_llm.errors import InvalidError, UnreachableError
from onprem_llm.planning.plan import plan
from onprem_llm.planning.types import Plan
from onprem_llm.spec.site import Site


def model(name: str = "tiny", gpus: object = 1, extra: str = "", port: int = 8000) -> str:
    text = made.MODEL.format(name=name, image=made.VLLM_IMAGE, gpus=1, model="H100", port=port)
    return text.replace("gpus: 1, gpu_models: [H100]", f"gpus: {gpus}{extra}")


def where(result: Plan, project: str = "tiny-0") -> str:
    return next(host for host, projects in result.files.items() if project in projects)


def gpus(result: Plan, project: str = "tiny-0") -> str:
    text = result.files[where(result, project)][project]["compose.yaml"]
    return next(line.partition(": ")[2].strip('"') for line in text.splitlines() if "onprem-llm.gpus" in line)


def refused(facts: dict[str, Facts], text: str) -> InvalidError:
    with pytest.raises(InvalidError) as raised:
        made.planned(facts, made.deployment(text))
    return raised.value


def deploy(facts: dict[str, Facts], text: str) -> dict[str, Facts]:
    return made.applied(made.planned(facts, made.deployment(text)), facts)


def test_a_gpu_with_a_foreign_process_is_passed_over() -> None:
    facts = made.lab()
    facts["lab-1"]["gpus"]["devices"][0]["processes"] = [{"pid": 42, "name": "python", "memory": 100}]
    assert gpus(made.planned(facts, made.deployment(model()))) == "GPU-lab-1-1"
    assert where(made.planned(facts, made.deployment(model(gpus=2)))) == "lab-2"


def test_foreign_memory_counts_and_a_drivers_own_does_not() -> None:
    facts = made.lab()
    devices = facts["lab-1"]["gpus"]["devices"]
    devices[0]["memory_used"], devices[1]["memory_used"] = 9000, 600
    assert gpus(made.planned(facts, made.deployment(model()))) == "GPU-lab-1-1"


def test_unknown_memory_breaks_nothing() -> None:
    facts = made.lab()
    for device in facts["lab-1"]["gpus"]["devices"]:
        device.update(memory_total="[N/A]", memory_used=None, compute_cap="[N/A]")
    assert where(made.planned(facts, made.deployment(model()))) == "lab-1"


def test_gpus_of_our_other_projects_are_taken_even_when_they_are_stopped() -> None:
    facts = deploy(made.lab(), model("first"))
    facts["lab-1"]["projects"]["first-0"]["containers"][0]["state"] = "exited"
    second = made.planned(facts, made.deployment(model("second", port=8001)))
    assert gpus(second, "second-0") == "GPU-lab-1-1"


def test_a_running_replica_keeps_its_host_and_gpus_and_their_memory_is_its_own() -> None:
    facts = deploy(deploy(made.lab(), model("first")), model(port=8001))
    for device in facts["lab-1"]["gpus"]["devices"]:
        device.update(memory_used=70000, processes=[{"pid": 1, "name": "VLLM::EngineCore", "memory": 70000}])
    changed = made.planned(facts, made.deployment(model(port=8001).replace("8192", "4096")))
    assert (where(changed), gpus(changed)) == ("lab-1", "GPU-lab-1-1")


def test_the_inventorys_order_moves_nothing() -> None:
    facts = deploy(made.lab(), model())
    turned = dict(reversed(facts.items()))
    assert made.planned(turned, made.deployment(model())).is_noop


def test_the_tightest_fit_is_taken() -> None:
    facts = {"big": made.host("big", 1, gpus=8, gateway=True), "small": made.host("small", 2, gpus=2)}
    assert where(made.planned(facts, made.deployment(model(gpus=2)))) == "small"


def test_models_match_in_part_and_in_any_case() -> None:
    facts = {
        "l4": made.host("l4", 1, gpus=1, model=made.L4, gateway=True),
        "h100": made.host("h100", 2, gpus=1),
    }
    assert where(made.planned(facts, made.deployment(model(extra=", gpu_models: [h100]")))) == "h100"
    assert where(made.planned(facts, made.deployment(model(extra=", gpu_models: [A100, l4]")))) == "l4"


def test_gpus_of_one_replica_are_of_one_model() -> None:
    mixed = made.host("mixed", 1, gpus=4, gateway=True)
    for index in (0, 2):
        mixed["gpus"]["devices"][index]["name"] = made.L4
    assert gpus(made.planned({"mixed": mixed}, made.deployment(model(gpus=2)))) == "GPU-mixed-0,GPU-mixed-2"


def test_hosts_and_groups_narrow_the_choice() -> None:
    facts = made.lab()
    facts["lab-2"]["groups"] = ["fast"]
    assert where(made.planned(facts, made.deployment(model(extra=", hosts: [fast]")))) == "lab-2"
    assert where(made.planned(facts, made.deployment(model(extra=", hosts: [lab-2]")))) == "lab-2"
    assert "slow is no host and no group" in refused(facts, model(extra=", hosts: [slow]")).message


def test_no_gpus_go_where_fewest_projects_are() -> None:
    facts = deploy(made.lab(gpus=0), model("first", gpus=0))
    assert where(made.planned(facts, made.deployment(model("second", gpus=0))), "second-0") == "lab-2"


def test_all_gpus_must_all_be_free() -> None:
    facts = made.lab()
    assert gpus(made.planned(facts, made.deployment(model(gpus="all")))) == "GPU-lab-1-0,GPU-lab-1-1"
    for name in facts:
        facts[name]["gpus"]["devices"][0]["processes"] = [{"pid": 1, "name": "x", "memory": 1}]
    assert "GPU 0 is used by x (pid 1)" in str(refused(facts, model(gpus="all")).details)


def test_too_many_gpus_show_a_table_of_what_there_is() -> None:
    facts = made.lab()
    facts["lab-2"]["gpus"]["devices"] = []
    error = refused(facts, model(gpus=4))
    assert "no host can carry tiny-0: it needs 4 GPUs on one host" in error.message
    rows = str(error.details).splitlines()
    assert rows[0].split() == ["HOST", "GPUS", "MODEL", "FREE", "PASSED", "OVER", "BECAUSE"]
    assert rows[1].split(maxsplit=1) == ["lab-1", "2     NVIDIA H100 80GB HBM3  2     has 2, not 4"]
    assert rows[2].endswith("no GPU")


def test_none_of_the_named_model() -> None:
    error = refused(made.lab(), model(extra=", gpu_models: [H200, B200]"))
    assert "1 GPUs of H200 or B200" in error.message
    assert "no H200 or B200" in str(error.details)


def test_a_host_without_an_engine_is_passed_over_and_none_means_bootstrap() -> None:
    facts = made.lab()
    facts["lab-1"]["engine"] = {"running": False, "error": "not installed"}
    assert where(made.planned(facts, made.deployment(model()))) == "lab-2"
    facts["lab-2"]["engine"] = {}
    error = refused(facts, model())
    assert "the container engine does not run: not installed" in str(error.details)
    assert "bootstrap" in str(error.hint)


def test_no_gateway_means_bootstrap() -> None:
    facts = made.lab()
    facts["lab-1"]["book"] = None
    assert "bootstrap" in str(refused(facts, model()).hint)


def test_a_silent_gateway_is_unreachable_and_not_unprepared() -> None:
    facts = made.lab()
    del facts["lab-1"]
    wanted = made.wanted(facts, made.deployment(model()))
    with pytest.raises(UnreachableError, match="lab-1"):
        plan(Site(), wanted, made.current(facts, ("lab-1",)))


def test_a_replica_that_may_run_on_a_silent_host_is_not_started_twice() -> None:
    facts = made.lab()
    facts["lab-1"]["gpus"]["devices"] = []
    facts = deploy(facts, model())
    assert "tiny-0" in facts["lab-2"]["projects"]
    facts["lab-3"] = made.host("lab-3", 3, gpus=2)
    result = made.planned(facts, made.deployment(model()), unreachable=["lab-2"])
    assert result.is_noop
    assert result.warnings == ("tiny-0 is left as it is: lab-2 did not answer",)
    with pytest.raises(UnreachableError, match="on hosts that did not answer: tiny-0 on lab-2"):
        made.planned(facts, made.deployment(model().replace("8192", "1024")), unreachable=["lab-2"])
    with pytest.raises(UnreachableError, match="all replicas of tiny"):
        made.planned(facts, made.deployment(model()), unreachable=["lab-2"], restart=True, verb="restart")


def test_a_book_that_does_not_say_where_replicas_are_starts_none_twice() -> None:
    facts = deploy(made.lab(), model(extra=", hosts: [lab-2]"))
    del facts["lab-1"]["book"]["deployments"]["tiny"]["placement"]
    with pytest.raises(UnreachableError, match="tiny-0 may run on a host that did not answer: lab-2"):
        made.planned(facts, made.deployment(model(extra=", hosts: [lab-1, lab-2]")), unreachable=["lab-2"])


def test_a_replica_moves_when_its_host_is_ruled_out_and_the_old_place_is_cleared_last() -> None:
    facts = deploy(made.lab(), model())
    moved = made.planned(facts, made.deployment(model(extra=", hosts: [lab-2]")))
    assert where(moved, "tiny-1") == "lab-2"  # another name: both serve until the old one goes
    kinds = ["stage", "pending", "apply", "gateway", "route", "gateway", "record", "remove"]
    assert [step.kind for step in moved.steps] == kinds
    assert moved.steps[-1].orders["lab-1"]["projects"][0]["name"] == "tiny-0"
    assert [change.reasons for change in moved.changes if change.action == "remove"] == [
        ("a new one takes its place: lab-1: not in resources.hosts",)
    ]
    for _, facts_then in made.moments(moved, facts):
        assert made.in_rotation(facts_then, "tiny")
    assert made.planned(made.applied(moved, facts), made.deployment(model(extra=", hosts: [lab-2]"))).is_noop


@pytest.mark.parametrize(
    "broken",
    [
        {"engine": {"running": False, "error": "the docker engine does not answer"}},
        {"gpus": {"tool": True, "error": "nvidia-smi did not answer", "devices": []}},
    ],
    ids=["engine", "gpus"],
)
def test_a_replica_on_a_sick_host_is_not_started_twice(broken: Facts) -> None:
    facts = deploy(made.lab(), model())
    home = where(made.planned(facts, made.deployment(model())))
    facts[home].update(broken)
    with pytest.raises(UnreachableError, match=f"tiny-0 is on {home}, which cannot be judged now"):
        made.planned(facts, made.deployment(model()))


@pytest.mark.parametrize("problem", ["docker: no answer within 25 s", "projects: OSError: x", "weights: OSError: x"])
def test_half_a_look_is_no_ground_for_a_plan(problem: str) -> None:
    facts = made.lab()
    facts["lab-2"]["problems"] = [problem]
    with pytest.raises(UnreachableError, match="lab-2 could not say"):
        made.planned(facts, made.deployment(model()))


def test_a_book_that_cannot_be_read_whole_is_no_ground_for_a_plan() -> None:
    facts = made.lab()
    facts["lab-1"]["book"]["errors"] = ["/var/lib/onprem-llm/other: bad"]
    error = refused(facts, model())
    assert "/var/lib/onprem-llm/other" in (error.details or "")


def test_two_gateways_are_none() -> None:
    facts = made.lab()
    facts["lab-2"]["book"] = {"gateway": True, "deployments": {}}
    assert "lab-1, lab-2" in refused(facts, model()).message
