"""model.yaml: what is refused, and how the refusal reads."""

from pathlib import Path

import pytest

from onprem_llm.errors import InvalidError
from onprem_llm.spec.deployment import Deployment, load_deployment, model_folder, parse_deployment, secret_references

ROOT = Path(__file__).resolve().parents[3]
SMALLEST = "api_version: 1\nname: tiny\nmodel: ./m\nengine: {image: 'vllm/vllm-openai:v0.11.0'}\n"


def problems(text: str) -> str:
    with pytest.raises(InvalidError) as raised:
        parse_deployment(text, "model.yaml")
    assert raised.value.hint or "expected" in raised.value.message
    return f"{raised.value.message}\n{raised.value.details}"


def with_args(args: str) -> str:
    return SMALLEST.replace("engine: {", f"engine: {{engine_args: {{{args}}}, ")


def test_the_smallest_file_has_defaults_for_the_rest() -> None:
    deployment = parse_deployment(SMALLEST, "model.yaml")
    assert deployment.served_name == "tiny"
    assert deployment.task == "chat"
    assert deployment.resources.gpus == 1
    assert (deployment.port, deployment.listen) == (8000, "cluster")
    assert (deployment.timeouts.start, deployment.timeouts.readiness) == (1800, 300)


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.yaml")), ids=lambda path: path.name)
def test_the_examples_are_right(path: Path) -> None:
    assert load_deployment(path).api_version == 1


def test_several_problems_are_shown_at_once_each_with_its_line() -> None:
    text = problems(SMALLEST + "port: '80'\nresources: {gpu: 1}\ntask: talk\n")
    assert "3 problems" in text
    assert "port (line 5): found the text '80', expected a whole number" in text
    assert "resources.gpu (line 6): unknown key; did you mean gpus?" in text
    assert "task (line 7): found the text 'talk', expected 'chat', 'completion', 'embed' or 'rerank'" in text


@pytest.mark.parametrize(
    ("flag", "instead"),
    [
        ("host", "`listen`"),
        ("port", "`port`"),
        ("model", "`model`"),
        ("api-key", "made on the hosts"),
        ("api_key", "made on the hosts"),
        ("served-model-name", "`served_name`"),
        ("trust_remote_code", "`trust_remote_code`"),
        ("trust-remote", "`trust_remote_code`"),
        ("no-trust-remote-code", "`trust_remote_code`"),
        ("--api-key", "made on the hosts"),
        ("config", "engine.engine_args"),
        ("uds", "`listen`"),
        ("ssl_keyfile", "gateway"),
        ("ssl-certfile", "gateway"),
        ("tp", "tensor_parallel_size"),
        ("hf-token", "from_env"),
    ],
)
def test_flags_that_the_plan_owns_are_refused_with_the_field_to_use(flag: str, instead: str) -> None:
    text = problems(with_args(f"{flag}: 1"))
    assert f"engine.engine_args.{flag} (line 4): " in text
    assert instead in text


def test_any_other_flag_passes() -> None:
    args = (
        "max-model-len: 1, gpu_memory_utilization: 0.9, x: true, y: null, z: [a, 1], w: {a: {b: 1}}, model_impl: auto"
    )
    assert len(parse_deployment(with_args(args), "model.yaml").engine.engine_args) == 7


def test_one_flag_in_two_spellings_is_refused() -> None:
    assert "stands twice" in problems(with_args("max_model_len: 1, max-model-len: 2"))


def test_a_date_is_no_value_for_a_flag() -> None:
    assert "engine.engine_args.seed (line 4): found datetime.date" in problems(with_args("seed: 2020-01-01"))


@pytest.mark.parametrize("name", ["HF_TOKEN", "MY_API_KEY", "password_db", "CLIENT_SECRET", "S3_CREDENTIALS"])
def test_a_literal_secret_is_refused(name: str) -> None:
    text = problems(SMALLEST + f"env: {{{name}: hunter2}}\n")
    assert f"{name} looks like a secret" in text
    assert "from_env" in text
    assert "hunter2" not in text


@pytest.mark.parametrize(
    "value", ["postgresql://page:hunter2@db/page", "http://u:hunter2@proxy:3128", "redis://:hunter2@r"]
)
def test_an_address_with_a_password_in_it_is_refused(value: str) -> None:
    text = problems(SMALLEST + f"env: {{WHERE: '{value}'}}\n")
    assert "WHERE holds an address with a password in it" in text
    assert "hunter2" not in text


