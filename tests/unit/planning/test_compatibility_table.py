"""Every combination that the table has, decided as its sources say: written down here a second time, by hand."""

import itertools
from typing import Literal

import pytest
import yaml
from packaging.version import Version
from pydantic import ValidationError

from onprem_llm import fast_yaml
from onprem_llm.lab.gpu import stand_in
from onprem_llm.planning.compatibility.images import Tag, how_built, others, read_tag
from onprem_llm.planning.compatibility.machines import Kind, Machine, kind_of
from onprem_llm.planning.compatibility.numbers import Numbers, has_fp8_cache, numbers_of
from onprem_llm.planning.compatibility.table import Image, Table, Target, parse_table, table
from onprem_llm.planning.compatibility.verdict import Verdict, judge
from onprem_llm.planning.memory.model_files import ModelFiles

# Of each branch: the CUDAs whose programs it runs, and those that it runs with limits. Read off NVIDIA's tables: 12.x
# from 525 on, 13.x from 580 on, without limits from the branch that came with the toolkit.
BRANCHES = {
    470: ((), ()),
    495: ((), ()),
    510: ((), ()),
    515: ((), ()),
    520: ((), ()),
    525: ((), ("12.4", "12.8", "12.9")),
    530: ((), ("12.4", "12.8", "12.9")),
    535: ((), ("12.4", "12.8", "12.9")),
    545: ((), ("12.4", "12.8", "12.9")),
    550: (("12.4",), ("12.8", "12.9")),
    555: (("12.4",), ("12.8", "12.9")),
    560: (("12.4",), ("12.8", "12.9")),
    565: (("12.4",), ("12.8", "12.9")),
    570: (("12.4", "12.8"), ("12.9",)),
    575: (("12.4", "12.8", "12.9"), ()),
    580: (("12.4", "12.8", "12.9", "13.0"), ()),
    590: (("12.4", "12.8", "12.9", "13.0"), ()),
    595: (("12.4", "12.8", "12.9", "13.0"), ()),
}
# Of each image: the compute capabilities of the table that its kernels run on.
OLD = "7.0 7.5 8.0 8.6 8.9 9.0 10.0 12.0"
KERNELS = {
    ("x86_64", "", "0.7.3"): "7.0 7.5 8.0 8.6 8.9 9.0",
    ("x86_64", "", "0.8.5.post1"): "7.0 7.5 8.0 8.6 8.9 9.0",
    **{("x86_64", "", release): OLD for release in ("0.9.2", "0.10.2", "0.11.0", "0.11.2", "0.12.0", "0.13.0", "0.14.1",
                                                    "0.16.0", "0.17.1", "0.18.1", "0.19.1")},
    ("aarch64", "", "0.11.0"): "9.0 10.0 12.0",
    **{("aarch64", "", release): "8.9 9.0 10.0 12.0" for release in ("0.14.1", "0.16.0", "0.17.1", "0.18.1", "0.19.1")},
    **{("x86_64", "cu130", release): "7.5 8.0 8.6 8.9 9.0 10.0 10.3 12.0 12.1"
       for release in ("0.14.1", "0.16.0", "0.17.1", "0.18.1", "0.19.1", "0.20.0")},
    **{("aarch64", "cu130", release): "8.9 9.0 10.0 10.3 12.0 12.1"
       for release in ("0.14.1", "0.16.0", "0.17.1", "0.18.1", "0.19.1")},
    **{("x86_64", "", release): "7.5 8.0 8.6 8.9 9.0 10.0 10.3 12.0 12.1"
       for release in ("0.20.0", "0.20.2", "0.22.1", "0.25.1", "0.29.0", "0.33.0")},
    **{("aarch64", "", release): "8.0 8.6 8.9 9.0 10.0 10.3 12.0 12.1"
       for release in ("0.20.0", "0.20.2", "0.22.1", "0.25.1", "0.29.0", "0.33.0")},
    **{("x86_64", "cu129", release): "7.5 8.0 8.6 8.9 9.0 10.0 12.0"
       for release in ("0.20.0", "0.20.2", "0.22.1", "0.25.1", "0.29.0")},
    **{("aarch64", "cu129", release): "8.0 8.6 8.9 9.0 10.0 12.0"
       for release in ("0.20.0", "0.20.2", "0.22.1", "0.25.1", "0.29.0")},
}  # fmt: skip
CUDA = {"0.7.3": "12.4", "0.8.5.post1": "12.4", "0.9.2": "12.8", "0.10.2": "12.8", "0.11.0": "12.8", "0.11.2": "12.9",
        "0.12.0": "12.9", "0.13.0": "12.9", "0.14.1": "12.9", "0.16.0": "12.9", "0.17.1": "12.9", "0.18.1": "12.9",
        "0.19.1": "12.9"}  # fmt: skip
