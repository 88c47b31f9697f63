"""A plan is refused where an image could not run, before there is any step that would pull it."""

from dataclasses import replace
from typing import Any

import planning_lab
import pytest
import recorded_facts as made
from planning_lab import Hosts

from onprem_llm.errors import InvalidError
from onprem_llm.planning.memory.model_files import ModelFiles
from onprem_llm.planning.no_room import NoRoomError
from onprem_llm.planning.types import Plan

T4 = "Tesla T4"
V100 = "Tesla V100-SXM2-32GB"


def text(image: str, args: str = "", *, gpus: int | str = 1, models: str = "", env: str = "{}") -> str:
    return (
        "api_version: 1\nname: tiny\nmodel: ./models/tiny\n"
        f"engine: {{image: '{image}', engine_args: {{{args}}}}}\n"
        f"resources: {{gpus: {gpus}, gpu_models: [{models}]}}\nenv: {env}\n"
    )


def host(number: int, gpu: str = made.H100, cap: str = "9.0", *, driver: str = "580.95.05", count: int = 1) -> Any:
    name = f"lab-{number}"
    found = made.host(name, number, gpus=count, gateway=number == 1)
    found["gpus"]["driver"] = driver
    found["gpus"]["devices"] = [made.gpu(name, index, gpu, compute_cap=cap) for index in range(count)]
    return found


def planned(hosts: Hosts, model: str, files: ModelFiles | None = None) -> Plan:
    return made.planned(hosts, replace(made.deployment(model), files=files))


def refused(hosts: Hosts, model: str, files: ModelFiles | None = None) -> InvalidError:
    with pytest.raises(InvalidError) as caught:
        planned(hosts, model, files)
    return caught.value


def test_a_driver_from_before_the_images_cuda_never_reaches_a_pull() -> None:
    error = refused({"lab-1": host(1, driver="535.183.01")}, text("vllm/vllm-openai:v0.20.2"))
    assert error.message == (
        "lab-1: driver 535.183.01 cannot run vllm/vllm-openai:v0.20.2 (CUDA 13.0, driver >= 580.65.06)"
    )
    assert error.hint is not None
    assert error.hint.startswith("use vllm/vllm-openai:v0.20.2-cu129, or upgrade the driver to 580 or newer")
    plan = planned({"lab-1": host(1, driver="535.183.01")}, text("vllm/vllm-openai:v0.20.2-cu129"))
    assert any(step.kind == "apply" for step in plan.steps)
    assert any("lab-1: driver 535.183.01 is older than CUDA 12.9" in warning for warning in plan.warnings)


def test_the_variable_that_switches_libraries_on_is_read() -> None:
    hosts = {"lab-1": host(1, driver="535.183.01")}
    model = text("vllm/vllm-openai:v0.20.2", env='{VLLM_ENABLE_CUDA_COMPATIBILITY: "1"}')
    assert any("compatibility libraries alone" in warning for warning in planned(hosts, model).warnings)
    model = text("vllm/vllm-openai:v0.20.2", env='{VLLM_ENABLE_CUDA_COMPATIBILITY: "0"}')
    assert "cannot run" in refused(hosts, model).message


def placed(plan: Plan) -> str:
    return next(change.host for change in plan.changes if change.subject == "tiny-0")


def test_hosts_that_cannot_run_it_are_passed_over_with_the_reason() -> None:
    hosts = {"lab-1": host(1, V100, "7.0"), "lab-2": host(2, driver="535.183.01"), "lab-3": host(3)}
    plan = planned(hosts, text("vllm/vllm-openai:v0.20.2"))
    assert placed(plan) == "lab-3"
    assert plan.warnings == ()
    assert plan.passed_over["lab-1"].startswith(f"{V100} (compute capability 7.0) cannot run vllm/vllm-openai:v0.20.2")
    assert plan.passed_over["lab-2"].startswith("driver 535.183.01 cannot run")


def test_more_replicas_than_hosts_that_run_it() -> None:
    hosts = {"lab-1": host(1, V100, "7.0"), "lab-2": host(2)}
    error = refused(hosts, text("vllm/vllm-openai:v0.20.2").replace("env:", "replicas: 2\nenv:"))
    assert error.message == "no host can carry tiny-1: it needs 1 GPUs on one host"
    assert error.details is not None
    assert "(compute capability 7.0) cannot run vllm/vllm-openai:v0.20.2" in error.details
    assert "GPU 0 goes to another replica" in error.details


def test_hosts_with_different_faults_are_listed_each_with_its_own() -> None:
    hosts = {"lab-1": host(1, V100, "7.0"), "lab-2": host(2, driver="535.183.01")}
    error = refused(hosts, text("vllm/vllm-openai:v0.20.2").replace("env:", "replicas: 2\nenv:"))
    assert error.message == "vllm/vllm-openai:v0.20.2 cannot run on the hosts that tiny would go to"
    assert error.details is not None
    first, second = error.details.splitlines()
    assert "lab-1: Tesla V100" in first
    assert "lab-2: driver 535.183.01 cannot run" in second
    assert "upgrade the driver to 580 or newer" in second
    # Both run it; v0.20.2-cu129 would do for lab-2 alone.
    assert error.hint == "use vllm/vllm-openai:v0.19.1, or do for each host what is said above"


def test_gpus_of_the_same_host_that_run_it_are_taken() -> None:
    mixed = host(1, T4, "7.5", count=2)
    mixed["gpus"]["devices"][1] |= {"name": made.H100, "compute_cap": "9.0"}
    plan = planned({"lab-1": mixed}, text("vllm/vllm-openai:v0.11.0", "dtype: bfloat16"))
    assert plan.warnings == ()
    assert "nvidia.com/gpu=1" in plan.files["lab-1"]["tiny-0"]["compose.yaml"]


