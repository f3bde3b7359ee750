"""Cross-entropy of a large vocabulary without ever holding all logits.

The model's output head is taken over while a training step runs: called with hidden states, it makes logits for a chunk
of tokens, their loss and their gradients at once, and forgets them. So the memory is one chunk, the cost is the same
three matrix products, and the head works inside FSDP and beside compiled blocks. Models that do more with logits than
hand them out (soft caps, scales) are found by comparing with the model's own loss before training (`fits`).

Liger's kernel does the same in fewer passes over the logits, and makes them a second time for the backward pass where a
loss for each token is wanted, as it is here; it waits for the device once per pass.
"""

from __future__ import annotations

import importlib.metadata
import logging
import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from langadapt.costs.memory import chunk_tokens
from langadapt.errors import ConfigError
from langadapt.models import products
from langadapt.training.data.batches import IGNORE
from langadapt.training.teacher import SoftLabels
from langadapt_kernels import cross_entropy_
from langadapt_kernels.backend import choose_backend, interpreting


def plain_losses_(narrow: Tensor, wide: Tensor, target: Tensor, *, scale: float, gradient: bool) -> Tensor:
    """As ``langadapt_kernels.cross_entropy_`` of the logits ``narrow``, with fp32 memory of their size for use.

    With ``gradient``, both end as the gradient.
    """
    wide.copy_(narrow)
    valid = target != IGNORE
    index = target.clamp(min=0)[:, None]
    picked = wide.gather(1, index)[:, 0]
    maximum = wide.amax(dim=1, keepdim=True)
    # exp in place: from here on `wide` is the probabilities, then the gradient.
    wide.sub_(maximum).exp_()
    total = wide.sum(dim=1, keepdim=True)
    if gradient:
        wide.mul_(valid[:, None] * scale / total)
        wide.scatter_add_(1, index, -(valid[:, None] * scale).float())
        narrow.copy_(wide)
    return torch.where(valid, (total.log() + maximum)[:, 0] - picked, 0.0)


def plus(total: Tensor | None, part: Tensor, *, wide: bool) -> Tensor:
    """``part``, ``wide`` in float32, added to ``total`` in place if there is one: zeros to begin with would be as much
    memory again, written and read."""
    if total is not None:
        return total.add_(part)
    return part.float() if wide else part


class ChunkedCrossEntropy(torch.autograd.Function):
    """Sum over tokens of cross-entropy times ``scale``; gradients are made in the forward pass.

    With ``kernel``, softmax, loss and gradient are one launch: 6 bytes for each logit in bf16 instead of 44.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        scale: float,
        chunk: int,
        kernel: bool,
    ) -> tuple[Tensor, Tensor]:
        """hidden ``[n, d]``, weight ``[v, d]``, bias ``[v]``, targets ``[n]`` -> (scaled sum, losses fp32 ``[n]``)."""
        need = ctx.needs_input_grad
        losses = torch.zeros(len(hidden), dtype=torch.float32, device=hidden.device)
        dhidden = torch.empty_like(hidden) if need[0] else None
        # Sums over chunks lose nothing in fp32; a single chunk needs no sum.
        once = len(hidden) <= chunk
        dweight: Tensor | None = None
        dbias = torch.zeros_like(bias, dtype=torch.float32) if bias is not None and need[2] else None
        # Memory for all chunks: on a CPU fresh pages cost as much as the arithmetic.
        rows = min(chunk, len(hidden))
        narrow_rows = torch.empty(rows, len(weight), dtype=hidden.dtype, device=hidden.device)
        wide_rows = torch.empty(0 if kernel else rows, len(weight), dtype=torch.float32, device=hidden.device)
        for start in range(0, len(hidden), chunk):
            part, target = hidden[start : start + chunk], targets[start : start + chunk]
            logits, wide = narrow_rows[: len(part)], wide_rows[: len(part)]
            products.outputs(part, weight, bias, out=logits)
            if kernel:
                losses[start : start + chunk] = cross_entropy_(
                    logits, target, scale=scale, ignore_index=IGNORE, gradient=any(need[:3]), backend="triton"
                )
            else:
                losses[start : start + chunk] = plain_losses_(logits, wide, target, scale=scale, gradient=any(need[:3]))
            # From here on `logits` is their gradient.
            if dhidden is not None:
                products.of_states(logits, weight, out=dhidden[start : start + chunk])
            if need[1]:
                dweight = plus(dweight, products.of_weight(logits, part), wide=not once)
            if dbias is not None:
                dbias += (logits if kernel else wide).sum(dim=0, dtype=torch.float32)
        ctx.save_for_backward(
            dhidden,
            dweight.to(weight.dtype) if dweight is not None else None,
            dbias.to(bias.dtype) if dbias is not None and bias is not None else None,
        )
        ctx.mark_non_differentiable(losses)
        return losses.sum() * scale, losses

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        """The stored gradients times ``grad`` (1 in training)."""
        return (
            *(None if saved is None else saved * grad.to(saved.dtype) for saved in ctx.saved_tensors),
            None,
            None,
            None,
            None,
        )


log = logging.getLogger(__name__)

LIGER = "0.8.5"
"""The first release that was looked at; early ones lose the gradients of losses per token without a word."""


def numbers(release: str) -> list[int]:
    """Of a version, without what makes it a candidate or a build of somebody's own."""
    return [int(part) for part in re.match(r"[\d.]*", release)[0].split(".") if part]  # type: ignore[index]


