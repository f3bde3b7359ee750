"""`FusedAdamW`: the fused step as a `torch.optim.Optimizer`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from ..backend import choose_backend
from .entries import Entries
from .groups import check_group, check_options, check_settings
from .modes import FAST_EPS, LOW_BITS, Entry
from .norm import GradientSquares, move
from .rows import Rows
from .run import LaunchConfig, StepCache, run_step
from .sharding import element_index, flat, local
from .states import FROZEN, Sealed, check_state, column_mask, initial_state, moment_views, restored_state, seal


class FusedAdamW(Optimizer):
    """AdamW whose whole step is one pass over memory, made for bfloat16 parameters without a float32 master.

    Each parameter is updated as `p <- p (1 - lr wd) - lr m_hat / (sqrt(v_hat) + eps)` in float32 and rounded once.
    Weight decay is decoupled as in `torch.optim.AdamW`, whose state dicts are loaded, and which loads those of
    this class.

    Args:
        params: bfloat16 or float32 parameters, or parameter groups (`lr`, `betas`, `eps`, `weight_decay` and
            `rounding` may differ per group). Plain tensors or DTensors (FSDP2), also with empty shards. A
            parameter named twice in a group (tied weights) is stepped once.
        lr: learning rate; a tensor of no dimensions is read on the device, without a sync (and so may change between
            replays of a CUDA graph).
        betas: decay rates of the first and second moment, in [0, 1).
        eps: added to the square root of the second moment.
        weight_decay: decoupled decay, per unit of `lr`.
        rounding: how a bfloat16 parameter is stored, and the bytes per parameter that a step moves with bfloat16
            states:
            "nearest" (14): updates below half a unit in the last place are lost.
            "stochastic" (14): rounds up with the probability of the lost part, so that updates survive on average.
            "kahan" (18): a bfloat16 compensation beside the weight, 16 bits of mantissa together.
            "split" (18): the low 16 bits of a float32 master beside the weight: the trajectory of a float32 master.
            "split8" (16): the next 8 bits only, 16 bits of mantissa together.
            float32 parameters are updated in float32 in every mode.
        stochastic_variance: round a bfloat16 or int8 second moment stochastically too; None means: where `rounding` is
            "stochastic" or moments are int8. Needed, in every mode, for `beta2` above 0.99: rounded to nearest, such a
            second moment cannot shrink, since its change is below half a unit, and steps stay too short after a spike.
        state_dtype: dtype of the moments, torch.bfloat16, torch.float32 or torch.int8; None takes the parameter's.
            torch.int8: companded codes of a byte with a scale for each 64 neighbours, 2.125 bytes per parameter for
            both moments (a step moves 3.75 bytes less than with bfloat16); see `langadapt_kernels.codes`. Vectors, and
            matrices whose rows are not whole groups, keep moments of the parameter's dtype.
        max_grad_norm: clip the global gradient norm to this (infinity only measures it); the factor stays on the device
            and is applied inside the step, so that gradients are read once more and never written. `grad_norm` then
            holds the norm before clipping.
        norm_in_backward: with `max_grad_norm`, add up each gradient's squares in the backward pass, right after it was
            written, while it may still be in the caches; the step then makes no pass over the gradients for the norm.
            Gradients that were changed or replaced since, DTensors, and all gradients in a job of several processes,
            are read by the step as without it. See `accumulating`.
        seed: key of the random bits. They depend on the element's place in the model and the step alone, not on
            sharding, launches or block sizes. Saved in the state dict.
        gradient_release: step each parameter as soon as its gradient is accumulated and free that gradient, so
            that bfloat16 gradients never all exist at once; `step()` then does nothing. Not with `max_grad_norm`,
            nor with gradients accumulated over several backward passes.
        stale_meter: count the weights that a step left as they were, see `stale_share`.
        backend: "triton", "core", "reference" or None: Triton for CUDA tensors where it is installed, langadapt's
            compiled core for CPU tensors where that is, else the reference.
        options: `foreach`, `fused` and `capturable` of `torch.optim.AdamW` change nothing: the step is all of them.
            `amsgrad`, `maximize` and `differentiable` are refused.

    Raises:
        ValueError: a setting out of range, an unsupported dtype, or settings that exclude each other.
        TypeError: an unknown argument.
        RuntimeError: the Triton backend was asked for and is not installed (raised by the first step).

    Closures, learning rate schedulers, a `GradScaler` and `torch.distributed.checkpoint` find what they know from
    `torch.optim.AdamW`.

    A step can be captured in a CUDA graph after one step outside of it (gradients must keep their addresses: use
    `zero_grad(set_to_none=False)`), with `lr` as a tensor if it changes.
    """

    # A `GradScaler` then hands its scale over instead of making a pass over the gradients.
    _step_supports_amp_scaling = True

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        *,
        rounding: str = "nearest",
        stochastic_variance: bool | None = None,
        state_dtype: torch.dtype | None = None,
        max_grad_norm: float | None = None,
        norm_in_backward: bool = False,
        seed: int = 0,
        gradient_release: bool = False,
        stale_meter: bool = False,
        backend: str | None = None,
        **options: Any,
    ) -> None:
        # By position: the order of torch.optim.AdamW.
        check_options(options)
        check_settings(
            state_dtype=state_dtype,
            max_grad_norm=max_grad_norm,
            norm_in_backward=norm_in_backward,
            seed=seed,
            gradient_release=gradient_release,
            backend=backend,
        )
        self.state_dtype = state_dtype
        self.max_grad_norm = max_grad_norm
        self.norm_in_backward = norm_in_backward
        self.gradient_release = gradient_release
        self.stale_meter = stale_meter
        self.backend = backend
        self.grad_norm: Tensor | None = None
        self._launch_config = LaunchConfig()
        self.gradient_squares = GradientSquares(backend, self._launch_config)
        self._reset()
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "rounding": rounding,
            "stochastic_variance": stochastic_variance,
            "seed": seed,
        }
        super().__init__(params, defaults)

    def _reset(self) -> None:
        """Forget what was derived from states and parameters; it is made anew by the next step."""
        self._rows = Rows((), {})
        self._entries = Entries(self._entry)
        self._stale: dict[Tensor, Tensor] = {}
        self._cache = StepCache(self._launch_config)

    @property
    def launch_config(self) -> LaunchConfig:
        """How the kernels are cut, and whether their float32 math is IEEE's to the last bit; may be set at any time."""
        return self._launch_config

    @launch_config.setter
    def launch_config(self, config: LaunchConfig) -> None:
        self._launch_config = config
        self.gradient_squares.cut(config)
        self._reset()

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group of parameters; the same parameter twice in the group (tied weights) is one parameter."""
        params = param_group["params"]
        named = [params] if isinstance(params, Tensor) else list(params)
        unique: dict[int, Any] = {}
        for item in named:
            unique.setdefault(id(item[1] if isinstance(item, tuple) else item), item)
        super().add_param_group({**param_group, "params": list(unique.values())})
        group = self.param_groups[-1]
        check_group(group)
        # torch.optim.AdamW reads this key when it loads our state dict: its step counters may then stay on the GPU.
        group["capturable"] = all(p.is_cuda for p in group["params"])
        self._watch(group["params"])
        self._reset()

    def _watch(self, params: Iterable[Tensor]) -> None:
        """Tell those who look at gradients in the backward pass of new parameters."""
        self.gradient_squares.add(params, hooks=self.norm_in_backward)
        if self.gradient_release:
            for param in params:
                param.register_post_accumulate_grad_hook(self._release)

    def accumulating(self) -> AbstractContextManager[None]:
        """While more gradients are to be added before the step: no squares are summed that would soon be out of date.

        For all backward passes of a step but the last, with `norm_in_backward`. Without it the results are the same,
        and gradients are read with every pass.
        """
        return self.gradient_squares.paused()

    @torch.no_grad()
    def freeze_columns(self, param: Tensor, frozen: Tensor) -> None:
        """Leave columns of a matrix as they are from now on: their weights, low bits and moments, without decay.

        Their gradients still count for `grad_norm`, and their weights as unmoved for `stale_share`. The mask, a bit for
        each column, is part of the parameter's state and so of state dicts. A step reads it; no memory is saved.

        Args:
            param: `[rows, columns]`, a parameter of this optimizer, row-major; whole or sharded by rows.
            frozen: bool `[columns]`.

        Raises:
            ValueError: another parameter, or a mask that does not fit it.
        """
        group = next((one for one in self.param_groups if any(param is p for p in one["params"])), None)
        if group is None:
            raise ValueError(f"a parameter of {tuple(param.shape)} that this optimizer does not have")
        mask = column_mask(param, frozen)
        if not self.state.get(param):
            self.state[param] = initial_state(param, group["rounding"], self.state_dtype)
        self.state[param][FROZEN] = mask
        self._reset()

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update all parameters that have a gradient; returns what `closure` (run first, if given) returned.

        Called by a `torch.amp.GradScaler`, it divides by the scale inside the step, and leaves everything as it is if
        a gradient is not finite (which waits for the device, as with optimizers that know nothing of the scaler).
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        found_inf, loss_scale = getattr(self, "found_inf", None), getattr(self, "grad_scale", None)
        if self.gradient_release:
            if found_inf is not None:
                raise RuntimeError("`gradient_release` steps in the backward pass, before a GradScaler has its say")
            return loss
        if found_inf is not None:
            if float(found_inf):
                return loss
            if loss_scale is None:
                # The scaler has unscaled the gradients in place, and no version counter tells.
                self.gradient_squares.forget()
        active = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        if active:
            self._update(active, loss_scale)
        return loss

    @torch.no_grad()
    def _release(self, param: Tensor) -> None:
        self._update([param])
        param.grad = None

    @torch._disable_dynamo
    def _update(self, active: list[Tensor], loss_scale: Tensor | None = None) -> None:
        self._prepare(active)
        try:
            self._step(active, self._entries.of(active), loss_scale)
        finally:
            self._entries.release()

    def _step(self, active: list[Tensor], entries: list[Entry], loss_scale: Tensor | None) -> None:
        all_rows = [self._rows.row[p] for p in active]
        grad_scale = self._gradient_scale(active, entries, all_rows, loss_scale)
        devices: dict[torch.device, list[int]] = {}
        for i, param in enumerate(active):
            devices.setdefault(param.device, []).append(i)
        for device, members in devices.items():
            rows = [all_rows[i] for i in members]
            if self.gradient_release:
                scalars = self._rows.count_one(self.param_groups, active[0], self._cache)
            else:
                scalars = self._rows.count(self.param_groups, device, rows, self._cache)
            stale = run_step(
                [entries[i] for i in members],
                rows,
                scalars,
                None if grad_scale is None else move(grad_scale, device),
                backend=choose_backend(self.backend, device, in_core=True),
                cache=self._cache,
                count_stale=self.stale_meter,
                exact=any(group["eps"] < FAST_EPS for group in self.param_groups),
            )
            if stale is not None:
                self._stale.update(zip((active[i] for i in members), stale.unbind(), strict=True))

    def _prepare(self, active: list[Tensor]) -> None:
        """Give new parameters their states, and all step counters one tensor per device to be counted in together."""
        if self._entries.are_for(active) and len(self.state) >= len(active):
            return
        if all(p in self._rows.row and p in self.state for p in active):
            return
        for group in self.param_groups:
            for param in group["params"]:
                # Gradients that are released come one by one: there, all states are made at once.
                if (param.grad is not None or self.gradient_release) and not self.state.get(param):
                    self.state[param] = initial_state(param, group["rounding"], self.state_dtype)
        self._reset()
        self._rows = Rows(self.param_groups, self.state)

    def _entry(self, param: Tensor, shard: Tensor) -> Entry:
        """A parameter's flat local views; its gradient is yet to come."""
        state = self.state[param]
        group = self._rows.group[param]
        check_state(param, state, group["rounding"])
        rounding = group["rounding"] if param.dtype == torch.bfloat16 else "nearest"
        random_variance = group["stochastic_variance"]
        if random_variance is None:
            random_variance = rounding == "stochastic" or "exp_avg_scale" in state
        low = state[LOW_BITS[rounding][0]] if rounding in LOW_BITS else None
        weight = flat(shard)
        return Entry(
            param=weight,
            grad=weight,
            **moment_views(state),
            low=None if low is None else flat(local(low)),
            rounding=rounding,
            stochastic_variance=random_variance,
            seed=group["seed"],
            index=element_index(param, self._rows.base[param]),
            frozen=state.get(FROZEN),
            columns=param.shape[-1] if FROZEN in state else 1,
        )

    def _gradient_scale(
        self, active: list[Tensor], entries: list[Entry], rows: list[int], loss_scale: Tensor | None
    ) -> Tensor | None:
        """What gradients are multiplied with, on the device: min(1, max_grad_norm / norm) and 1 / loss_scale, or None.

        The norm is over all parameters, shards and ranks, and of the gradients of the unscaled loss.
        """
        if self.max_grad_norm is None:
            return None if loss_scale is None else 1 / loss_scale.float()
        norm = self.gradient_squares.norm(active, entries, rows, self._cache)
        scale = 1.0 if loss_scale is None else move(loss_scale, norm.device)
        norm = norm / scale
        self.grad_norm = norm.float()
        # As torch.nn.utils.clip_grad_norm_: NaN goes through.
        return (torch.clamp(self.max_grad_norm / (norm + 1e-6), max=1.0) / scale).float()

    def stale_share(self) -> Tensor:
        """Share of stored weights (low bits included) that their last step left as they were.

        Returns:
            float32 tensor of no dimensions, on the device of the parameters; reading it waits for the step. It
            covers the weights that this rank holds.

        Raises:
            RuntimeError: the meter is off, or no step was made yet.
        """
        shares = self.stale_counts()
        device = next(iter(shares)).device
        total = sum(local(p).numel() for p in shares)
        stale = torch.stack([count.to(device) for count in shares.values()]).sum()
        return (stale.double() / max(total, 1)).float()

    def stale_counts(self) -> dict[Tensor, Tensor]:
        """Per parameter, how many of its (local) stored weights its last step left as they were: int64, no dimensions.

        Raises:
            RuntimeError: the meter is off, or no step was made yet.
        """
        if not self._stale:
            raise RuntimeError(
                "no stale updates counted: "
                + ("no step was made yet" if self.stale_meter else "pass `stale_meter=True`")
            )
        return self._stale

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state dict of this class or of `torch.optim.AdamW`.

        Moments are converted to `state_dtype`; a tensor that the rounding keeps beside the weights starts at zero
        where the state dict has none of its kind.

        Raises:
            ValueError: other parameter groups or shapes, a state of AMSGrad, or of Adam with a weight decay.
        """
        # torch casts every state to the parameter's dtype, which would destroy low bits and float32 moments: it is
        # handed sealed states instead. Registered last, so that hooks of the user see and change the real ones.
        handle = self.register_load_state_dict_pre_hook(seal)
        try:
            super().load_state_dict(state_dict)
        finally:
            handle.remove()

    def __getstate__(self) -> dict[str, Any]:
        names = ("state_dtype", "max_grad_norm", "norm_in_backward", "gradient_release", "stale_meter", "backend")
        state = {name: getattr(self, name) for name in (*names, "_launch_config")}
        return {**super().__getstate__(), "grad_norm": None, **state}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._reset()
        if "gradient_squares" not in self.__dict__:  # a copy, whose parameters have no hooks yet
            self.gradient_squares = GradientSquares(self.backend, self._launch_config)
            for group in self.param_groups:
                self._watch(group["params"])
        for group in self.param_groups:
            for name, value in self.defaults.items():
                group.setdefault(name, value)
            group["capturable"] = all(p.is_cuda for p in group["params"])
            check_group(group)
            for param in group["params"]:
                sealed = self.state.get(param)
                if isinstance(sealed, Sealed):
                    del self.state[param]
                    if sealed.state:
                        fresh = initial_state(param, group["rounding"], self.state_dtype)
                        self.state[param] = restored_state(fresh, sealed.state)
