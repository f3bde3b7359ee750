"""A model of the same kind, tiny: what an architecture does with packed documents is seen on it in a second."""

from __future__ import annotations

import copy
import re
from typing import Any

import torch

SIZES = {
    r"(hidden_size|n_embd|d_model|dim|emb_dim|embedding_dim|embedding_size|word_embed_proj_dim|model_dim)": 64,
    r"(num_(hidden_)?layers|n_layers?|(encoder|decoder)_layers|num_hidden_groups|num_blocks)": 2,
    r"(num_attention_heads|n_heads?|num_heads|(encoder|decoder)_attention_heads|num_query_heads)": 4,
    r"(num_key_value_heads|num_kv_heads)": 4,
    r"(head_dim|d_head|v_head_dim|qk_nope_head_dim|attention_head_dim|kv_channels)": 16,
    r"(intermediate_size|n_inner|ffn_dim|d_ff|(encoder|decoder)_ffn_dim|.*_intermediate_size|ffn_hidden_size)": 96,
    r"(num_experts|num_local_experts|n_routed_experts|moe_num_experts)": 4,
    r"(num_experts_per_tok(en)?|moe_topk|moe_k|top_k_experts)": 2,
    r"(max_position_embeddings|n_positions|n_ctx|max_seq_len)": 128,
    r"(qk_rope_head_dim|rotary_dim)": 8,
    r"linear_num_(key|value)_heads": 2,
    r"linear_(key|value)_head_dim|linear_head_dim|mamba_d_state|ssm_state_size|state_size": 16,
    r"(n_group|num_expert_group)": 2,
    r"topk_group": 1,
    r"hidden_size_per_layer_input": 8,
    r"encoder_hash_byte_group_vocab": 50,
    r"num_kv_shared_layers": 0,
}
"""Names of settings to tiny values."""
ROPE = {"rope_type": "default", "rope_theta": 10000.0}
ASSISTANT = {
    "num_hidden_layers": 4,
    "layer_types": ["sliding_attention", "full_attention"] * 2,
    "num_kv_shared_layers": 4,
    "hidden_size_per_layer_input": 0,
    "vocab_size_per_layer_input": 0,
}
OVERRIDES: dict[str, dict[str, Any]] = {
    "bamba": {"mamba_n_heads": 4, "mamba_d_head": 32},
    "blt.encoder_config": {"hidden_size_global": 128},
    "blt.decoder_config": {"hidden_size_global": 128},
    "blt.global_config": {"hidden_size": 128, "head_dim": 32},
    "cohere_compass_text": {"rope_parameters": {"full_attention": ROPE, "sliding_attention": ROPE}},
    "dbrx.attn_config": {"rope_theta": 10000.0, "clip_qkv": 8},
    "falcon_h1": {"mamba_d_ssm": 128, "mamba_n_heads": 4, "mamba_d_head": 32},
    "granitemoehybrid": {"mamba_n_heads": 4, "mamba_d_head": 32},
    "deepseek_v2": {"num_experts_per_tok": 2},
    # Of its other kind of layers, a file that says nothing of their sizes has large ones.
    "dots3_note_text": {
        "layer_types": ["indexed_attention"] * 2,
        "head_dim": 24,
        "rope_parameters": {"indexed_attention": ROPE | {"partial_rotary_factor": 1 / 3}},
    },
    "dots1": {"n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"], "num_dense_layers": 1},
    "longcat_flash": {"expert_ffn_hidden_size": 32, "zero_expert_num": 2, "q_lora_rank": 32, "kv_lora_rank": 32},
    "mamba2": {"head_dim": 32, "n_groups": 2},
    "mimo_v2_flash": {"num_key_value_heads": 2},
    "qwen4_exp_text": {
        "indexer_n_heads": 2,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 16,
        "indexer_budget": 32,
        "indexer_compress_ratio": 4,
    },
    "reformer": {"axial_pos_shape": (8, 16), "axial_pos_embds_dim": (16, 48)},
    "xmod": {"default_language": "en_XX"},
    "zamba": {
        "num_hidden_layers": 4,
        "layers_block_type": ["linear_attention", "hybrid"] * 2,
        "attention_hidden_size": 128,
        "attention_head_dim": 32,
    },
    "zamba2": {
        "num_hidden_layers": 4,
        "layers_block_type": ["linear_attention", "hybrid"] * 2,
        "hybrid_layer_ids": [1, 3],
        "attention_hidden_size": 128,
        "attention_head_dim": 32,
        "mamba_headdim": 16,
    },
    "zaya": {"num_experts_per_tok": 1},
    "gemma4_assistant.text_config": ASSISTANT,
    "gemma4_unified_assistant.text_config": ASSISTANT,
    "hunyuan_v1_dense": {"head_dim": 16},
    "hunyuan_v1_moe": {"head_dim": 16},
    "ministral": {"head_dim": 16},
    "nemotron": {"num_key_value_heads": 4, "head_dim": 16},
}
"""What single model types need besides; a section goes by its model's type and its key."""
LARGEST = 40_000_000
"""Parameters of a model that is still tiny enough to be tried."""


