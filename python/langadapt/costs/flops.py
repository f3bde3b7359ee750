"""How much arithmetic a token takes, from a model's config and the vocabulary that it will have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from langadapt.errors import DataError

INNER = ("moe_intermediate_size", "intermediate_size", "n_inner", "ffn_dim", "decoder_ffn_dim")
"""Names of the width inside the feed-forward part."""
GROUP = 64
"""Elements of a row whose coded moments share a scale (`states: int8`)."""


@dataclass(frozen=True)
class Shape:
    """What memory and FLOPs depend on, whatever a config calls it."""

    layers: int
    width: int
    """Hidden size."""
    heads: int
    kv_heads: int
    head_dim: int
    inner: int
    """Width inside the feed-forward part."""
    gated: bool
    """Three matrices in the feed-forward part instead of two."""
    vocabulary: int
    """Rows of the embedding matrices."""
    tied: bool
    """One matrix for input and output embeddings."""
    experts: int = 1
    """Feed-forward parts per layer."""
    active_experts: int = 1
    """Of which one token uses this many."""
    lookups: int = 0
    """Parameters of further tables by token id, which are read and not multiplied with (Gemma 3n's and 4's)."""

    @classmethod
    def of(cls, config: Mapping[str, Any], vocabulary: int | None = None) -> Shape:
        """Read a Hugging Face config (`config.json` as a mapping); ``vocabulary`` replaces its own.

        Raises:
            DataError: its sizes are no numbers above 0.
        """
        try:
            shape = cls.read(config, vocabulary)
        except (TypeError, ValueError, OverflowError):
            shape = None
        if shape is None or min(shape.layers, shape.width, shape.vocabulary) < 1:
            raise DataError(
                "config.json: layers, width and vocabulary (`num_hidden_layers`, `hidden_size`, `vocab_size`) are not "
                "all numbers above 0; get the file again"
            )
        return shape

    @classmethod
    def read(cls, config: Mapping[str, Any], vocabulary: int | None) -> Shape:
        """What :meth:`of` gives, unchecked."""
        config = {**config, **(config.get("text_config") or {})}
        config = {**config, **sizes_by_layer(config)}

        def get(*names: str, default: Any = None) -> Any:
            value = next((config[name] for name in names if config.get(name) is not None), default)
            # One size per layer: bytes and FLOPs are sums over layers, so their mean stands for them.
            return sum(value) / len(value) if isinstance(value, (list, tuple)) and value else value

        width = int(get("hidden_size", "n_embd", "d_model", "embedding_size", "emb_dim", default=1))
        # Models without attention have none; one head as wide as the model has as many parameters as several.
        heads = round(get("num_attention_heads", "n_head", "n_heads", "decoder_attention_heads", default=1))
        layers = int(get("num_hidden_layers", "n_layer", "n_layers", "decoder_layers", "num_layers", default=1))
        rows = int(vocabulary or get("vocab_size"))
        further = (vocabulary or get("vocab_size_per_layer_input", default=0)) * get(
            "hidden_size_per_layer_input", default=0
        )
        gpt2_like = get("n_embd") is not None or get("model_type") in {"gpt_neox", "opt", "phi", "falcon", "bloom"}
        return cls(
            layers=layers,
            width=width,
            heads=heads,
            kv_heads=round(get("num_key_value_heads", default=heads)),
            head_dim=round(get("head_dim", default=width // heads)),
            inner=round(
                get(
                    "moe_intermediate_size",
                    "intermediate_size",
                    "n_inner",
                    "ffn_dim",
                    "decoder_ffn_dim",
                    default=4 * width,
                )
            ),
            gated=not gpt2_like,
            vocabulary=rows,
            tied=bool(get("tie_word_embeddings", default=gpt2_like)),
            experts=int(get("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts", default=1)),
            active_experts=int(get("num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_k", default=1)),
            lookups=int(further) * layers,
        )

    @property
    def attention_parameters(self) -> int:
        """Per layer."""
        return self.width * self.head_dim * 2 * (self.heads + self.kv_heads)

    @property
    def expert_parameters(self) -> int:
        """Of one feed-forward part."""
        return (3 if self.gated else 2) * self.width * self.inner

    @property
    def embedding_parameters(self) -> int:
        """Of one embedding matrix."""
        return self.vocabulary * self.width

    @property
    def layer_parameters(self) -> int:
        """Of one layer: matrices, two norms, and the router where there are experts."""
        router = self.width * self.experts if self.experts > 1 else 0
        return self.attention_parameters + self.experts * self.expert_parameters + router + 2 * self.width

    @property
    def parameters(self) -> int:
        """All of them (biases are left out: they are less than a thousandth)."""
        embeddings = self.embedding_parameters * (1 if self.tied else 2)
        return self.layers * self.layer_parameters + self.width + embeddings + self.lookups

    def coded_share(self, parts: str = "all") -> float:
        """Of the parameters that are trained, those in matrices whose rows are whole groups: `states: int8` codes them.

        ``parts``: ``all``, or ``embeddings``.
        """
        queries, ups = self.heads * self.head_dim, self.experts * self.width * self.inner
        embeddings = self.embedding_parameters * (1 if self.tied else 2)
        by_width = (self.width, embeddings)
        if parts == "all":
            inputs = self.attention_parameters - self.width * queries + (2 if self.gated else 1) * ups
            router = self.width * self.experts if self.experts > 1 else 0
            by_width = (self.width, embeddings + self.lookups + self.layers * (inputs + router))
        rows = [by_width, (queries, self.layers * self.width * queries), (self.inner, self.layers * ups)]
        coded = sum(size for columns, size in rows[: 3 if parts == "all" else 1] if columns % GROUP == 0)
        return coded / (self.parameters if parts == "all" else embeddings)

    @property
    def multiplied_parameters(self) -> int:
        """Weights that one token is multiplied with: active experts and the output head, no input embedding."""
        layer = self.attention_parameters + self.active_experts * self.expert_parameters
        return self.layers * layer + self.embedding_parameters

    def flops_per_token(self, context: float) -> float:
        """Forward and backward, 6 per weight, plus attention over ``context`` tokens on average.

        Attention is counted as published MFU figures count it, 12 x layers x heads x head_dim x context (PaLM, arXiv
        2204.02311, appendix B); give half the window for what causal attention really needs.
        """
        attention = 12.0 * self.layers * self.heads * self.head_dim * context
        return 6.0 * self.multiplied_parameters + attention

    def mfu(self, tokens_per_second: float, window: int, peak: float) -> float:
        """Share of ``peak`` FLOP/s that the model's own arithmetic comes to; what `mfu` means in logs, plans, benches.

        Causal attention over windows of one document is counted, so half a window on average, and nothing that is
        computed twice. Published figures that count whole windows are higher: by 15 % for 1B and 4,096 tokens.
        """
        return self.flops_per_token(window / 2) * tokens_per_second / peak


def sizes_by_layer(config: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Sizes that ``per_layer_config`` gives single layers, as lists of one for each layer."""
    given = {int(layer): sizes for layer, sizes in (config.get("per_layer_config") or {}).items()}
    names = {name for sizes in given.values() for name, size in sizes.items() if type(size) is int}
    layers = range(int(config.get("num_hidden_layers") or 0))
    return {name: [given.get(layer, {}).get(name, config.get(name) or 0) for layer in layers] for name in names}
