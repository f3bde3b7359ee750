"""A tokenizer with one token per byte and a model of a few thousand parameters, for tests."""

from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

ALPHABET = sorted(pre_tokenizers.ByteLevel.alphabet())


def byte_tokenizer(**special: str) -> PreTrainedTokenizerFast:
    """One token per byte, and the special tokens asked for."""
    vocabulary = {piece: at for at, piece in enumerate([*special.values(), *ALPHABET])}
    backend = Tokenizer(models.BPE(vocabulary, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=backend, **special)


def tiny_llama(**changes: Any) -> LlamaForCausalLM:
    """Two layers, 32 wide, 260 tokens, the same weights each time; ``changes`` to its configuration."""
    shape = {
        "vocab_size": 260,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 32,
        "initializer_range": 0.3,
        "bos_token_id": 0,
        "eos_token_id": 0,
    }
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**{**shape, **changes})).eval()
