"""Attention for packed documents beside a mask: which kernel is taken, and that it is right."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from training_kit import losses, settings, tiny_model, train

from langadapt.errors import ConfigError
from langadapt.training import model
from langadapt.training.attention import choice as attention
from langadapt.training.attention import varlen as varlen_attention

CPU = torch.device("cpu")


def architectures() -> list[Any]:
    from transformers import (
        GPT2Config,
        GPT2LMHeadModel,
        MistralConfig,
        MistralForCausalLM,
        MixtralConfig,
        MixtralForCausalLM,
        Qwen3Config,
        Qwen3ForCausalLM,
    )

    common = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    return [
        lambda: MistralForCausalLM(MistralConfig(**common, **heads, sliding_window=6)),
        lambda: Qwen3ForCausalLM(Qwen3Config(**common, **heads, head_dim=8)),
        lambda: MixtralForCausalLM(MixtralConfig(**common, **heads, num_local_experts=2)),
        lambda: GPT2LMHeadModel(GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=4, n_positions=128)),
    ]


@pytest.mark.parametrize("which", range(4))
def test_packed_documents_get_the_logits_they_get_alone(which: int) -> None:
    torch.manual_seed(0)
    network = architectures()[which]().eval()
    chosen, _ = model.set_attention(network, settings(precision="fp32", rounding="nearest"), CPU)
    lengths = [5, 1, 17, 9]
    ids = torch.randint(64, (1, sum(lengths)))
    positions = torch.cat([torch.arange(length) for length in lengths])[None]
    with torch.no_grad():
        packed = network(**attention.packed_inputs(ids, positions, chosen), use_cache=False).logits[0]
        begin = 0
        for length in lengths:
            alone = network(input_ids=ids[:, begin : begin + length], use_cache=False).logits[0]
            torch.testing.assert_close(packed[begin : begin + length], alone, rtol=1e-4, atol=1e-4)
            begin += length


@pytest.mark.slow  # FlexAttention compiles
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_flex_attention_agrees_with_sdpa() -> None:
    network = tiny_model(hidden_size=64).float().eval()
    ids, positions = attention.example(64, 32, CPU)
    with torch.no_grad():
        want = network(**attention.packed_inputs(ids, positions, "sdpa"), use_cache=False).logits
        network.set_attn_implementation("flex_attention")
        try:
            got = network(**attention.packed_inputs(ids, positions, "flex_attention"), use_cache=False).logits
        except Exception as error:
            pytest.skip(f"FlexAttention does not run here: {type(error).__name__}")
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


def by_document(
    q: Any, k: Any, v: Any, bounds: Any, _: Any, *sizes: int, scale: float, window_size: Any, enable_gqa: bool
) -> Any:
    """A kernel for documents in one row, as a loop."""
    out = torch.zeros_like(q)
    for begin, end in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        if begin == end:
            continue
        part = slice(begin, end)
        row = torch.arange(end - begin)
        mask = row[:, None] >= row
        if window_size[0] >= 0:
            mask &= row[:, None] - row <= window_size[0]
        heads = [tensor[part].transpose(0, 1) for tensor in (q, k, v)]
        mixed = torch.nn.functional.scaled_dot_product_attention(
            *heads, attn_mask=mask, scale=scale, enable_gqa=enable_gqa
        )
        out[part] = mixed.transpose(0, 1)
    return out


def packed_agrees(network: Any, kernel: str) -> None:
    """Logits of three packed documents are those of SDPA."""
    ids = torch.randint(64, (2, 30))
    positions = torch.cat([torch.arange(11), torch.arange(19), torch.arange(30)]).view(2, 30)
    with torch.no_grad():
        want = network(**attention.packed_inputs(ids, positions, "sdpa"), use_cache=False).logits
        attention.register()
        network.set_attn_implementation(kernel)
        for documents in (3, None):
            inputs = attention.packed_inputs(ids, positions, kernel, documents)
            got = network(**inputs, use_cache=False).logits
            torch.testing.assert_close(got.view_as(want), want, rtol=1e-4, atol=1e-4)
    assert attention.agrees(network, kernel, "sdpa", CPU)


@pytest.mark.parametrize("kernel", [varlen_attention.FLASH3, varlen_attention.FLASH2])
def test_flash_attention_gets_bounds_and_windows(kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package is replaced by a loop that takes what both of its releases take."""

    def flash(
        q: Any,
        k: Any,
        v: Any,
        cu_seqlens_q: Any,
        cu_seqlens_k: Any,
        max_seqlen_q: int,
        max_seqlen_k: int,
        *,
        softmax_scale: float,
        causal: bool,
        window_size: tuple[int, int],
    ) -> Any:
        assert causal and window_size[1] == (-1 if window_size[0] == -1 else 0) and max_seqlen_q == max_seqlen_k
        assert cu_seqlens_q.dtype == torch.int32 and torch.equal(cu_seqlens_q, cu_seqlens_k)
        assert int(cu_seqlens_q.diff().max()) <= max_seqlen_q
        out = by_document(
            q, k, v, cu_seqlens_q, None, scale=softmax_scale, window_size=window_size, enable_gqa=q.shape != k.shape
        )
        return (out, None) if kernel == varlen_attention.FLASH3 else out

    module, function = varlen_attention.PLACES[kernel]
    fake = ModuleType(module)
    setattr(fake, function, flash)
    monkeypatch.setitem(sys.modules, module, fake)
    for make in (architectures()[0], tiny_model):
        torch.manual_seed(0)
        packed_agrees(make().float().eval(), kernel)