NOTHING = Numbers()


def known_images() -> list[tuple[Image, Version]]:
    return [(row, release) for row in table().images for release in row.releases]


def cuda_of(architecture: str, variant: str, release: str) -> str:
    if variant:
        return {"cu129": "12.9", "cu130": "13.0"}[variant]
    return "12.9" if (architecture, release) == ("aarch64", "0.11.0") else CUDA.get(release, "13.0")


def outcome(verdict: Verdict) -> str:
    return "no" if verdict.refusals else "limits" if verdict.warnings else "yes"


def test_every_image_and_driver_and_gpu_is_decided_as_the_sources_say() -> None:
    said = set()
    for (image, release), (branch, (whole, limited)), row in itertools.product(
        known_images(), BRANCHES.items(), table().capabilities
    ):
        key = (image.architecture, image.variant, str(release))
        cuda = cuda_of(*key)
        ref = f"vllm/vllm-openai:{Tag(release, image.variant)}"
        machine = Machine(image.architecture, f"{branch}.163.01", (Kind("GPU", row.capability, True),))
        expected = "yes" if cuda in whole else "limits" if cuda in limited else "no"
        if str(row.capability) not in KERNELS[key].split():
            expected = "no"
        assert outcome(judge(machine, ref, NOTHING)) == expected, (ref, machine)
        said.add(key)
    assert said == set(KERNELS)
    assert {row.branch for row in table().drivers} == set(BRANCHES)


@pytest.mark.parametrize(
    ("driver", "image", "expected"),
    [
        ("525.60.11", "v0.19.1", "no"),
        ("525.60.13", "v0.19.1", "limits"),
        ("580.65.05", "v0.20.2", "no"),
        ("580.65.06", "v0.20.2", "yes"),
        ("650.1", "v0.20.2", "yes"),
    ],
)
def test_the_oldest_driver_of_a_major_is_counted_to_its_last_figure(driver: str, image: str, expected: str) -> None:
    machine = Machine("x86_64", driver, (kind_of("NVIDIA H100"),))
    assert outcome(judge(machine, f"vllm/vllm-openai:{image}", NOTHING)) == expected


def test_every_quantization_and_gpu_is_decided_as_the_sources_say() -> None:
    for row, one in itertools.product(table().quantization, table().capabilities):
        for release in {release for _, release in known_images()}:
            if not row.holds_for(release) or how_built(table(), Tag(release), "x86_64") is None:
                continue
            machine = Machine("x86_64", "590.1", (Kind("GPU", one.capability, True),))
            ref = f"vllm/vllm-openai:v{release}"
            refused = any(f.about == "numbers" for f in judge(machine, ref, Numbers(quantization=row.method)).refusals)
            assert refused == (one.capability < row.capability), (row, one, release)