def check_fused(device: torch.device) -> None:
    """Raise where the kernel of `langadapt-kernels` cannot run."""
    try:
        choose_backend("triton", device)
    except (RuntimeError, ValueError):
        raise ConfigError("loss_chunk: fused needs a GPU and Triton; set loss_chunk: auto") from None


def liger_loss(device: torch.device) -> Callable[..., Tensor]:
    """Liger's fused linear cross-entropy: (weight, hidden, targets, bias) -> losses fp32 ``[n]``.

    Raises:
        ConfigError: it is not installed, or too old, or there is no GPU.
    """
    try:
        release = importlib.metadata.version("liger-kernel")
    except importlib.metadata.PackageNotFoundError:
        raise ConfigError("loss_chunk: liger needs the package `liger-kernel`; pip install liger-kernel") from None
    if numbers(release) < numbers(LIGER):
        raise ConfigError(f"loss_chunk: liger needs liger-kernel {LIGER} or later; {release} is installed")
    if device.type != "cuda" and not interpreting():
        raise ConfigError("loss_chunk: liger needs a GPU; set loss_chunk: auto")
    from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss

    # Gradients of the head are summed over chunks: in fp32 nothing is lost.
    loss: Callable[..., Tensor] = LigerFusedLinearCrossEntropyLoss(
        ignore_index=IGNORE, reduction="none", accum_dtype=torch.float32
    )
    return loss


class OtherTokens(Exception):
    """The head was called with other tokens than those of the batch (several streams of them in ProphetNet)."""