def test_an_address_without_a_password_is_none() -> None:
    text = SMALLEST + "env: {A: 'http://proxy:3128/a@b', B: 'http://user@proxy', C: 'x:y@z'}\n"
    assert set(parse_deployment(text, "model.yaml").literal_env) == {"A", "B", "C"}


def test_a_secret_may_be_referred_to() -> None:
    text = SMALLEST + "env: {HF_TOKEN: {from_env: X}, A_KEY: {from_file: k.txt}, TOKENIZERS_PARALLELISM: 3}\n"
    deployment = parse_deployment(text, "model.yaml")
    assert deployment.literal_env == {"TOKENIZERS_PARALLELISM": "3"}
    assert secret_references(deployment.env, Path("/models")) == {
        "HF_TOKEN": {"from_env": "X"},
        "A_KEY": {"from_file": "/models/k.txt"},
    }


@pytest.mark.parametrize(
    ("addition", "said"),
    [
        ("env: {HF_TOKEN: {from_env: A, from_file: b}}", "exactly one of from_env"),
        ("env: {HF_TOKEN: {}}", "exactly one of from_env"),
        ("env: {'A-B': x}", "not a name that a shell can set"),
        ("env: {A: true}", "in quotes"),
        ("env: {VLLM_API_KEY: {from_env: A}}", "set by the plan"),
        ("env: {DO_NOT_TRACK: '0'}", "telemetry is always off"),
        ("port: 0", "port (line 5): found 0"),
        ("port: 65536", "port (line 5): found 65536"),
        ("port: true", "port (line 5): found true, expected a whole number"),
        ("listen: everywhere", "listen (line 5): found 'everywhere', expected cluster"),
        ("gpu_access: magic", "gpu_access (line 5): found the text 'magic', expected 'runtime', 'gpus' or 'cdi'"),
        ("resources: {gpus: -1}", "resources.gpus (line 5): found -1"),
        ("resources: {gpu_models: H100}", "resources.gpu_models (line 5): found the text 'H100', expected a list"),
        ("timeouts: {start: soon}", "timeouts.start (line 5): found the text 'soon', expected a whole number"),
        ("served_name: [a]", "served_name (line 5): found a list, expected text"),
        ("Port: 3", "unknown key; did you mean port?"),
    ],
)
def test_wrong_values_name_their_path(addition: str, said: str) -> None:
    assert said in problems(f"{SMALLEST}{addition}\n")


@pytest.mark.parametrize("image", ["vllm/vllm-openai", "vllm/vllm-openai:latest", "registry:5000/vllm", ""])
def test_an_image_without_a_version_is_refused(image: str) -> None:
    assert "engine.image" in problems(SMALLEST.replace("vllm/vllm-openai:v0.11.0", image))


@pytest.mark.parametrize("name", ["Tiny", "a_b", "-a", "a" * 41, "open-webui", "open-webui-admin", "gateway", "a\\n"])
def test_names_that_no_project_can_have_are_refused(name: str) -> None:
    assert "name" in problems(SMALLEST.replace("name: tiny", f'name: "{name}"'))


def test_too_few_gpus_for_the_parallel_size_are_refused() -> None:
    args = with_args("tensor_parallel_size: 4, pipeline-parallel-size: 2")
    assert "asks for 8 GPUs" in problems(args)
    assert parse_deployment(args + "resources: {gpus: 8}\n", "model.yaml").resources.gpus == 8


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "an empty file"),
        ("- a", "found a list"),
        ("name: [", "this is not YAML"),
        ("name: a\nname: b\n", "name stands twice, again on line 2"),
        ("engine: {image: a, image: b}", "engine.image stands twice"),
        ("a: !!python/object:os.system x", "this is not YAML"),
    ],
)
def test_files_that_are_no_mapping(text: str, said: str) -> None:
    assert said in problems(text)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidError, match=r"gone\.yaml: no such file"):
        load_deployment(tmp_path / "gone.yaml")
    with pytest.raises(InvalidError, match="this is a folder"):
        load_deployment(tmp_path)


def test_the_model_is_relative_to_the_file(tmp_path: Path) -> None:
    deployment = parse_deployment(SMALLEST, "model.yaml")
    assert model_folder(deployment, tmp_path / "model.yaml") == tmp_path.resolve() / "m"


def test_a_missing_field_is_named() -> None:
    assert "engine: is missing" in problems("api_version: 1\nname: a\nmodel: b\n")
    assert isinstance(parse_deployment(SMALLEST, "x"), Deployment)