@pytest.mark.parametrize(
    ("method", "release", "least"),
    [
        ("awq", "0.7.3", "7.5"), ("awq", "0.33.0", "7.5"), ("gptq", "0.11.0", "6.0"), ("awq_marlin", "0.13.0", "8.0"),
        ("awq_marlin", "0.14.1", "7.5"), ("gptq_marlin", "0.13.0", "8.0"), ("gptq_marlin", "0.22.1", "7.5"),
        ("fp8", "0.7.3", "8.0"), ("fp8", "0.13.0", "8.0"), ("fp8", "0.14.1", "7.5"), ("fp8", "0.33.0", "7.5"),
        ("mxfp4", "0.11.0", "8.0"), ("bitsandbytes", "0.20.2", "7.0"), ("modelopt", "0.25.1", "8.9"),
        ("modelopt", "0.29.0", "8.0"), ("compressed-tensors", "0.20.2", "7.0"),
    ],
)  # fmt: skip
def test_minima_are_those_of_vllms_code(method: str, release: str, least: str) -> None:
    rows = [row for row in table().quantization if row.method == method and row.holds_for(Version(release))]
    assert [str(row.capability) for row in rows] == [least]


@pytest.mark.parametrize(
    ("attention", "release", "capabilities"),
    [
        ("keys", "0.10.2", ""),
        ("keys", "0.11.0", "8.9 9.0 10.0 10.3 12.0 12.1"),
        ("keys", "0.33.0", "8.9 9.0 10.0 10.3 12.0 12.1"),
        ("latent", "0.11.0", "9.0 10.0 10.3"),
        ("latent", "0.14.1", "9.0 10.0 10.3"),
        ("latent", "0.19.1", "8.9 9.0 10.0 10.3 12.0 12.1"),
    ],
)  # fmt: skip
def test_an_fp8_cache_is_where_vllms_code_has_it(
    attention: Literal["keys", "latent"], release: str, capabilities: str
) -> None:
    had = [
        str(row.capability)
        for row in table().capabilities
        if has_fp8_cache(attention, row.capability, Version(release), table())
    ]
    assert had == capabilities.split()
    config = {"kv_lora_rank": 512} if attention == "latent" else {}
    for row in table().capabilities:
        machine = Machine("x86_64", "590.1", (Kind("GPU", row.capability, True),))
        asked = numbers_of({"kv-cache-dtype": "fp8"}, ModelFiles(config, ()))
        warnings = judge(machine, f"vllm/vllm-openai:v{release}", asked).warnings
        warned = any("to store keys and values in fp8" in text for text in warnings)
        assert warned == (str(row.capability) not in had), row.capability


def test_an_fp8_cache_on_cpus_is_of_no_gpu() -> None:
    assert not has_fp8_cache("cpu", Version("9.0"), None, table())
    assert not has_fp8_cache("keys", None, None, table())
    assert [has_fp8_cache("cpu", None, Version(one), table()) for one in ("0.19.1", "0.25.1")] == [False, True]


def test_bfloat16_begins_with_ampere() -> None:
    for row in table().capabilities:
        machine = Machine("x86_64", "575.1", (Kind("GPU", row.capability, True),))
        found = judge(machine, "vllm/vllm-openai:v0.19.1", Numbers(dtype="bfloat16"))
        assert any(one.about == "numbers" for one in found.refusals) == (row.capability < Version("8.0"))


def test_every_gpu_is_found_by_its_own_name_alone() -> None:
    for row in table().capabilities:
        for name in (*row.data_center, *row.other):
            for written in (name, f"NVIDIA {name}", f"Tesla {name}-SXM2-32GB"):
                assert kind_of(written).capability == row.capability, written
                assert kind_of(written).data_center == (name in row.data_center), written


def test_every_row_has_a_source_with_an_address_and_a_day() -> None:
    sources = table().sources
    assert all(row.source and set(row.source) <= set(sources) for row in table().rows())
    assert all(one.url.startswith("https://") and one.read.year >= 2026 and one.note for one in sources.values())


