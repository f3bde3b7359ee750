"""Parts of the loop beside slow, plain versions of themselves."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy, linear
from training_kit import losses, settings, tiny_model, train, weights

from langadapt.errors import ConfigError
from langadapt.training import loss as loss_module
from langadapt.training import model, optimizer
from langadapt.training.attention import choice as attention
from langadapt.training.attention import varlen as varlen_attention
from langadapt.training.data.batches import IGNORE
from langadapt.training.loss import ChunkedCrossEntropy, HeadLoss
from langadapt_kernels.backend import mend_interpreter

CPU = torch.device("cpu")


@pytest.mark.parametrize(("chunk", "kernel"), [(1, False), (7, False), (16, False), (100, False), (7, True)])
@pytest.mark.parametrize("with_bias", [False, True])
def test_chunked_loss_and_gradients_equal_torch_in_fp32(chunk: int, kernel: bool, with_bias: bool) -> None:
    if kernel:
        pytest.importorskip("triton")
    torch.manual_seed(0)
    hidden = torch.randn(16, 8, requires_grad=True)
    weight = torch.randn(20, 8, requires_grad=True)
    bias = torch.randn(20, requires_grad=True) if with_bias else None
    targets = torch.randint(20, (16,))
    targets[3] = targets[9] = -100
    inputs = [tensor for tensor in (hidden, weight, bias) if tensor is not None]
    loss, losses = ChunkedCrossEntropy.apply(hidden, weight, bias, targets, 0.25, chunk, kernel)
    mine = torch.autograd.grad(3 * loss, inputs)
    plain = cross_entropy(linear(hidden, weight, bias), targets, ignore_index=-100, reduction="none")
    want = torch.autograd.grad(3 * 0.25 * plain.sum(), inputs)
    torch.testing.assert_close(losses, plain)
    for one, other in zip(mine, want, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("kernel", [False, True])
def test_chunked_loss_in_bf16_errs_no_more_than_torch(kernel: bool) -> None:
    if kernel:
        pytest.importorskip("triton")
    torch.manual_seed(0)
    hidden, weight = torch.randn(64, 32), torch.randn(100, 32) / 4
    targets = torch.randint(100, (64,))
    truth = torch.autograd.grad(cross_entropy(linear(hidden.requires_grad_(), weight), targets), hidden)[0]
    low = hidden.detach().bfloat16().requires_grad_()
    plain = torch.autograd.grad(cross_entropy(linear(low, weight.bfloat16()).float(), targets), low)[0]
    loss, _ = ChunkedCrossEntropy.apply(low, weight.bfloat16(), None, targets, 1 / 64, 16, kernel)
    mine = torch.autograd.grad(loss, low)[0]
    assert (mine - truth).norm() <= 1.1 * (plain - truth).norm()


def test_the_head_is_handed_back_where_logits_are_capped() -> None:
    from transformers import Gemma2Config, Gemma2ForCausalLM

    torch.manual_seed(0)
    config = Gemma2Config(
        vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=16, final_logit_softcapping=3.0, initializer_range=0.5,
    )  # fmt: skip
    capped = Gemma2ForCausalLM(config)
    ids, positions = attention.example(64, 8, CPU)
    inputs = {"input_ids": ids, "position_ids": positions}
    head = HeadLoss(capped, "auto")
    assert not head.fits(inputs, ids) and head.chunk == 0
    loss, _ = head(inputs, ids, 1.0)
    want = cross_entropy(capped(**inputs, use_cache=False).logits.flatten(0, 1).float(), ids.flatten(), reduction="sum")
    torch.testing.assert_close(loss, want)


@pytest.mark.parametrize("bias", [False, True])
def test_ligers_loss_and_gradients_are_ours(bias: bool) -> None:
    pytest.importorskip("liger_kernel")
    mend_interpreter()
    ids, positions = attention.example(64, 8, CPU)
    labels = ids.roll(-1, 1)
    labels[0, :5] = IGNORE
    inputs = {"input_ids": ids, "position_ids": positions}
    found = {}
    for chunk in ("auto", "liger"):
        network = tiny_model().float()
        if bias:
            network.lm_head.bias = torch.nn.Parameter(torch.linspace(-1, 1, 64))
        loss, losses = HeadLoss(network, chunk)(inputs, labels, 1 / 7)
        loss.backward()
        gradients = [parameter.grad for parameter in network.parameters()]
        assert losses.dtype == torch.float32 and not losses.requires_grad
        found[chunk] = [loss.detach(), losses, *gradients]
    for ours, ligers in zip(found["auto"], found["liger"], strict=True):
        torch.testing.assert_close(ligers, ours, rtol=1e-4, atol=1e-6)


def test_training_with_ligers_loss(tmp_path: Path) -> None:
    pytest.importorskip("liger_kernel")
    mend_interpreter()
    train(tmp_path / "liger", loss_chunk="liger", steps=2, log_every=1)
    train(tmp_path / "ours", steps=2, log_every=1)
    assert losses(tmp_path / "liger") == pytest.approx(losses(tmp_path / "ours"), rel=2e-3)


def test_training_with_the_fused_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton")
    train(tmp_path / "fused", loss_chunk="fused", steps=2, log_every=1)
    train(tmp_path / "plain", steps=2, log_every=1)
    assert losses(tmp_path / "fused") == pytest.approx(losses(tmp_path / "plain"), rel=2e-3)
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    with pytest.raises(ConfigError, match="loss_chunk: fused needs a GPU"):
        train(tmp_path / "refused", loss_chunk="fused")


def test_ligers_loss_is_refused_where_it_cannot_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    monkeypatch.setattr(loss_module.importlib.metadata, "version", lambda _: "0.8.5")
    with pytest.raises(ConfigError, match="loss_chunk: liger needs a GPU"):
        train(tmp_path, loss_chunk="liger")
    monkeypatch.setattr(loss_module.importlib.metadata, "version", lambda _: "0.7.0")
    with pytest.raises(ConfigError, match=r"needs liger-kernel 0\.8\.5 or later; 0\.7\.0 is installed"):
        train(tmp_path, loss_chunk="liger")

    monkeypatch.setattr(loss_module.importlib.metadata, "version", lambda _: "0.9.0rc1.dev2+local")
    with pytest.raises(ConfigError, match="loss_chunk: liger needs a GPU"):
        train(tmp_path, loss_chunk="liger")

    def absent(name: str) -> str:
        raise loss_module.importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(loss_module.importlib.metadata, "version", absent)
    with pytest.raises(ConfigError, match="pip install liger-kernel"):
        train(tmp_path, loss_chunk="liger")


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
    chosen = model.set_attention(network, settings(precision="fp32", rounding="nearest"), CPU)
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


def test_selective_recomputation_keeps_the_attention_of_every_kernel() -> None:
    import torch.nn.attention.varlen  # noqa: F401  (registers its operator)

    names = {str(operation) for operation in model.expensive()}
    assert {"aten.mm.default", "aten._scaled_dot_product_flash_attention.default"} <= names
    assert "torch_attn._varlen_attn.default" in names


@pytest.mark.filterwarnings("ignore")  # torch reads .grad of activations while it traces
@pytest.mark.parametrize("recompute", ["none", "selective", "full"])
def test_blocks_are_compiled_once_whatever_is_recomputed_and_validated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recompute: str
) -> None:
    """Windows of a validation have many shapes; none of them is compiled."""
    from torch._dynamo.utils import counters

    plain = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module: plain(module, backend="aot_eager"))

    def validate(network: Any, step: int) -> dict[str, float]:
        return {f"loss{n}": network(torch.ones(2, n, dtype=torch.int64)).logits.float().std() for n in (10, 20, 33)}

    run = {"steps": 4, "log_every": 1, "validate": validate, "validate_every": 2, "precision": "fp32"}
    run |= {"activation_checkpointing": recompute, "rounding": "nearest"}
    train(tmp_path / "eager", **run)
    torch.compiler.reset()
    counters.clear()
    train(tmp_path / "compiled", **run, compile=True)
    # transformers gives no mask where all windows of a micro-batch hold one document.
    assert 1 <= counters["stats"]["unique_graphs"] <= 2
    assert losses(tmp_path / "compiled") == pytest.approx(losses(tmp_path / "eager"), rel=1e-4)


@pytest.mark.parametrize("which", range(4))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_pieces_on_a_cpu_have_the_gradients_of_a_mask(which: int, dtype: torch.dtype) -> None:
    """Grouped heads, sliding windows, documents of one token, padding."""
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
    assert model.set_attention(network, settings(precision="fp32", rounding="nearest"), CPU) == attention.PIECES
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


@pytest.mark.parametrize(("beta2", "stochastic"), [(0.95, False), (0.99, False), (0.999, True)])
def test_second_moments_that_could_not_shrink_are_rounded_stochastically(beta2: float, stochastic: bool) -> None:
    made = optimizer.make(model.groups(tiny_model()), settings(betas=(0.9, beta2), rounding="split"))
    assert {bool(group["stochastic_variance"]) for group in made.param_groups} == {stochastic}


def test_dropout_in_the_attention_is_left_to_sdpa() -> None:
    dropping = tiny_model(attention_dropout=0.1)
    assert model.set_attention(dropping, settings(), CPU) == "sdpa"
    ids, positions = attention.example(64, 8, CPU)
    assert model.set_attention(dropping, settings(attention="varlen"), CPU) == attention.PIECES
    with pytest.raises(ValueError, match="set `attention: auto`"):
        dropping.train()(**attention.packed_inputs(ids, positions, attention.PIECES), use_cache=False)


def test_an_architecture_that_mixes_documents_is_refused() -> None:
    from transformers import MambaConfig, MambaForCausalLM

    recurrent = MambaForCausalLM(MambaConfig(vocab_size=64, hidden_size=32, num_hidden_layers=2, state_size=4))
    with pytest.raises(ConfigError, match="set isolate_documents: false"):
        model.set_attention(recurrent, settings(), CPU)


def test_groups_are_complete_and_disjoint() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    for network in (
        tiny_model(),
        tiny_model(tied=True),
        GPT2LMHeadModel(GPT2Config(vocab_size=64, n_positions=32, n_embd=32, n_layer=2, n_head=2)),
    ):
        groups = model.groups(network)
        names = [name for named in groups.values() for name, _ in named]
        assert sorted(names) == sorted(name for name, _ in network.named_parameters())
        assert all(parameter.ndim >= 2 for _, parameter in groups["matrices"])
        assert not any("wpe" in name or "embed" in name or "wte" in name for name, _ in groups["matrices"])


def test_gradient_sums_in_fp32_lose_nothing_where_bf16_sums_do() -> None:
    torch.manual_seed(0)
    parts = [torch.randn(50, dtype=torch.bfloat16) * 0.01 + 1 for _ in range(512)]
    truth = torch.stack([part.double() for part in parts]).sum(0)
    plain = torch.nn.Parameter(torch.zeros(50, dtype=torch.bfloat16))
    summed = torch.nn.Parameter(torch.zeros(50, dtype=torch.bfloat16))
    sums = optimizer.GradientSums([summed])
    for part in parts:
        (plain * part).sum().backward()
        (summed * part).sum().backward()
        assert summed.grad is None
    sums.hand_over()
    assert plain.grad is not None and summed.grad is not None
    assert ((summed.grad.double() - truth) / truth).abs().max() < 1e-5
    assert ((plain.grad.double() - truth) / truth).abs().max() > 1e-2


@pytest.mark.parametrize(
    "changes", [{"accumulate": "bf16"}, {"micro_batch": 4}, {"precision": "mixed-bf16", "rounding": "nearest"}]
)
def test_norms_taken_in_the_backward_pass_train_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    """As on a single GPU; with several micro-batches, with the embeddings first."""
    run = {"steps": 6, "embeddings_first_steps": 2, "new_rows": [5, 6], **changes}
    train(tmp_path / "pass", **run)
    plain, known = optimizer.make, []

    def make(groups: Any, settings: Any, clip_apart: bool, whole: bool) -> Any:
        made = plain(groups, settings, clip_apart, whole_gradients=True)
        made.register_step_pre_hook(lambda *_: known.append(sum(map(made.gradient_squares.known, made.state))))
        return made

    monkeypatch.setattr(optimizer, "make", make)
    train(tmp_path / "hooks", **run)
    # The first phase trains copies of rows; states are made by the first step.
    assert known[:3] == [0, 0, 0] and min(known[3:]) == max(known[3:]) > 10
    before, after = weights(tmp_path / "pass" / "final"), weights(tmp_path / "hooks" / "final")
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_norms_in_fp32_keep_small_updates_and_bf16_activations() -> None:
    network = model.load(tiny_model().float(), settings(norms_in_fp32=True), CPU)
    dtypes = {name: parameter.dtype for name, parameter in network.named_parameters()}
    assert {dtype for name, dtype in dtypes.items() if "norm" in name} == {torch.float32}
    assert {dtype for name, dtype in dtypes.items() if "norm" not in name} == {torch.bfloat16}
    ids, positions = attention.example(64, 8, CPU)
    assert network(input_ids=ids, position_ids=positions).logits.dtype == torch.bfloat16
    # Rotary frequencies stay as exact as they came.
    assert network.model.rotary_emb.inv_freq.dtype == torch.float32


def test_an_attention_that_fails_here_is_one_short_line(monkeypatch: pytest.MonkeyPatch) -> None:
    from langadapt.training.attention import choice as attention_module

    def broken(*_: Any) -> bool:
        raise RuntimeError("C++ compile error" + " of many words" * 10_000)

    monkeypatch.setattr(attention_module, "agrees", broken)
    with pytest.raises(ConfigError, match=r"attention: flex does not work .*RuntimeError: C.*another `att") as error:
        attention_module.choose(tiny_model(), "flex", torch.device("cpu"))
    assert len(str(error.value)) < 400
    monkeypatch.setattr(attention_module, "agrees", lambda *_: False)
    with pytest.raises(ConfigError, match="flex disagrees with sdpa"):
        attention_module.choose(tiny_model(), "flex", torch.device("cpu"))
    assert attention_module.choose(tiny_model(), "auto", torch.device("cpu")) == "sdpa"
    monkeypatch.setattr(attention_module, "leaks", broken)
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
        # This one's masks are made without position ids: its documents cannot be kept apart, and that is said.
        with pytest.raises(ConfigError, match="GptOssForCausalLM lets text of one document reach the next"):
            train(tmp_path, network, steps=2)
    train(tmp_path, network, steps=2, log_every=1, isolate_documents=which == "caps")
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


@pytest.mark.parametrize("chunk", ["auto", 0])
def test_the_loss_of_experts_is_the_models_own(chunk: Any, caplog: pytest.LogCaptureFixture) -> None:
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

    sizes = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "head_dim": 8}
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "decoder_sparse_step": 1}
    config = Qwen3MoeConfig(
        **sizes,
        **experts,
        num_attention_heads=4,
        num_key_value_heads=2,
        output_router_logits=True,
        router_aux_loss_coef=0.5,
    )
    torch.manual_seed(0)
    ours, theirs = Qwen3MoeForCausalLM(config), Qwen3MoeForCausalLM(config)
    theirs.load_state_dict(ours.state_dict())
    ids = torch.randint(64, (2, 32))
    labels = ids.roll(-1, 1)
    labels[:, -1] = IGNORE
    want = theirs(input_ids=ids, labels=torch.cat([torch.full((2, 1), IGNORE), labels[:, :-1]], 1)).loss
    want.backward()
    head = HeadLoss(ours, chunk)
    got, _ = head({"input_ids": ids}, labels, 1 / int((labels != IGNORE).sum()))
    got.backward()
    torch.testing.assert_close(got, want)
    gates = [network.model.layers[0].mlp.gate.weight.grad for network in (ours, theirs)]
    assert gates[1].abs().max() > 0
    torch.testing.assert_close(*gates, rtol=1e-3, atol=1e-6)
    mine, own = head.own({"input_ids": ids}, labels)
    assert mine == pytest.approx(own, rel=1e-4)


def test_a_model_that_has_another_loss_of_its_own_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    network = tiny_model()
    network.loss_function = lambda logits, labels, *_, **__: logits.float().square().mean() + 7
    with caplog.at_level("WARNING"):
        train(tmp_path, network, steps=1)
    assert "LlamaForCausalLM has a loss of its own (7." in caplog.text