def test_flash_attention_is_tried_where_it_is_and_refused_where_it_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="needs a GPU and the package `flash-attn`"):
        model.set_attention(tiny_model(), settings(attention="flash"), CPU)
    names = varlen_attention
    gpu, config = torch.device("cuda"), tiny_model().config
    monkeypatch.setattr(names, "KERNELS", {names.FLASH3: None, names.TORCH: None, names.FLASH2: None})
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    kernels = [names.FLASH3, names.TORCH, names.FLASH2]
    assert attention.candidates_for(config, "auto", gpu, True) == [*kernels, "flex_attention", "sdpa"]
    assert attention.candidates_for(config, "auto", gpu, False) == ["flex_attention", "sdpa"]
    assert attention.candidates_for(config, "flash", gpu, True) == [names.FLASH3]
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 0))
    assert attention.candidates_for(config, "auto", gpu, True) == [*kernels[1:], "flex_attention", "sdpa"]
    assert attention.candidates_for(config, "flash", gpu, True) == [names.FLASH2]
    assert attention.candidates_for(config, "varlen", gpu, True) == [names.TORCH]


def test_torchs_own_kernel_gets_bounds_and_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the kernel replaced by a loop over documents, the whole path agrees with SDPA, sliding windows included."""

    def first_release(q: Any, k: Any, v: Any, bounds: Any, other: Any, *sizes: int, is_causal: bool) -> Any:
        """As in the first torch that had it: neither grouped heads, windows nor scales."""
        assert is_causal and q.shape == k.shape
        return by_document(
            q, k, v, bounds, other, *sizes, scale=q.shape[-1] ** -0.5, window_size=(-1, 0), enable_gqa=False
        )

    def second_release(q: Any, k: Any, v: Any, bounds: Any, _: Any, *sizes: int, scale: float, window_size: Any) -> Any:
        """Groups heads unasked."""
        assert q.shape[1] == 2 * k.shape[1]
        return by_document(q, k, v, bounds, _, *sizes, scale=scale, window_size=window_size, enable_gqa=True)

    def wrong_gradients(*tensors: Any, **named: Any) -> Any:
        """Right in all it says; the gradients of shared keys and values are not summed over the heads."""
        q, k, v = tensors[:3]
        return second_release(q, k / 2 + k.detach() / 2, v / 2 + v.detach() / 2, *tensors[3:], **named)

    fake = ModuleType("torch.nn.attention.varlen")
    monkeypatch.setitem(sys.modules, "torch.nn.attention.varlen", fake)
    kernels = (
        (architectures()[0], by_document),
        (tiny_model, by_document),
        (tiny_model, first_release),
        (tiny_model, second_release),
    )
    for make, kernel in kernels:
        fake.varlen_attn = kernel  # type: ignore[attr-defined]
        torch.manual_seed(0)
        network = make().float().eval()
        packed_agrees(network, varlen_attention.TORCH)
    fake.varlen_attn = wrong_gradients  # type: ignore[attr-defined]
    varlen_attention.KERNELS[varlen_attention.TORCH] = wrong_gradients
    varlen_attention.TAKES[0] = varlen_attention.TAKES[0] | {"scale", "window_size"}
    assert not attention.agrees(network, varlen_attention.TORCH, "sdpa", CPU)


@pytest.mark.parametrize(("documents", "size"), [(1, 17), (16, 17), (17, 33), (200, 257)])
def test_bounds_of_documents_are_few_and_of_few_sizes(documents: int, size: int) -> None:
    """A kernel starts blocks of threads for empty documents, too, and each size is compiled for."""
    positions = torch.cat([torch.arange(3) for _ in range(documents)])
    bounds = attention.document_bounds(positions, documents)
    assert bounds.dtype == torch.int32 and len(bounds) == size
    assert bounds.tolist() == [*range(0, 3 * documents, 3), *[3 * documents] * (size - documents)]


@pytest.mark.parametrize("which", range(4))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("block", [4, 64])
def test_pieces_on_a_cpu_have_the_gradients_of_a_mask(
    which: int, dtype: torch.dtype, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Grouped heads, sliding windows in one block and in several, documents of one token, padding."""
    monkeypatch.setattr("langadapt.models.attention.BLOCK", block)
    torch.manual_seed(0)
    network = architectures()[which]().to(dtype)
    network.config.attn_pdrop = 0.0
    for module in network.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    ids = torch.randint(64, (2, 40))
    lengths = [13, 1, 26, 30]
    positions = torch.cat([*(torch.arange(length) for length in lengths), torch.zeros(10, dtype=torch.int64)])
    inputs = ids, positions.view(2, 40)
    assert model.set_attention(network, settings(precision="fp32", rounding="nearest"), CPU)[0] == attention.PIECES
    found = {}
    for name in (attention.PIECES, "sdpa"):
        network.set_attn_implementation(name)
        network.zero_grad()
        logits = network(**attention.packed_inputs(*inputs, name), use_cache=False).logits[:, :30]
        logits.float().square().mean().backward()
        found[name] = [logits.float().detach(), *(p.grad.float() for p in network.parameters() if p.grad is not None)]
    tolerance = 1e-4 if dtype == torch.float32 else 0.03
    for ours, theirs in zip(*found.values(), strict=True):
        assert (ours - theirs).norm() <= tolerance * theirs.norm() + 1e-6