class HeadLoss:
    """Takes over ``model``'s output head; `__call__` gives the loss of a batch."""

    def __init__(self, model: Any, chunk: int | str) -> None:
        """``chunk``: tokens per chunk, ``auto``, 0 for the plain way, or a kernel: ``fused``, ``liger``."""
        self.model = model
        self.head = model.get_output_embeddings()
        self.vocabulary = self.head.weight.shape[0] if isinstance(self.head, nn.Linear) else 0
        device = self.head.weight.device
        self.liger = liger_loss(device) if chunk == "liger" else None
        self.fused = chunk == "fused"
        if self.fused:
            check_fused(device)
        if isinstance(chunk, str):
            chunk = chunk_tokens(self.vocabulary, device.type)
        self.chunk = int(chunk) if self.vocabulary else 0
        self.pending: tuple[Tensor, float] | None = None
        self.result: tuple[Tensor, Tensor] | None = None
        self.soft: SoftLabels | None = None
        """What the next batch is to learn beside its labels; counts in its sum, not in the losses of tokens."""
        if self.chunk:
            self.plain_forward = self.head.forward
            self.head.forward = self.forward

    def forward(self, hidden: Tensor) -> Tensor:
        """In place of the head's own ``forward``: the loss of the pending targets, or plain logits."""
        if self.pending is None:
            return self.plain_forward(hidden)
        targets, scale = self.pending
        weight, bias = self.head.weight, self.head.bias
        if torch.is_autocast_enabled(hidden.device.type):
            dtype = torch.get_autocast_dtype(hidden.device.type)
            hidden, weight = hidden.to(dtype), weight.to(dtype)
            bias = bias.to(dtype) if bias is not None else None
        flat = hidden.reshape(-1, hidden.shape[-1])
        if len(flat) != targets.numel():
            raise OtherTokens
        if self.liger is not None:
            losses = self.liger(weight, flat, targets.reshape(-1), bias)
            loss, losses = losses.sum() * scale, losses.detach()
        else:
            loss, losses = ChunkedCrossEntropy.apply(
                flat, weight, bias, targets.reshape(-1), scale, self.chunk, self.fused
            )
        loss = self.with_soft(loss, lambda at: nn.functional.linear(flat[at], weight, bias), scale)
        self.result = (loss, losses)
        # Not a view: FSDP hooks its backward pass to what leaves the model, and warns of views.
        return loss.reshape(1, 1, 1).clone()

    def __call__(self, inputs: dict[str, Tensor], labels: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        """(sum over tokens of loss times ``scale``, for the backward pass; losses fp32 per token, detached)."""
        if not self.chunk:
            output = self.model(**inputs, use_cache=False)
            losses, logits = plain_losses(output.logits, labels), output.logits.flatten(0, 1)
            loss = self.with_soft(losses.sum() * scale, lambda at: logits[at], scale)
            return self.with_router_loss(loss, output, labels, scale), losses.detach()
        output, losses = self.through_head(inputs, labels, scale)
        # The loss that left the model, not the one noted: FSDP hooks its backward pass to the model's output.
        return self.with_router_loss(output.logits.sum(), output, labels, scale), losses

    def with_soft(self, loss: Tensor, student: Callable[[Tensor], Tensor], scale: float) -> Tensor:
        """``loss`` and that of `soft`, if there is some; ``student``: logits of places."""
        soft, self.soft = self.soft, None
        return loss if soft is None else loss + scale * soft.loss(student, self.head.weight.shape[0])

    def through_head(self, inputs: dict[str, Tensor], labels: Tensor, scale: float) -> tuple[Any, Tensor]:
        """(the model's output, with the loss for logits; losses fp32 per token)."""
        self.pending = (labels, scale)
        try:
            output = self.model(**inputs, use_cache=False)
        finally:
            self.pending = None
        if self.result is None:
            raise RuntimeError("the model did not call its output head")
        (_, losses), self.result = self.result, None
        return output, losses

    def with_router_loss(self, loss: Tensor, output: Any, labels: Tensor, scale: float) -> Tensor:
        """``loss`` and, where the model's config asks for it (`output_router_logits`), the loss that keeps experts
        equally busy, times its coefficient; of several micro-batches each has its share of tokens in it."""
        balance = getattr(output, "aux_loss", None)
        coefficient = getattr(self.model.config.get_text_config(), "router_aux_loss_coef", None)
        if not isinstance(balance, Tensor) or not coefficient:
            return loss
        return loss + coefficient * balance.to(loss.device) * ((labels != IGNORE).sum() * scale)

    def fits(self, inputs: dict[str, Tensor], labels: Tensor) -> bool:
        """Whether chunked loss equals the model's own on this batch; if not, the head is handed back."""
        if not self.chunk:
            return True
        # Without dropout: two passes must be comparable, and every start of a run must come to the same answer.
        was_training = self.model.training
        self.model.eval()
        try:
            with torch.no_grad():
                output, losses = self.through_head(inputs, labels, 1.0)
                logits = self.model(**inputs, use_cache=False).logits
        except OtherTokens:
            self.release()
            return False
        finally:
            self.model.train(was_training)
        good = bool(torch.isclose(losses.sum(), plain_losses(logits, labels).sum(), rtol=2e-3, atol=1e-3))
        # A cap that small logits pass as they are would bend the loss, which leaves the model in their place.
        good = good and bool(torch.isclose(losses.sum(), output.logits.sum().float(), rtol=1e-4))
        if not good:
            self.release()
        return good

    def check(self, inputs: dict[str, Tensor], labels: Tensor) -> None:
        """Hand the head back if the model does more with logits than hand them out; warn where its loss is another."""
        if not self.fits(inputs, labels):
            log.info("this architecture transforms its logits; its loss is computed on all of them at once")
        both = self.own(inputs, labels)
        if both is not None and abs(both[0] - both[1]) > 0.01 * abs(both[1]):
            log.warning(
                "%s has a loss of its own (%.4f on a test batch), but the cross-entropy of the next token is trained "
                "(%.4f)",
                *(type(self.model).__name__, both[1], both[0]),
            )

    @torch.no_grad()
    def own(self, inputs: dict[str, Tensor], labels: Tensor) -> tuple[float, float] | None:
        """(mean loss as it is trained, mean loss that the model gives itself) on this batch; none where it gives none.

        transformers' models take labels that they shift by one place themselves.
        """
        shifted = torch.cat([torch.full_like(labels[:, :1], IGNORE), labels[:, :-1]], 1)
        was_training = self.model.training
        self.model.eval()
        try:
            theirs = self.model(**inputs, labels=shifted, use_cache=False).loss
            # The last place has no label there.
            rest = labels.clone()
            rest[:, -1] = IGNORE
            mine, _ = self(inputs, rest, 1.0 / int((rest != IGNORE).sum()))
        except (TypeError, ValueError):
            return None
        finally:
            self.model.train(was_training)
        return None if theirs is None else (float(mine), float(theirs))

    def release(self) -> None:
        """Give the head its own ``forward`` back."""
        if self.chunk:
            self.head.forward = self.plain_forward
            self.chunk = 0


def plain_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of each token, fp32 ``[windows * length]``, from all logits at once."""
    flat = logits.float().reshape(-1, logits.shape[-1])
    return torch.nn.functional.cross_entropy(flat, labels.reshape(-1), ignore_index=IGNORE, reduction="none")