def test_bfloat16_on_a_t4_says_half() -> None:
    hosts = {"lab-1": host(1, T4, "7.5")}
    error = refused(hosts, text("vllm/vllm-openai:v0.11.0", "dtype: bfloat16"))
    assert "lab-1: Tesla T4 (compute capability 7.5) has no bfloat16, which begins at 8.0" in error.message
    assert error.hint == "set `dtype: half` in engine.engine_args"
    assert planned(hosts, text("vllm/vllm-openai:v0.11.0", "dtype: half")).warnings == ()


def test_the_models_own_numbers_count() -> None:
    hosts = {"lab-1": host(1, T4, "7.5")}
    error = refused(hosts, text("vllm/vllm-openai:v0.7.3"), ModelFiles({"torch_dtype": "bfloat16"}, ()))
    assert error.hint == "use vllm/vllm-openai:v0.9.2, or set `dtype: half` in engine.engine_args"
    error = refused(
        hosts, text("vllm/vllm-openai:v0.11.0"), ModelFiles({"quantization_config": {"quant_method": "fp8"}}, ())
    )
    assert "cannot run quantization fp8 under v0.11.0" in error.message


def test_gpus_of_several_kinds_in_one_host_are_named() -> None:
    mixed = host(1, count=2)
    mixed["gpus"]["devices"][1] |= {"name": T4, "compute_cap": "7.5"}
    plan = planned({"lab-1": mixed}, text("vllm/vllm-openai:v0.11.0", gpus="all"))
    assert (
        "lab-1 has 2 kinds of GPU, and tiny-0 is given all: NVIDIA H100 80GB HBM3 (compute capability 9.0), "
        "Tesla T4 (compute capability 7.5)" in plan.warnings
    )
    error = refused({"lab-1": mixed}, text("vllm/vllm-openai:v0.11.0", "dtype: bfloat16", gpus="all"))
    assert "Tesla T4 (compute capability 7.5) has no bfloat16" in error.message
    assert "H100" not in error.message


@pytest.mark.parametrize("image", ["onprem-llm/vllm-cpu:0.32.0", "onprem-llm/stub-engine:1", "r.local/onprem-llm/x:1"])
def test_images_of_our_own_are_not_judged(image: str) -> None:
    assert planned({"lab-1": host(1, V100, "7.0", driver="470.1")}, text(image, "dtype: bfloat16")).warnings == ()


def test_engines_without_gpus_are_not_judged() -> None:
    assert planned({"lab-1": host(1, driver="470.1")}, text("vllm/vllm-openai:v0.20.2", gpus=0)).warnings == ()


def test_rehearsal_hosts_go_on_as_before() -> None:
    assert planned(made.lab(), text("vllm/vllm-openai:v0.11.0")).warnings == ()


def test_what_is_not_known_is_a_warning() -> None:
    plan = planned({"lab-1": host(1, driver="470.1")}, text("vllm/vllm-openai:v0.99.0"))
    assert plan.warnings == (
        "lab-1: vllm/vllm-openai:v0.99.0 is not known here for x86_64: whether it runs under driver 470.1 on "
        "NVIDIA H100 80GB HBM3 was not judged",
    )


def test_what_serves_already_is_believed() -> None:
    """The table may be wrong of an image: what runs with it can be changed, and stays where it is."""
    model = text("vllm/vllm-openai:v0.20.2", "max_model_len: 8192")
    hosts = planning_lab.deploy({"lab-1": host(1), "lab-2": host(2)}, model)
    (name,) = set(planning_lab.there(hosts).values())
    hosts[name]["gpus"]["driver"] = "535.183.01"
    assert planned(hosts, model).is_noop
    assert placed(planned(hosts, planning_lab.changed(model))) == name
    planning_lab.stop(hosts, "tiny-0")
    assert "cannot run" in refused(hosts, planning_lab.changed(model)).message


def test_another_image_that_cannot_run_where_a_replica_is_goes_where_it_can() -> None:
    model = text("vllm/vllm-openai:v0.11.0")
    hosts = planning_lab.deploy({"lab-1": host(1), "lab-2": host(2)}, model)
    (name,) = set(planning_lab.there(hosts).values())
    hosts[name]["gpus"]["driver"] = "535.183.01"
    plan = planned(hosts, model.replace("v0.11.0", "v0.22.1"))
    assert {change.host for change in plan.changes if change.action == "create" and "tiny" in change.subject} == {
        "lab-1", "lab-2"
    } - {name}  # fmt: skip


def test_another_image_that_cannot_run_where_a_replica_is_and_nowhere_else_is_refused() -> None:
    model = text("vllm/vllm-openai:v0.11.0")
    hosts = planning_lab.deploy({"lab-1": host(1)}, model)
    hosts["lab-1"]["gpus"]["driver"] = "535.183.01"
    error = refused(hosts, model.replace("v0.11.0", "v0.22.1"))
    assert error.message.startswith("lab-1: driver 535.183.01 cannot run vllm/vllm-openai:v0.22.1")
    # What moves replicas off a host goes on with fewer of them where it is told so.
    assert isinstance(error, NoRoomError)


def test_what_is_still_starting_is_waited_for() -> None:
    model = text("vllm/vllm-openai:v0.20.2")
    hosts = planning_lab.deploy({"lab-1": host(1)}, model)
    hosts["lab-1"]["projects"]["tiny-0"]["containers"][0].update(health="starting")
    hosts["lab-1"]["gpus"]["driver"] = "535.183.01"
    plan = planned(hosts, model)
    assert {change.subject: change.action for change in plan.changes}["tiny-0"] == "wait"
