"""What an engine takes beside weights and KV cache. Estimates, each with where it comes from; the rest of a sum is not.

vLLM runs one batch of dummies at start, measures what it took at most, and gives the KV cache what is left of its share
(gpu_worker.determine_available_memory). So the estimates stand for that batch.
"""

from dataclasses import dataclass

from onprem_llm.planning.memory.architecture import Architecture
from onprem_llm.planning.memory.settings import GIB, Settings

MIB = 1024**2
# What nvidia-smi counts and CUDA does not have: 24576 MiB are 23.58 GiB to CUDA on an RTX 3090 (vllm#10517), 81559 are
# 79.1 on an H100.
DRIVER_SHARE, DRIVER_AT_LEAST = 0.01, 450 * MIB
# Libraries' own memory after start, "non_torch_memory": 0.35 GiB on one GPU (vllm#10517); buffers of NCCL and of the
# all-reduce of its own with several.
LIBRARIES, LIBRARIES_TOGETHER = round(0.35 * GIB), GIB
# CUDA graphs: 0.17 to 0.65 GiB (vllm#30515, vllm#21489).
GRAPHS = GIB // 2
# Tokens of a batch and requests at once that vLLM chooses by the GPU (arg_utils, v0.32), for memory up to so many GiB.
BY_MEMORY = ((70, 2048, 256), (160, 8192, 1024), (10**6, 16384, 1024))
# The kind that is no GPU: a host's own memory, and what vLLM chooses there.
CPU = "CPU"
ON_CPU = (2048, 128)
# The logits of a step in the model's dtype, in 32 bits, sorted, and their places.
LOGIT_BYTES = 12


@dataclass(frozen=True, slots=True)
class Overhead:
    """Estimated bytes on each GPU."""

    libraries: int
    activations: int
    graphs: int

    @property
    def bytes(self) -> int:
        """All together."""
        return self.libraries + self.activations + self.graphs


def overhead_of(model: Architecture, settings: Settings, gpu_memory: int, gpu_name: str) -> Overhead:
    """Estimate what a GPU of so many bytes needs beside weights and cache."""
    tokens, sequences = batch_of(settings, gpu_memory, gpu_name)
    # Of one layer at a time: gate and up, their product, and the stream of the hidden states. Llama 3.1 8B took
    # 109,700 bytes a token (vllm#10517, from 20,000 to 29,000 tokens), and this says 110,592.
    width = 3 * model.intermediate / settings.tensor + 3 * model.hidden
    layer = tokens * width * (4 if settings.dtype == "float32" else 2)
    sampling = sequences * model.vocabulary * LOGIT_BYTES
    together = settings.gpus > 1
    graphs = GRAPHS if settings.graphs_counted and not settings.eager else 0
    return Overhead(LIBRARIES_TOGETHER if together else LIBRARIES, round(max(layer, sampling)), graphs)


def batch_of(settings: Settings, gpu_memory: int, gpu_name: str) -> tuple[int, int]:
    """Return the tokens and the requests of the largest batch: as set, else as vLLM chooses for such a GPU."""
    tokens, sequences = next((t, s) for limit, t, s in BY_MEMORY if gpu_memory < limit * GIB)
    if "a100" in gpu_name.lower():
        tokens, sequences = BY_MEMORY[0][1:]
    if gpu_name == CPU:
        tokens, sequences = ON_CPU
    return settings.batched_tokens or tokens, settings.sequences or sequences


def driver_reserve(gpu_memory: int) -> int:
    """Estimate how much of what nvidia-smi counts CUDA cannot have."""
    return max(DRIVER_AT_LEAST, round(gpu_memory * DRIVER_SHARE)) if gpu_memory > 2 * DRIVER_AT_LEAST else 0