def _text(change: dict[str, object]) -> str:
    text = (stand_in.resources.files(Table.__module__.rpartition(".")[0]) / "table.yaml").read_text()
    whole = fast_yaml.read(text)
    dumped: str = yaml.dump(whole | change, Dumper=fast_yaml.Dumper)
    return dumped


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"drivers": [{"branch": 470, "cuda": "11.4"}]}, "source"),
        ({"drivers": [{"branch": 470, "cuda": "11.4", "source": "hearsay"}]}, "hearsay"),
        ({"drivers": [{"branch": 470, "cuda": 11.4, "source": "gpus"}]}, "in quotes"),
        ({"fp8": {"capability": "8.9", "source": []}}, "fp8.source"),
        ({"fp8": {"capability": "8.9", "source": "gpus", "note": "x"}}, "fp8.note"),
        ({"sources": {"gpus": {"url": "http://x", "read": "2026-11-22", "note": "n"}}}, "sources.gpus.url"),
    ],
)
def test_a_row_that_does_not_fit_is_refused(change: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        parse_table(_text(change))


def test_rehearsal_hosts_print_the_cuda_of_the_table() -> None:
    for row in table().drivers:
        assert stand_in.cuda_version(f"{row.branch}.10.01") == str(row.cuda)
    assert stand_in.cuda_version("520.61.05") == stand_in.cuda_version("521.1") == "11.8"


def test_rehearsal_gpus_are_known_by_name() -> None:
    for model in stand_in.models().values():
        assert str(kind_of(str(model["name"])).capability) == model["compute_cap"]


@pytest.mark.parametrize(
    ("release", "built"),
    [("0.15.1", True), ("0.21.0", True), ("0.11.1", False), ("0.8.5", False), ("0.34.0", False), ("0.6.0", False)],
)
def test_a_release_between_two_that_were_built_alike_is_as_they_are(release: str, built: bool) -> None:
    assert (how_built(table(), Tag(Version(release)), "x86_64") is not None) == built


@pytest.mark.parametrize(
    ("ref", "tag"),
    [
        ("vllm/vllm-openai:v0.20.2", "v0.20.2"),
        ("registry.local:5000/hub/vllm/vllm-openai:v0.20.2-cu129-ubuntu2404", "v0.20.2-cu129-ubuntu2404"),
        ("vllm/vllm-openai:v0.20.2-aarch64-cu129", "v0.20.2-aarch64-cu129"),
        ("vllm/vllm-openai:v0.8.5.post1@sha256:" + "0" * 64, "v0.8.5.post1"),
        ("vllm/vllm-openai@sha256:" + "0" * 64, None),
        ("vllm/vllm-openai:nightly", None),
        ("vllm/vllm-openai-cpu:v0.20.2", None),
        ("lmcache/vllm-openai:v0.3.1", None),
        ("myvllm/vllm-openai:v0.3.1", None),
    ],
)
def test_tags_are_read_as_vllm_publishes_them(ref: str, tag: str | None) -> None:
    found = read_tag(ref)
    assert (str(found) if found else None) == tag


def test_the_nearest_images_come_first() -> None:
    near = [str(tag) for tag in others(table(), Tag(Version("0.20.2")), "x86_64")]
    assert near[:3] == ["v0.20.2-cu129", "v0.20.0", "v0.20.0-cu129"]
    assert near.index("v0.7.3") < near.index("v0.22.1") < near.index("v0.33.0")


@pytest.mark.parametrize(
    ("built", "gpu", "runs"),
    [
        ("8.0", "8.6", True), ("8.6", "8.0", False), ("8.0", "9.0", False), ("8.0+PTX", "9.0", True),
        ("9.0+PTX", "8.9", False), ("8.7", "8.7", True), ("8.7", "8.9", False), ("8.0", "8.7", False),
        ("8.0+PTX", "11.0", False), ("10.0", "10.3", True), ("12.0", "12.1", True),
    ],
)  # fmt: skip
def test_code_runs_on_its_major_alone_unless_it_can_be_compiled_anew(built: str, gpu: str, runs: bool) -> None:
    target = Target(Version(built.removesuffix("+PTX")), built.endswith("+PTX"))
    assert target.runs_on(Version(gpu), table().tegra.capabilities) == runs
    assert str(target) == built