@pytest.mark.parametrize("name", [attention.PIECES, varlen_attention.TORCH])
def test_windows_that_are_not_packed_pass_through_attention_for_packed_ones(name: str) -> None:
    """A validation in the middle of a training run: padded windows, sliding windows, and no mask at all."""
    attention.register()
    for make in architectures():
        torch.manual_seed(0)
        network = make().eval()
        ids = torch.randint(64, (2, 30))
        mask = torch.ones(2, 30, dtype=torch.int64)
        mask[0, :7] = 0
        with torch.no_grad():
            for given in ({"attention_mask": mask}, {}):
                network.set_attn_implementation("sdpa")
                want = network(input_ids=ids, use_cache=False, **given).logits
                network.set_attn_implementation(name)
                got = network(input_ids=ids, use_cache=False, **given).logits
                torch.testing.assert_close(got[1], want[1], rtol=1e-4, atol=1e-4)
                torch.testing.assert_close(got[0, 7:], want[0, 7:], rtol=1e-4, atol=1e-4)


def test_dropout_in_the_attention_is_left_to_sdpa() -> None:
    dropping = tiny_model(attention_dropout=0.1)
    assert model.set_attention(dropping, settings(), CPU) == ("sdpa", model.PACKED)
    ids, positions = attention.example(64, 8, CPU)
    assert model.set_attention(dropping, settings(attention="varlen"), CPU)[0] == attention.PIECES
    with pytest.raises(ValueError, match="set `attention: auto`"):
        dropping.train()(**attention.packed_inputs(ids, positions, attention.PIECES), use_cache=False)


def test_an_attention_that_fails_here_is_one_short_line(monkeypatch: pytest.MonkeyPatch) -> None:
    from langadapt.training.attention import choice as attention_module
    from langadapt.training.attention import isolation as isolation_module

    def broken(*_: Any, **__: Any) -> bool:
        raise RuntimeError("C++ compile error" + " of many words" * 10_000)

    monkeypatch.setattr(attention_module, "agrees", broken)
    with pytest.raises(ConfigError, match=r"attention: flex does not work .*RuntimeError: C.*another `att") as error:
        attention_module.choose(tiny_model(), "flex", torch.device("cpu"))
    assert len(str(error.value)) < 400
    monkeypatch.setattr(attention_module, "agrees", lambda *_: False)
    with pytest.raises(ConfigError, match="flex disagrees with sdpa"):
        attention_module.choose(tiny_model(), "flex", torch.device("cpu"))
    assert attention_module.choose(tiny_model(), "auto", torch.device("cpu")) == "sdpa"
    monkeypatch.setattr(isolation_module, "leaks", broken)
    with pytest.raises(ConfigError, match="attention: sdpa does not work"):
        model.set_attention(tiny_model(), settings(attention="sdpa"), torch.device("cpu"))


