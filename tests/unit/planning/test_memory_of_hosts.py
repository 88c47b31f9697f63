"""What memory says while replicas are placed, and what `tensor_parallel_size: auto` stands for."""

from dataclasses import replace

import pytest
import recorded_facts as made
from planning_lab import deploy, lab, model
from recorded_facts import Facts
from tests.made_models import files_of
from tests.published_models import LLAMA_3_8B, MODELS

from onprem_llm.errors import InvalidError
from onprem_llm.planning.memory.auto import resolved
from onprem_llm.planning.memory.model_files import ModelFiles
from onprem_llm.planning.revisions import canonical_text, weights_of
from onprem_llm.planning.types import Plan
from onprem_llm.spec.deployment import Deployment, parse_deployment
from onprem_llm.spec.weights_identity import WeightsManifest
from onprem_llm.wanted import known_before

Hosts = dict[str, Facts]
LLAMA_70B = files_of(next(one for one in MODELS if one.name.endswith("Llama-3-70B")).config)
LLAMA_8B = files_of(LLAMA_3_8B)


def gpus_of(facts: Hosts, host: str, name: str, memory: int) -> Hosts:
    for device in facts[host]["gpus"]["devices"]:
        device.update(name=name, memory_total=memory)
    return facts


def any_gpu(text: str) -> str:
    return text.replace(", gpu_models: [H100]", "")


def planned(facts: Hosts, text: str, files: ModelFiles) -> Plan:
    return made.planned(facts, replace(made.deployment(text), files=files))


def where(plan: Plan, project: str = "tiny-0") -> str:
    return next(host for host, projects in plan.files.items() if project in projects)


def test_gpus_that_are_too_small_are_passed_over() -> None:
    facts = gpus_of(lab(2, 2), "lab-1", "NVIDIA T4", 15360)
    text = any_gpu(model())
    assert where(planned(facts, text, LLAMA_8B)) == "lab-2"
    result = planned(facts, text + "replicas: 2\n", LLAMA_8B)
    assert "too small for the model: NVIDIA T4 has 16.1 GB" in result.passed_over["lab-1"]
    # Without the files nothing is known, and nothing is refused.
    assert where(made.planned(facts, made.deployment(text))) == "lab-1"


def test_what_fits_nowhere_is_refused_with_the_sum_and_the_smallest_change() -> None:
    with pytest.raises(InvalidError) as raised:
        planned(lab(2, 4), model(), LLAMA_70B)
    error = raised.value
    assert error.message == "no host can carry tiny-0: the model does not fit into the memory of its GPUs"
    assert "KV cache" in str(error.details)
    assert "missing" in str(error.details)
    assert "tensor parallel over 2 GPUs (engine_args.tensor_parallel_size: 2, resources.gpus: 2)" in str(error.hint)
    assert where(planned(lab(2, 4), model(gpus=2), LLAMA_70B))


def test_where_large_ones_are_in_use_that_is_what_is_said() -> None:
    facts = gpus_of(lab(1, 1), "lab-1", "NVIDIA T4", 15360)
    facts["lab-2"]["gpus"]["devices"][0]["processes"] = [{"pid": 42, "name": "python", "memory": 100}]
    with pytest.raises(InvalidError, match="it needs 1 GPUs on one host") as raised:
        planned(facts, any_gpu(model()), LLAMA_8B)
    assert "GPU 0 is used by python" in str(raised.value.details)
    assert "too small for the model: NVIDIA T4" in str(raised.value.details)


def test_of_unlike_gpus_in_a_host_those_that_are_large_enough_are_taken() -> None:
    facts = lab(2)
    facts["lab-1"]["gpus"]["devices"][0].update(name="NVIDIA T4", memory_total=15360)
    result = planned(facts, any_gpu(model()), LLAMA_8B)
    assert "GPU-lab-1-1" in result.files["lab-1"]["tiny-0"]["compose.yaml"]


def test_all_gpus_of_a_host_must_be_large_enough() -> None:
    facts = lab(2)
    facts["lab-1"]["gpus"]["devices"][0].update(name="NVIDIA T4", memory_total=15360)
    with pytest.raises(InvalidError) as raised:
        planned(facts, any_gpu(model()).replace("gpus: 1", "gpus: all"), LLAMA_8B)
    assert "too small for the model: NVIDIA T4" in str(raised.value.details)


def test_memory_that_a_gpu_does_not_say_refuses_nothing() -> None:
    facts = lab(1)
    facts["lab-1"]["gpus"]["devices"][0].update(memory_total="[N/A]", memory_used="[N/A]")
    assert where(planned(facts, model(), LLAMA_70B)) == "lab-1"


