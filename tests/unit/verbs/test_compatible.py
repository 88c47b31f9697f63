"""What cannot run is refused by the commands, before a registry is asked and a host is sent anything."""

import json
from pathlib import Path
from typing import Any, NoReturn

import pytest
import recorded_facts as made
from click.testing import CliRunner, Result
from tests.made_facts import facts_of, host_facts

from onprem_llm.errors import InvalidError
from onprem_llm.hosts import Current
from onprem_llm.locking.registry_images import RegistryImages
from onprem_llm.main import cli
from onprem_llm.planned import with_images
from onprem_llm.planning.plan import plan
from onprem_llm.planning.types import ImageSource
from onprem_llm.spec.deployment import load_deployment
from onprem_llm.spec.site import Site
from onprem_llm.wanted import wanted_with

pytestmark = pytest.mark.usefixtures("site_of_defaults")

MODEL = """api_version: 1
name: big
model: ./Tiny
engine: {{image: "vllm/vllm-openai:{tag}", engine_args: {{{args}}}}}
"""
DISK = {"mount": "/", "filesystem": "ext4", "size_bytes": 10**12, "free_bytes": 10**12}
DIGEST = "sha256:" + "0" * 64
H100 = "NVIDIA H100 80GB HBM3"


def host(gpu: str, driver: str | None = None, **change: object) -> dict[str, Any]:
    gpus = [{"name": gpu, "memory_bytes": 2**34, "pci_id": None}]
    return host_facts(gpus=gpus, driver=driver, disks=[DISK], **change)


@pytest.fixture(autouse=True)
def _no_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(*words: object) -> NoReturn:
        raise AssertionError(f"the registry was asked: {words}")

    monkeypatch.setattr(RegistryImages, "resolve", asked)