def shrink(config: Any, kind: str, vocabulary: int) -> None:
    """Make a configuration tiny, in place; sections too. ``kind``: its model type."""
    from transformers import PretrainedConfig

    # Gemma 4 says by number which layers are special.
    layers = None if kind.startswith("gemma4") else getattr(config, "num_hidden_layers", None)
    sizes = {r"(decoder_)?vocab_size(_per_layer_input)?": vocabulary, **SIZES}
    if layers is not None and getattr(config, "is_heterogeneous", False):
        # Two layers of a kind are alike.
        config.per_layer_config = None
    for key, value in list(vars(config).items()):
        if isinstance(value, PretrainedConfig):
            shrink(value, value.model_type or kind, vocabulary)
            override(value, f"{kind}.{key}")
        elif isinstance(value, list) and len(value) == layers:
            kinds = [*dict.fromkeys(value)] if all(isinstance(item, str) for item in value) else value
            setattr(config, key, (kinds if len(kinds) > 1 else value)[:2])
        elif key.endswith("token_id") and isinstance(value, int):
            setattr(config, key, 0)
        elif type(value) is int and not (layers is None and "layers" in key):
            for pattern, size in sizes.items():
                if re.fullmatch(pattern, key):
                    setattr(config, key, size)
    if hasattr(config, "qk_rope_head_dim") and hasattr(config, "qk_nope_head_dim"):
        config.head_dim = config.qk_rope_head_dim
        config.qk_head_dim = config.qk_nope_head_dim + config.qk_rope_head_dim
    override(config, kind)


def override(config: Any, kind: str) -> None:
    """Set what `OVERRIDES` has for ``kind``."""
    for key, value in OVERRIDES.get(kind, {}).items():
        setattr(config, key, copy.deepcopy(value))


def miniature(config: Any, vocabulary: int = 256) -> Any | None:
    """A causal LM of the configuration's class with a few thousand random parameters, fp32, on the CPU, the same each
    time; none where this configuration cannot be made that small."""
    from transformers import AutoModelForCausalLM

    try:
        small = type(config).from_dict(copy.deepcopy(config.to_dict()))
        shrink(small, str(config.model_type), vocabulary)
        with torch.device("meta"):
            skeleton = AutoModelForCausalLM.from_config(small)
        if sum(parameter.numel() for parameter in skeleton.parameters()) > LARGEST:
            return None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = AutoModelForCausalLM.from_config(small, dtype=torch.float32).eval()
        with torch.no_grad():
            model(input_ids=torch.arange(48)[None] % vocabulary, use_cache=False)
        return model
    except Exception:
        # Sizes of some architectures hang together in ways that are not known here; then nothing is foretold.
        return None
