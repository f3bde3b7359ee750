"""Shapes of public models by name, so that a plan needs neither their weights nor the network.

Each is what the model's own ``config.json`` says; a test holds that they come to the published numbers of parameters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class KnownModel:
    """What a plan needs of a ``config.json``."""

    hub: str
    """Its name on the hub."""
    width: int
    inner: int
    layers: int
    heads: int
    kv_heads: int
    vocabulary: int
    context: int
    head_dim: int | None = None
    """None = ``width / heads``."""
    tied: bool = False

    def config(self) -> dict[str, Any]:
        """As in a ``config.json``."""
        return {
            "hidden_size": self.width,
            "intermediate_size": self.inner,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_dim or self.width // self.heads,
            "vocab_size": self.vocabulary,
            "max_position_embeddings": self.context,
            "tie_word_embeddings": self.tied,
        }


def tied(hub: str, *numbers: int, head_dim: int | None = None) -> KnownModel:
    """A model with one matrix for input and output embeddings."""
    width, inner, layers, heads, kv_heads, vocabulary, context = numbers
    return KnownModel(hub, width, inner, layers, heads, kv_heads, vocabulary, context, head_dim, True)


KNOWN = {
    "smollm2:135m": tied("HuggingFaceTB/SmolLM2-135M", 576, 1536, 30, 9, 3, 49152, 8192),
    "smollm2:360m": tied("HuggingFaceTB/SmolLM2-360M", 960, 2560, 32, 15, 5, 49152, 8192),
    "gemma3:270m": tied("google/gemma-3-270m", 640, 2048, 18, 4, 1, 262144, 32768, head_dim=256),
    "qwen2.5:0.5b": tied("Qwen/Qwen2.5-0.5B", 896, 4864, 24, 14, 2, 151936, 32768),
    "qwen3:0.6b": tied("Qwen/Qwen3-0.6B-Base", 1024, 3072, 28, 16, 8, 151936, 32768, head_dim=128),
    "gemma3:1b": tied("google/gemma-3-1b-pt", 1152, 6912, 26, 4, 1, 262144, 32768, head_dim=256),
    "tinyllama:1.1b": KnownModel(
        "TinyLlama/TinyLlama-1.1B-intermediate-step-1431k-3T", 2048, 5632, 22, 32, 4, 32000, 2048
    ),
    "llama3.2:1b": tied("meta-llama/Llama-3.2-1B", 2048, 8192, 16, 32, 8, 128256, 131072, head_dim=64),
    "olmo2:1b": KnownModel("allenai/OLMo-2-0425-1B", 2048, 8192, 16, 16, 16, 100352, 4096),
    "qwen2.5:1.5b": tied("Qwen/Qwen2.5-1.5B", 1536, 8960, 28, 12, 2, 151936, 131072),
    "smollm2:1.7b": tied("HuggingFaceTB/SmolLM2-1.7B", 2048, 8192, 24, 32, 32, 49152, 8192),
    "qwen3:1.7b": tied("Qwen/Qwen3-1.7B-Base", 2048, 6144, 28, 16, 8, 151936, 32768, head_dim=128),
    "gemma2:2b": tied("google/gemma-2-2b", 2304, 9216, 26, 8, 4, 256000, 8192, head_dim=256),
    "qwen2.5:3b": tied("Qwen/Qwen2.5-3B", 2048, 11008, 36, 16, 2, 151936, 32768),
    "llama3.2:3b": tied("meta-llama/Llama-3.2-3B", 3072, 8192, 28, 24, 8, 128256, 131072, head_dim=128),
    "qwen3:4b": tied("Qwen/Qwen3-4B-Base", 2560, 9728, 36, 32, 8, 151936, 32768, head_dim=128),
    "llama:7b": KnownModel("huggyllama/llama-7b", 4096, 11008, 32, 32, 32, 32000, 2048),
    "llama2:7b": KnownModel("meta-llama/Llama-2-7b-hf", 4096, 11008, 32, 32, 32, 32000, 4096),
    "mistral:7b": KnownModel("mistralai/Mistral-7B-v0.1", 4096, 14336, 32, 32, 8, 32000, 32768),
    "olmo2:7b": KnownModel("allenai/OLMo-2-1124-7B", 4096, 11008, 32, 32, 32, 100352, 4096),
    "qwen2.5:7b": KnownModel("Qwen/Qwen2.5-7B", 3584, 18944, 28, 28, 4, 152064, 131072),
    "llama3:8b": KnownModel("meta-llama/Meta-Llama-3-8B", 4096, 14336, 32, 32, 8, 128256, 8192),
    "llama3.1:8b": KnownModel("meta-llama/Llama-3.1-8B", 4096, 14336, 32, 32, 8, 128256, 131072),
    "qwen3:8b": KnownModel("Qwen/Qwen3-8B-Base", 4096, 12288, 36, 32, 8, 151936, 32768, head_dim=128),
    "gemma2:9b": tied("google/gemma-2-9b", 3584, 14336, 42, 16, 8, 256000, 8192, head_dim=256),
    "llama:13b": KnownModel("huggyllama/llama-13b", 5120, 13824, 40, 40, 40, 32000, 2048),
    "llama2:13b": KnownModel("meta-llama/Llama-2-13b-hf", 5120, 13824, 40, 40, 40, 32000, 4096),
    "llama2:70b": KnownModel("meta-llama/Llama-2-70b-hf", 8192, 28672, 80, 64, 8, 32000, 4096),
    "llama3:70b": KnownModel("meta-llama/Meta-Llama-3-70B", 8192, 28672, 80, 64, 8, 128256, 8192),
}
"""By ``family:size``, smallest first."""


def known_model(name: str) -> KnownModel | None:
    """The model of this short name, or of this name on the hub; none where the table does not have it."""
    lowered = name.lower()
    for short, model in KNOWN.items():
        if lowered in (short, short.replace(":", "-"), model.hub.lower()):
            return model
    return None