@pytest.fixture
def unhashed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hashing takes hours where weights are large: fail where it begins."""

    def hashed(folder: Path, cache: Path) -> NoReturn:
        raise AssertionError(f"{folder} was hashed")

    for module in ("locking.named_models", "facts.plan", "wanted"):
        monkeypatch.setattr(f"onprem_llm.{module}.scan_folder", hashed)


def run(folder: Path, verb: str, tag: str, args: str = "", **hosts: dict[str, Any]) -> Result:
    (folder / "model.yaml").write_text(MODEL.format(tag=tag, args=args))
    (folder / "facts.json").write_bytes(facts_of(**hosts).data)
    (folder / "inventory.ini").write_text("gpu1 ansible_host=192.0.2.1\n")
    words = [verb, str(folder / "model.yaml"), "--facts", str(folder / "facts.json")]
    more = {"plan": ["-i", str(folder / "inventory.ini"), "--json"],
            "lock": ["-o", str(folder / "out"), "--skip", "packages", "--skip", "wheels"]}  # fmt: skip
    return CliRunner().invoke(cli, [*words, *more[verb]])


def refusal(done: Result) -> InvalidError:
    assert isinstance(done.exception, InvalidError), done.output
    return done.exception


@pytest.mark.parametrize("verb", ["plan", "lock"])
def test_a_driver_of_the_facts_decides(folder: Path, verb: str) -> None:
    error = refusal(run(folder, verb, "v0.20.2", gpu1=host(H100, "535.183.01")))
    assert error.message == (
        "gpu1: driver 535.183.01 cannot run vllm/vllm-openai:v0.20.2 (CUDA 13.0, driver >= 580.65.06)"
    )
    assert error.hint is not None
    assert error.hint.startswith("use vllm/vllm-openai:v0.20.2-cu129, or upgrade the driver")
    assert not (folder / "out").exists()


@pytest.mark.usefixtures("unhashed")
@pytest.mark.parametrize("verb", ["plan", "lock"])
def test_it_is_refused_before_weights_are_hashed(folder: Path, verb: str) -> None:
    error = refusal(run(folder, verb, "v0.20.2", gpu1=host(H100, "535.183.01")))
    assert "cannot run vllm/vllm-openai:v0.20.2" in error.message
    done = run(folder, verb, "v0.20.2", gpu1=host(H100, "580.95.05"))
    assert "was hashed" in str(done.exception)


@pytest.mark.usefixtures("unhashed")
def test_a_lock_of_two_names_the_one_that_cannot_run_before_any_is_hashed(folder: Path) -> None:
    (folder / "good.yaml").write_text(MODEL.format(tag="v0.19.1", args="").replace("name: big", "name: good"))
    (folder / "model.yaml").write_text(MODEL.format(tag="v0.20.2", args=""))
    (folder / "facts.json").write_bytes(facts_of(gpu1=host(H100, "535.183.01")).data)
    words = ["lock", str(folder / "good.yaml"), str(folder / "model.yaml"), "--facts", str(folder / "facts.json")]
    error = refusal(CliRunner().invoke(cli, [*words, "--skip", "packages", "--skip", "wheels"]))
    assert "cannot run vllm/vllm-openai:v0.20.2" in error.message


@pytest.mark.parametrize("verb", ["plan", "lock"])
def test_a_gpu_of_the_facts_decides_by_its_name(folder: Path, verb: str) -> None:
    error = refusal(run(folder, verb, "v0.20.2", gpu1=host("Tesla V100-SXM2-32GB")))
    assert error.message.startswith("gpu1: Tesla V100-SXM2-32GB (compute capability 7.0) cannot run")
    assert error.hint == "use vllm/vllm-openai:v0.19.1"


@pytest.mark.parametrize("verb", ["plan", "lock"])
@pytest.mark.parametrize(
    ("config", "tag", "args", "hint"),
    [
        ({}, "v0.11.0", "dtype: bfloat16", "set `dtype: half` in engine.engine_args"),
        ({"torch_dtype": "bfloat16"}, "v0.7.3", "",
         "use vllm/vllm-openai:v0.9.2, or set `dtype: half` in engine.engine_args"),
        ({"quantization_config": {"quant_method": "mxfp4"}}, "v0.11.0", "", "take the model in another format"),
    ],
)  # fmt: skip
def test_numbers_of_the_model_decide(
    folder: Path, verb: str, config: dict[str, object], tag: str, args: str, hint: str
) -> None:
    (folder / "Tiny" / "config.json").write_text(json.dumps(config))
    error = refusal(run(folder, verb, tag, args, gpu1=host("Tesla T4")))
    assert "Tesla T4 (compute capability 7.5)" in error.message
    assert error.hint == hint


def test_a_plan_says_what_facts_do_not(folder: Path) -> None:
    done = run(folder, "plan", "v0.20.2", gpu1=host(H100))
    assert done.exception is None, done.output
    said = "gpu1: vllm/vllm-openai:v0.20.2 wants CUDA 13.0, driver >= 580.65.06; which driver the host has is not known"
    assert any(text.startswith(said) for text in json.loads(done.stdout)["warnings"])


def test_a_plan_for_hosts_that_fit_has_nothing_to_say(folder: Path) -> None:
    done = run(folder, "plan", "v0.20.2", gpu1=host(H100, "580.95.05"))
    assert done.exception is None, done.output
    assert not any("vllm/vllm-openai" in text for text in json.loads(done.stdout)["warnings"])


def test_a_lock_needs_one_host_that_can_and_names_the_others(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes on to the registry, which says here that it was asked."""
    both = {"gpu1": host(H100, "580.95.05"), "gpu2": host("Tesla V100"), "web": host_facts(disks=[DISK])}
    done = run(folder, "lock", "v0.20.2", **both)
    assert isinstance(done.exception, AssertionError), done.output
    assert "the registry was asked" in str(done.exception)
    (folder / "model.yaml").write_text(MODEL.format(tag="v0.20.2", args="") + "resources: {gpu_models: [V100]}\n")
    words = ["lock", str(folder / "model.yaml"), "--facts", str(folder / "facts.json"), "-o", str(folder / "out")]
    error = refusal(CliRunner().invoke(cli, [*words, "--skip", "packages", "--skip", "wheels"]))
    assert error.message.startswith("gpu2: Tesla V100 (compute capability 7.0) cannot run")


def t4(folder: Path) -> tuple[Path, Current]:
    """Return a model.yaml whose model is in bfloat16, and a host with a T4."""
    (folder / "Tiny" / "config.json").write_text('{"torch_dtype": "bfloat16"}')
    (folder / "model.yaml").write_text(MODEL.format(tag="v0.7.3", args=""))
    old = made.host("lab-1", 1, gpus=1, model="Tesla T4", gateway=True)
    old["gpus"]["devices"][0]["compute_cap"] = "7.5"
    return folder / "model.yaml", made.current({"lab-1": old})


@pytest.mark.usefixtures("unhashed")
def test_a_deploy_reads_the_models_numbers_and_is_refused_before_weights_are_hashed(folder: Path) -> None:
    path, current = t4(folder)
    with pytest.raises(InvalidError, match="takes the model's, which is bfloat16"):
        wanted_with(load_deployment(path), path, Site(), folder / "inventory.ini", current, made.SALT)


def test_one_that_the_book_has_is_judged_where_it_is_placed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What runs may go on, whatever the table says; where it is to start, the plan is refused."""
    path, current = t4(folder)
    monkeypatch.setattr("onprem_llm.wanted.check_hosts", lambda *words: ())
    wanted = wanted_with(load_deployment(path), path, Site(), folder / "inventory.ini", current, made.SALT)
    # As deploy does: the registry says which digest a tag is, and nothing is pulled.
    wanted = with_images(wanted, current, lambda refs: {ref: ImageSource(ref, pull=f"{ref}@{DIGEST}") for ref in refs})
    with pytest.raises(InvalidError, match="takes the model's, which is bfloat16"):
        plan(Site(), wanted, current)
