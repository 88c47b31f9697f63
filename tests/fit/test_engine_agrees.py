"""The real vLLM, on CPUs: the KV cache that it reports for a budget is the one that `fit` has counted.

One engine an architecture, without weights: its cache is counted from config.json alone. `dummy` makes them up.
"""

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.conftest import cache
from tests.made_facts import facts_of, host_facts

ROOT = Path(__file__).resolve().parents[2]
IMAGE = "onprem-llm/vllm-cpu:0.32.0"
START = 300
GIB = 1
# Blocks are whole, and nothing else is between the two; the bar is 5 %.
AGREES = 0.001
MODEL = f"""\
api_version: 1
name: tiny
model: ./model
engine: {{image: "{IMAGE}", engine_args: {{dtype: float32, enforce_eager: true}}}}
resources: {{gpus: 0}}
env: {{VLLM_CPU_KVCACHE_SPACE: {GIB}}}
"""
SMALL = {
    "hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64,
    "vocab_size": 1024, "max_position_embeddings": 8192, "torch_dtype": "float32", "rms_norm_eps": 1e-6,
}  # fmt: skip
GEMMA = {"query_pre_attn_scalar": 64, "hidden_activation": "gelu_pytorch_tanh", "sliding_window": 512}
MODELS: dict[str, dict[str, Any]] = {
    "gemma2": {**SMALL, **GEMMA, "architectures": ["Gemma2ForCausalLM"], "num_hidden_layers": 5},
    "gemma3_text": {**SMALL, **GEMMA, "architectures": ["Gemma3ForCausalLM"], "num_hidden_layers": 8,
                    "sliding_window_pattern": 6},
    "mistral": {**SMALL, "architectures": ["MistralForCausalLM"], "num_hidden_layers": 3, "sliding_window": 1024},
    "qwen3_moe": {**SMALL, "architectures": ["Qwen3MoeForCausalLM"], "num_hidden_layers": 3, "num_experts": 4,
                  "num_experts_per_tok": 2, "moe_intermediate_size": 128, "norm_topk_prob": True,
                  "decoder_sparse_step": 1, "mlp_only_layers": []},
    "deepseek_v2": {**SMALL, "architectures": ["DeepseekV2ForCausalLM"], "num_hidden_layers": 3, "head_dim": None,
                    "num_key_value_heads": 4, "torch_dtype": "bfloat16", "kv_lora_rank": 512, "q_lora_rank": None,
                    "qk_rope_head_dim": 64, "qk_nope_head_dim": 128, "v_head_dim": 128, "n_routed_experts": 4,
                    "first_k_dense_replace": 2, "moe_intermediate_size": 128, "n_shared_experts": 1,
                    "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1, "topk_method": "greedy"},
}  # fmt: skip


@pytest.fixture(scope="session")
def tiny() -> Path:
    """Return the tiny model of the project; it and the engine's image are made where they are not there."""
    for what in ("vllm-cpu", "tiny-model"):
        subprocess.run(["sh", "images/build.sh", what], cwd=ROOT, check=True)
    return cache() / "models" / "tiny"


def folder_of(tiny: Path, folder: Path, kind: str) -> Path:
    """Write a site's folder with model.yaml, facts and a model: the tiny one, or one of this kind without weights."""
    shutil.copytree(tiny, folder / "model")
    if kind != "llama":
        (folder / "model" / "config.json").write_text(json.dumps({**MODELS[kind], "model_type": kind}))
    (folder / "model.yaml").write_text(MODEL)
    (folder / "facts.json").write_bytes(facts_of(here=host_facts()).data)
    return folder


def counted(folder: Path) -> dict[str, Any]:
    """Return the sum that `fit` makes."""
    command = [
        str(Path(sys.executable).with_name("onprem-llm")),
        "fit",
        "model.yaml",
        "--facts",
        "facts.json",
        "--json",
    ]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)["hosts"][0]["sum"]
    return found


@contextmanager
def engine(model: Path, *args: str) -> Iterator[str]:
    """Start an engine, and yield its id; it is ended by that."""
    limits = ["--cpus", "2", "--shm-size", "2g", "--network", "none"]
    variables = ["--env", "HF_HUB_OFFLINE=1", "--env", f"VLLM_CPU_KVCACHE_SPACE={GIB}"]
    serve = ["-n", "19", "vllm", "serve", "/model", "--dtype", "float32", "--enforce-eager", *args]
    command = [
        "docker", "run", "--detach", *limits, *variables, "--volume", f"{model}:/model:ro", "--entrypoint", "nice",
        IMAGE, *serve,
    ]  # fmt: skip
    container = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    try:
        yield container
    finally:
        subprocess.run(["docker", "rm", "--force", container], capture_output=True, check=True)


def reported(container: str) -> int:
    """Return the tokens that the engine says its cache holds; fail with its last lines where it says nothing."""
    deadline, text = time.monotonic() + START, ""
    while time.monotonic() < deadline:
        done = subprocess.run(["docker", "logs", container], capture_output=True, text=True, check=True)
        text = done.stdout + done.stderr
        found = re.search(r"KV cache size: ([\d,]+) tokens", text)
        if found:
            return int(found[1].replace(",", ""))
        if "Traceback" in text:
            break
        time.sleep(2)
    pytest.fail(f"the engine did not say how large its cache is:\n{text[-3000:]}")


@pytest.mark.parametrize("kind", ["llama", *MODELS])
def test_the_engine_has_the_cache_that_was_counted(tiny: Path, tmp_path: Path, kind: str) -> None:
    folder = folder_of(tiny, tmp_path / "site", kind)
    ours = counted(folder)
    dummy = () if kind == "llama" else ("--load-format", "dummy")
    with engine(folder / "model", *dummy) as container:
        theirs = reported(container)
    print(f"{kind}: vLLM reports {theirs} tokens in {GIB} GiB, fit counts {ours['kv_tokens']}")
    assert ours["kv_tokens"] == pytest.approx(theirs, rel=AGREES)


def test_the_weights_that_were_counted_are_the_files(tiny: Path, tmp_path: Path) -> None:
    ours = counted(folder_of(tiny, tmp_path / "site", "llama"))
    assert ours["weights_bytes"] == pytest.approx((tiny / "model.safetensors").stat().st_size, rel=0.02)
