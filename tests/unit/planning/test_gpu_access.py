"""How a container reaches the GPUs that the plan chose."""

import recorded_facts as made
from recorded_facts import Facts

from onprem_llm import fast_yaml

MODEL = made.MODEL.format(name="tiny", image=made.VLLM_IMAGE, gpus=2, model="H100", port=8000)
DEVICES = {"driver": "nvidia", "device_ids": ["GPU-lab-1-0", "GPU-lab-1-1"], "capabilities": ["gpu"]}


def service(facts: dict[str, Facts], text: str) -> Facts:
    files = made.planned(facts, made.deployment(text)).files
    return fast_yaml.read(files["lab-1"]["tiny-0"]["compose.yaml"])["services"]["vllm"]


def devices(found: Facts) -> list[Facts]:
    return found["deploy"]["resources"]["reservations"]["devices"]


def without_cdi() -> dict[str, Facts]:
    facts = made.lab()
    for state in facts.values():
        state["engine"]["cdi_devices"] = []
    return facts


def test_cdi_where_it_is_set_up_and_gpus_elsewhere() -> None:
    assert devices(service(made.lab(), MODEL))[0]["driver"] == "cdi"
    assert devices(service(without_cdi(), MODEL)) == [DEVICES]


def test_runtime_names_the_runtime_and_the_gpus_for_it() -> None:
    found = service(made.lab(), MODEL + "gpu_access: runtime\n")
    assert found["runtime"] == "nvidia"
    assert devices(found) == [DEVICES]
    assert found["environment"]["NVIDIA_VISIBLE_DEVICES"] == "GPU-lab-1-0,GPU-lab-1-1"


def test_all_gpus() -> None:
    text = MODEL.replace("gpus: 2,", "gpus: all,")
    facts = made.lab()
    for state in facts.values():
        state["engine"]["cdi_devices"] = [f"nvidia.com/gpu={one}" for one in ("0", "1", "all")]
    assert devices(service(facts, text))[0]["device_ids"] == ["nvidia.com/gpu=all"]
    assert devices(service(made.lab(), text))[0]["device_ids"] == ["nvidia.com/gpu=0", "nvidia.com/gpu=1"]
    found = service(made.lab(), text + "gpu_access: gpus\n")
    assert devices(found) == [{"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}]
    assert "runtime" not in found


def test_no_gpus_are_asked_for_where_none_are_wanted() -> None:
    found = service(made.lab(), MODEL.replace("gpus: 2, gpu_models: [H100]", "gpus: 0").replace("size: 2", "size: 1"))
    assert "deploy" not in found
    assert "runtime" not in found


def test_a_way_that_the_host_does_not_have_is_said() -> None:
    plan = made.planned(without_cdi(), made.deployment(MODEL + "gpu_access: cdi\n"))
    assert "no CDI specification" in plan.warnings[0]
    plan = made.planned(made.lab(), made.deployment(MODEL + "gpu_access: runtime\n"))
    assert "no runtime named nvidia" in plan.warnings[0]


def test_a_specification_that_appears_is_the_reason() -> None:
    facts = without_cdi()
    facts = made.applied(made.planned(facts, made.deployment(MODEL)), facts)
    for state in facts.values():
        state["engine"]["cdi_devices"] = [f"nvidia.com/gpu={one}" for one in ("0", "1", "all")]
    (change,) = [change for change in made.planned(facts, made.deployment(MODEL)).changes if change.subject == "tiny-0"]
    assert change.reasons == ("GPU access gpus -> cdi",)


def by_uuid(*names: str, **engine: object) -> dict[str, Facts]:
    facts = made.lab()
    for state in facts.values():
        state["engine"].update(cdi_devices=[f"nvidia.com/gpu={one}" for one in ("0", "1", *names)], **engine)
    return facts


def test_gpus_are_named_by_uuid_where_the_specification_does() -> None:
    found = service(by_uuid("GPU-lab-1-0", "GPU-lab-1-1"), MODEL)
    assert devices(found)[0]["device_ids"] == ["nvidia.com/gpu=GPU-lab-1-0", "nvidia.com/gpu=GPU-lab-1-1"]


def test_a_card_that_the_specification_does_not_know_is_never_another_one() -> None:
    facts = by_uuid("GPU-lab-1-0", "GPU-gone")
    assert devices(service(facts, MODEL))[0]["device_ids"][1] == "nvidia.com/gpu=GPU-lab-1-1"
    plan = made.planned(facts, made.deployment(MODEL))
    assert "does not know GPU-lab-1-1: the start will fail; `onprem-llm bootstrap` makes it anew" in plan.warnings[0]


def test_a_specification_that_names_what_is_gone_is_not_used_where_there_is_another_way() -> None:
    gone = ["/usr/lib/libcuda.so.550.54.14"]
    facts = by_uuid("GPU-lab-1-0", "GPU-lab-1-1", cdi_missing=gone, runtimes=["nvidia", "runc"])
    assert devices(service(facts, MODEL)) == [DEVICES]
    assert "GPUs are given by --gpus instead" in made.planned(facts, made.deployment(MODEL)).warnings[0]
    facts = by_uuid("GPU-lab-1-0", "GPU-lab-1-1", cdi_missing=gone)
    assert devices(service(facts, MODEL))[0]["driver"] == "cdi"
    assert (
        "libcuda.so.550.54.14, which is gone: the start will fail"
        in made.planned(facts, made.deployment(MODEL)).warnings[0]
    )


def stale(**engine: object) -> dict[str, Facts]:
    """What runs by CDI, and a driver that has just been changed under it."""
    facts = by_uuid("GPU-lab-1-0", "GPU-lab-1-1", runtimes=["nvidia", "runc"])
    facts = made.applied(made.planned(facts, made.deployment(MODEL)), facts)
    for state in facts.values():
        state["engine"].update(cdi_missing=["/usr/lib/libcuda.so.550.54.14"], **engine)
    return facts


def test_what_runs_is_not_restarted_for_a_specification_that_does_not_fit_for_a_while() -> None:
    """It would be restarted again when the specification is made anew, both times by a deploy of something else."""
    facts = stale()
    plan = made.planned(facts, made.deployment(MODEL))
    assert [change for change in plan.changes if change.action != "keep"] == []
    assert "libcuda.so.550.54.14, which is gone: tiny-0 runs on, and would not start again" in plan.warnings[0]
    for state in facts.values():
        state["engine"]["cdi_missing"] = []
    assert [change for change in made.planned(facts, made.deployment(MODEL)).changes if change.action != "keep"] == []


def test_what_starts_anew_meanwhile_gets_its_gpus_the_way_that_works() -> None:
    changed = made.deployment(MODEL.replace("size: 2", "size: 2, seed: 7"))
    plan = made.planned(stale(), changed)
    assert "--gpus instead" in plan.warnings[0]
    found = fast_yaml.read(plan.files["lab-1"]["tiny-0"]["compose.yaml"])["services"]["vllm"]
    assert devices(found) == [DEVICES]
    facts = stale()
    for container in facts["lab-1"]["projects"]["tiny-0"]["containers"]:
        container["state"] = "exited"
    found = service(facts, MODEL)
    assert devices(found) == [DEVICES]