def test_an_estimate_warns_and_refuses_nothing() -> None:
    """Weights, and 8192 tokens of cache, take 17.1 GB; 0.9 of 18600 MiB are 17.6: what is estimated has no room."""
    facts = gpus_of(lab(1), "lab-1", "NVIDIA H100 MIG 2g.18gb", 18600)
    result = planned(facts, model(), LLAMA_8B)
    assert any(text.startswith("tiny-0 may not start on lab-1: by estimate ") for text in result.warnings)
    assert not any("may not start" in text for text in planned(lab(1), model(), LLAMA_8B).warnings)


def test_what_others_hold_of_a_gpu_is_a_warning() -> None:
    """4 % of it: so little that the GPU counts as free, and too much for an engine that wants nearly all."""
    facts, greedy = lab(1), model().replace("gpu_memory_utilization: 0.9", "gpu_memory_utilization: 0.98")
    facts["lab-1"]["gpus"]["devices"][0]["memory_used"] = 3300
    (said,) = [text for text in planned(facts, greedy, LLAMA_8B).warnings if "others hold" in text]
    assert said.startswith(
        "tiny-0 will not start on lab-1: others hold 3.5 GB of NVIDIA H100 80GB HBM3, and the engine"
    )
    assert not any("others hold" in text for text in planned(facts, model(), LLAMA_8B).warnings)
    # What a replica holds of its own GPUs is its own.
    after = deploy(lab(1), greedy)
    after["lab-1"]["gpus"]["devices"][0]["memory_used"] = 70_000
    warnings = planned(after, greedy.replace("8192", "4096"), LLAMA_8B).warnings
    assert not any("others hold" in text for text in warnings)


def test_heads_that_are_not_divided_are_a_warning() -> None:
    text = model(gpus=3)
    assert any(
        "will not start on lab-1: tensor_parallel_size 3" in one for one in planned(lab(3), text, LLAMA_8B).warnings
    )


def test_what_runs_goes_on_whatever_we_think_of_it() -> None:
    """A deploy that changes nothing of memory must not fail where the engine proves that it fits."""
    facts = deploy(lab(1), model())
    assert planned(facts, model(), LLAMA_70B).is_noop
    renamed = planned(facts, model("served_name: other\n"), LLAMA_70B)
    assert where(renamed) == "lab-1"
    with pytest.raises(InvalidError, match="does not fit"):
        planned(facts, model().replace("8192", "4096"), LLAMA_70B)


def test_an_engine_on_cpus_is_not_judged() -> None:
    text = any_gpu(model()).replace("gpus: 1", "gpus: 0")
    assert where(planned(lab(0), text, LLAMA_70B)) == "lab-1"


def auto(extra: str = "", args: str = "") -> Deployment:
    text = made.MODEL.format(name="tiny", image=made.VLLM_IMAGE, gpus=1, model="H100", port=8000)
    text = text.replace("tensor_parallel_size: 1", f"tensor_parallel_size: auto{args}")
    return parse_deployment(text.replace("gpus: 1, ", "") + extra, "model.yaml")


def sized(facts: Hosts, files: ModelFiles, wanted: Deployment | None = None) -> tuple[object, object]:
    found = resolved(wanted or auto(), files, made.current(facts).hosts)
    return found.engine.engine_args["tensor_parallel_size"], found.resources.gpus


def test_auto_takes_the_fewest_gpus_on_which_it_fits() -> None:
    assert sized(lab(8), LLAMA_8B) == (1, 1)
    assert sized(lab(8), LLAMA_70B) == (2, 2)
    assert sized(gpus_of(lab(8), "lab-1", "NVIDIA H100 40GB", 40960), LLAMA_70B) == (4, 4)


def test_auto_counts_gpus_of_one_kind_on_one_host() -> None:
    facts = lab(2, 1, 1)
    facts["lab-1"]["gpus"]["devices"][0].update(memory_total=40960)
    with pytest.raises(InvalidError, match="fits on no host") as raised:
        sized(facts, LLAMA_70B)
    assert "missing" in str(raised.value.details)
    assert sized({**facts, "lab-4": made.host("lab-4", 4, gpus=2)}, LLAMA_70B) == (2, 2)


def test_auto_takes_a_size_that_divides_the_heads() -> None:
    config = {**dict(LLAMA_70B.config), "num_attention_heads": 12, "num_key_value_heads": 4, "head_dim": 128}
    facts = gpus_of(lab(8), "lab-1", "NVIDIA H100 20GB", 20480)
    with pytest.raises(InvalidError, match="with 4 GPUs"):
        sized(facts, files_of(config))


