"""Figures of published models: from config.json as its hub shows it (or where `source` says), the parts that count.

`kv_bytes` is what a token keeps in all layers at 16 bits, on one GPU. Where others have published it, or vLLM has said
it itself, `said` names where.
"""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Published:
    name: str
    config: dict[str, Any]
    kv_bytes: int
    source: str
    said: str = ""


LITGPT = "Lightning-AI/litgpt, litgpt/config.py at 2685705, which names the config.json of each"
INSIGHTS = "arXiv 2505.09343, table 1: KV cache a token"


def _config(
    kind: str, layers: int, hidden: int, heads: int, kv: int | None, inner: int, words: int, **more: Any
) -> Any:
    found = {
        "model_type": kind, "num_hidden_layers": layers, "hidden_size": hidden, "num_attention_heads": heads,
        "intermediate_size": inner, "vocab_size": words, "torch_dtype": "bfloat16", **more,
    }  # fmt: skip
    return found if kv is None else {**found, "num_key_value_heads": kv}


def _gpt_oss(layers: int, experts: int) -> Any:
    return _config(
        "gpt_oss", layers, 2880, 64, 8, 2880, 201088, head_dim=64, sliding_window=128, num_local_experts=experts,
        num_experts_per_tok=4, max_position_embeddings=131072,
        layer_types=["sliding_attention", "full_attention"] * (layers // 2),
        rope_scaling={"rope_type": "yarn", "factor": 32.0, "original_max_position_embeddings": 4096},
        quantization_config={"quant_method": "mxfp4"},
    )  # fmt: skip


def _deepseek(kind: str, layers: int, hidden: int, heads: int, inner: int, words: int, **more: Any) -> Any:
    return _config(
        kind, layers, hidden, heads, heads, inner, words, kv_lora_rank=512, qk_rope_head_dim=64, qk_nope_head_dim=128,
        v_head_dim=128, max_position_embeddings=163840,
        rope_scaling={"type": "yarn", "factor": 40, "original_max_position_embeddings": 4096}, **more,
    )  # fmt: skip


LLAMA_3_8B = _config("llama", 32, 4096, 32, 8, 14336, 128256, max_position_embeddings=8192)
GPT_OSS_120B = _gpt_oss(36, 128)
QWEN3_30B_A3B = _config(
    "qwen3_moe", 48, 2048, 32, 4, 6144, 151936, head_dim=128, num_experts=128, num_experts_per_tok=8,
    moe_intermediate_size=768, max_position_embeddings=262144, sliding_window=None, use_sliding_window=False,
)  # fmt: skip
# As published: the rest is left to the defaults of the class.
GEMMA_3_4B = {
    "model_type": "gemma3", "torch_dtype": "bfloat16",
    "text_config": {
        "hidden_size": 2560, "intermediate_size": 10240, "model_type": "gemma3_text", "num_hidden_layers": 34,
        "rope_scaling": {"factor": 8.0, "rope_type": "linear"}, "sliding_window": 1024,
    },
    "vision_config": {"hidden_size": 1152, "num_hidden_layers": 27, "num_attention_heads": 16},
}  # fmt: skip
PHI_3_MINI = _config("phi3", 32, 3072, 32, 32, 8192, 32064, sliding_window=2047, max_position_embeddings=4096)
DEEPSEEK_V3 = _deepseek(
    "deepseek_v3", 61, 7168, 128, 18432, 129280, moe_intermediate_size=2048, n_routed_experts=256,
    num_experts_per_tok=8, num_nextn_predict_layers=1, quantization_config={"quant_method": "fp8"},
)  # fmt: skip

MODELS = (
    Published("meta-llama/Llama-2-7b-hf", _config("llama", 32, 4096, 32, 32, 11008, 32000), 32 * 2 * 32 * 128 * 2,
              LITGPT, "524,288: 0.5 MiB, every head its own"),
    Published("meta-llama/Meta-Llama-3-8B", LLAMA_3_8B, 32 * 2 * 8 * 128 * 2, LITGPT,
              "vllm#10517: 1952 blocks of 16 tokens in 3.81 GiB"),
    Published("meta-llama/Meta-Llama-3-70B", _config("llama", 80, 8192, 64, 8, 28672, 128256), 80 * 2 * 8 * 128 * 2,
              LITGPT),
    Published("meta-llama/Llama-3.1-405B", _config("llama", 126, 16384, 128, 8, 53248, 128256), 516_096, INSIGHTS,
              f"{INSIGHTS}: 516.096 KB"),
    Published("Qwen/Qwen2.5-7B", _config("qwen2", 28, 3584, 28, 4, 18944, 152064, use_sliding_window=False,
              sliding_window=131072, max_window_layers=28), 28 * 2 * 4 * 128 * 2, LITGPT),
    Published("Qwen/Qwen2.5-72B", _config("qwen2", 80, 8192, 64, 8, 29568, 152064), 327_680, INSIGHTS,
              f"{INSIGHTS}: 327.680 KB"),
    Published("Qwen/Qwen3-8B", _config("qwen3", 36, 4096, 32, 8, 12288, 151936, head_dim=128), 36 * 2 * 8 * 128 * 2,
              LITGPT),
    Published("Qwen/Qwen3-30B-A3B", QWEN3_30B_A3B, 48 * 2 * 4 * 128 * 2, LITGPT,
              "vllm#34076: 24.0 GiB for 262,144 tokens of Qwen3-Coder-30B-A3B, whose heads are the same"),
    Published("mistralai/Mistral-7B-v0.1", _config("mistral", 32, 4096, 32, 8, 14336, 32000, sliding_window=4096,
              max_position_embeddings=32768), 32 * 2 * 8 * 128 * 2, LITGPT),
    Published("mistralai/Mixtral-8x7B-v0.1", _config("mixtral", 32, 4096, 32, 8, 14336, 32000, sliding_window=None,
              num_local_experts=8, num_experts_per_tok=2), 32 * 2 * 8 * 128 * 2, LITGPT),
    Published("deepseek-ai/DeepSeek-V2-Lite", _deepseek("deepseek_v2", 27, 2048, 16, 10944, 102400,
              moe_intermediate_size=1408, n_routed_experts=64, num_experts_per_tok=6), 27 * (512 + 64) * 2,
              "deepseek-ai/DeepSeek-Coder-V2-Lite-Base, config.json; DeepSeek-V3, inference/configs/config_16B.json"),
    Published("deepseek-ai/DeepSeek-V2", _deepseek("deepseek_v2", 60, 5120, 128, 12288, 102400,
              moe_intermediate_size=1536, n_routed_experts=160, num_experts_per_tok=6), 60 * (512 + 64) * 2,
              "DeepSeek-V3, inference/configs/config_236B.json"),
    Published("deepseek-ai/DeepSeek-V3", DEEPSEEK_V3, 70_272, "DeepSeek-V3, inference/configs/config_671B.json",
              f"{INSIGHTS}: 70.272 KB"),
    Published("google/gemma-2-9b", _config("gemma2", 42, 3584, 16, 8, 14336, 256000, head_dim=256,
              sliding_window=4096, max_position_embeddings=8192), 42 * 2 * 8 * 256 * 2, LITGPT),
    Published("google/gemma-3-4b-it", GEMMA_3_4B, 34 * 2 * 4 * 256 * 2, f"{LITGPT}; transformers, Gemma3TextConfig"),
    Published("google/gemma-3-27b-it", {"model_type": "gemma3", "text_config": _config("gemma3_text", 62, 5376, 32, 16,
              21504, 262208, head_dim=128, sliding_window=1024)}, 62 * 2 * 16 * 128 * 2,
              f"{LITGPT}; transformers, convert_gemma3_weights.py"),
    Published("microsoft/Phi-3-mini-4k-instruct", PHI_3_MINI, 32 * 2 * 32 * 96 * 2,
              "copies of its config.json on the hub, such as ehartford/phi3-4k"),
    Published("microsoft/phi-4", _config("phi3", 40, 5120, 40, 10, 17920, 100352, sliding_window=None),
              40 * 2 * 10 * 128 * 2, LITGPT),
    Published("openai/gpt-oss-20b", _gpt_oss(24, 32), 24 * 2 * 8 * 64 * 2,
              "copies of its config.json on the hub, such as cryptonaut/AltiMind-sft"),
    Published("openai/gpt-oss-120b", GPT_OSS_120B, 36 * 2 * 8 * 64 * 2, "transformers, GptOssConfig",
              "vllm#27508: 4.54 GiB for 131,072 tokens"),
    Published("tiiuae/falcon-7b", {"model_type": "falcon", "num_hidden_layers": 32, "hidden_size": 4544,
              "num_attention_heads": 71, "multi_query": True, "new_decoder_architecture": False,
              "vocab_size": 65024}, 32 * 2 * 1 * 64 * 2, LITGPT, "one head for all"),
)  # fmt: skip