@pytest.mark.parametrize("which", ["caps", "sinks"])
def test_models_without_sdpa_keep_the_attention_that_transformers_gave_them(which: str, tmp_path: Path) -> None:
    import transformers

    common = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "head_dim": 8}
    common |= {
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }
    torch.manual_seed(0)
    if which == "caps":
        network: Any = transformers.Gemma2ForCausalLM(transformers.Gemma2Config(**common, sliding_window=8))
    else:
        experts = {
            "num_local_experts": 2,
            "num_experts_per_tok": 2,
            "layer_types": ["sliding_attention", "full_attention"],
        }
        network = transformers.GptOssForCausalLM(transformers.GptOssConfig(**common, **experts, sliding_window=8))
    assert attention.choose(network, "auto", CPU) == "eager" == network.config._attn_implementation
    with pytest.raises(ConfigError, match="attention: sdpa does not work for this model"):
        attention.choose(network, "sdpa", CPU)
    if which == "sinks":
        # This one's masks are made without position ids.
        assert model.set_attention(network, settings(), CPU) == ("eager", model.ROWS)
    train(tmp_path, network, steps=2, log_every=1)
    assert len(losses(tmp_path)) == 2


def test_kernels_that_agree_are_timed_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["flex_attention", "sdpa", "eager"]
    gpu = type("Device", (), {"type": "cuda"})()
    network = tiny_model()
    timed: list[str] = []
    monkeypatch.setattr(attention, "candidates_for", lambda *_: names)
    monkeypatch.setattr(attention, "agrees", lambda model, name, *_: name != "flex_attention")
    monkeypatch.setattr(attention, "fastest", lambda model, found, *_: timed.extend(found) or "eager")
    assert attention.choose(network, "auto", gpu) == "eager" and timed == ["sdpa", "eager"]
    assert attention.choose(network, "auto", gpu, known="sdpa") == "sdpa" and timed == ["sdpa", "eager"]
    monkeypatch.undo()
    monkeypatch.setattr(attention, "TRIAL_SECONDS", 0.0)
    plain, slow = torch.nn.functional.scaled_dot_product_attention, []
    monkeypatch.setattr(
        torch.nn.functional,
        "scaled_dot_product_attention",
        lambda *a, **k: (time.sleep(0.05), slow.append(1), plain(*a, **k))[2],
    )
    assert attention.fastest(network.eval(), ["sdpa", "eager"], 16, CPU) == "eager" and slow


def test_whole_windows_on_a_gpu_time_cudnn_beside_torchs_own_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    from langadapt.training.attention import whole

    gpu = type("Device", (), {"type": "cuda"})()
    network = tiny_model().to(torch.bfloat16)
    timed: list[list[str]] = []
    agreeing: list[bool] = [True]
    monkeypatch.setattr(attention, "agrees", lambda *_, packed: agreeing[0] and not packed)
    monkeypatch.setattr(attention, "fastest", lambda model, names, *_: (timed.append(names), names[-1])[1])

    def choose(model: Any, device: Any, known: str | None = None) -> str:
        return attention.choose_for_whole_windows(model, device, autocast=False, length=16, known=known)

    assert choose(network, CPU) == "sdpa" and not timed
    assert choose(network, gpu) == whole.CUDNN == network.config._attn_implementation
    assert timed == [["sdpa", whole.CUDNN]]
    network.set_attn_implementation("sdpa")
    assert choose(network, gpu, "sdpa") == "sdpa" and len(timed) == 1
    agreeing[0] = False
    assert choose(network, gpu) == "sdpa" and len(timed) == 1
    assert choose(tiny_model(), gpu) == "sdpa", "fp32 is nothing for cuDNN"
    monkeypatch.undo()

    def fails(*_: Any, **__: Any) -> None:
        raise RuntimeError("no kernel image")

    monkeypatch.setattr(attention, "agrees", fails)
    assert choose(network, gpu) == "sdpa" == network.config._attn_implementation


@pytest.mark.parametrize("compiled", [False, True])
def test_cudnn_first_is_sdpa_where_there_is_no_cudnn(compiled: bool) -> None:
    from langadapt.training.attention import whole

    whole.register()
    network = tiny_model().eval()
    ids, positions = attention.example(network.config.vocab_size, 24, CPU)
    padded = {"input_ids": ids.view(2, -1), "attention_mask": (positions.view(2, -1) < 20).long()}
    for inputs in ({"input_ids": ids.view(2, -1)}, padded):
        network.set_attn_implementation("sdpa")
        want = network(**inputs).logits
        network.set_attn_implementation(whole.CUDNN)
        got = (torch.compile(network, backend="eager", fullgraph=True) if compiled else network)(**inputs).logits
        torch.testing.assert_close(got[:, :20], want[:, :20], rtol=1e-5, atol=1e-5)
    assert attention.agrees(network, whole.CUDNN, "sdpa", CPU, packed=False)