def test_auto_looks_only_where_it_may_run() -> None:
    facts = gpus_of(lab(8, 8), "lab-1", "NVIDIA T4", 15360)
    with pytest.raises(InvalidError, match="no host that may run it has a GPU"):
        sized(facts, LLAMA_8B, auto("").model_copy(update={"resources": auto().resources.model_copy(
            update={"gpu_models": ("A100",)})}))  # fmt: skip


def test_auto_multiplies_with_the_pipeline() -> None:
    assert sized(lab(8), LLAMA_70B, auto(args=", pipeline_parallel_size: 2")) == (1, 2)


def test_a_second_deploy_finds_what_the_first_found() -> None:
    """Larger GPUs that came meanwhile are no reason to start anything anew."""
    first = resolved(auto(), LLAMA_70B, made.current(lab(8)).hosts)
    known = parse_deployment(canonical_text(first, "tiny-0123"), "the book")
    larger = made.current(gpus_of(lab(8), "lab-1", "NVIDIA H100 B300", 280_000)).hosts
    assert resolved(auto(), LLAMA_70B, larger).resources.gpus == 1
    assert resolved(auto(), LLAMA_70B, larger, known).resources.gpus == 2
    more = resolved(auto("replicas: 2\n"), LLAMA_70B, larger, known)
    assert (more.resources.gpus, more.replicas) == (2, 2)
    assert resolved(auto(args=", max_num_seqs: 8"), LLAMA_70B, larger, known).resources.gpus == 1


def test_the_size_of_other_weights_is_no_size_of_these() -> None:
    """What the book has counts only where it is of the weights that are deployed now."""
    current = made.current(deploy(lab(1), model()))
    same = weights_of(current.book["tiny"].model_yaml)
    assert same
    found = known_before("tiny", WeightsManifest(same, "tiny", (), 0), current)
    assert found is not None
    assert found.engine.engine_args["tensor_parallel_size"] == 1
    assert known_before("tiny", WeightsManifest("tiny-0123456789ab", "tiny", (), 0), current) is None
    assert known_before("other", WeightsManifest(same, "tiny", (), 0), current) is None


def test_auto_looks_past_hosts_that_take_nothing_new() -> None:
    """Of those it may run on, one with larger GPUs is drained, and later its engine stands still."""
    facts = gpus_of(lab(8, 8), "lab-2", "NVIDIA H100 B300", 280_000)
    hosts = made.current(facts).hosts
    assert resolved(auto(), LLAMA_70B, hosts).resources.gpus == 1
    assert resolved(auto(), LLAMA_70B, hosts, None, {"lab-2"}).resources.gpus == 2
    stopped = [replace(one, engine=replace(one.engine, running=one.name == "lab-1")) for one in hosts]
    assert resolved(auto(), LLAMA_70B, stopped).resources.gpus == 2
    # Where none is open, placing says of each why.
    assert resolved(auto(), LLAMA_70B, hosts, None, {"lab-1", "lab-2"}).resources.gpus == 1


def test_weights_known_by_their_files_size_refuse_nothing() -> None:
    """GGUF and pickles: how much of a file is loaded, and as what, it does not say."""
    files = ModelFiles(dict(LLAMA_8B.config), (), 400 * 10**9, 400 * 10**9)
    result = planned(lab(1), model(), files)
    assert where(result) == "lab-1"
    assert any("may not start" in one and "size of its files only" in one for one in result.warnings)


def test_auto_takes_most_where_it_is_not_known_what_is_needed() -> None:
    size = 2000 * 10**9
    assert sized(lab(8), ModelFiles(dict(LLAMA_70B.config), (), size, size)) == (8, 8)
    size = 100 * 10**9
    assert sized(lab(8), ModelFiles(dict(LLAMA_70B.config), (), size, size)) == (2, 2)


def test_auto_counts_the_gpus_itself() -> None:
    text = made.MODEL.format(name="t", image=made.VLLM_IMAGE, gpus=1, model="H100", port=8000)
    with pytest.raises(InvalidError) as raised:
        parse_deployment(text.replace("tensor_parallel_size: 1", "tensor_parallel_size: auto"), "model.yaml")
    assert "leave resources.gpus out" in str(raised.value.details)


def test_replicas_of_auto_are_placed_with_the_gpus_that_it_found() -> None:
    wanted = resolved(auto(), LLAMA_70B, made.current(lab(4)).hosts)
    item = replace(made.deployment(model()), deployment=wanted, files=LLAMA_70B)
    compose = made.planned(lab(4), item).files["lab-1"]["tiny-0"]["compose.yaml"]
    assert 'onprem-llm.gpus: "GPU-lab-1-0,GPU-lab-1-1"' in compose
    assert '- --tensor-parallel-size\n    - "2"\n' in compose.replace("      - ", "    - ")
