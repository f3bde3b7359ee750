"""What does fit where a wish does not: the largest known models that could be trained there instead."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from langadapt.costs.devices import GIB
from langadapt.costs.flops import Shape
from langadapt.errors import ConfigError
from langadapt.models.known import KNOWN
from langadapt.training.adapter_settings import AdapterSettings
from langadapt.training.options import Option, Pricing, kind_of


def choose(pricing: Pricing, options: Sequence[Option]) -> tuple[Option, str]:
    """The best layout and why, as :meth:`Pricing.choose` says.

    Raises:
        ConfigError: none fits; the message ends with what does: an adapter, a smaller model.
    """
    try:
        return pricing.choose(options)
    except ConfigError as error:
        raise ConfigError(f"{error}. {by_adapter(pricing)}{what_fits(pricing)}") from None


def by_adapter(pricing: Pricing) -> str:
    """A sentence on the adapter with which the same model could be trained there, if one would do and none is asked for
    yet."""
    if pricing.gpus > 1 or pricing.settings.adapter is not None or pricing.settings.protect is not None:
        return ""
    for kind in ("lora", "qlora"):
        wish = replace(pricing.settings, adapter=AdapterSettings(kind=kind), parts="all", norms_in_fp32=False)
        best = fastest(replace(pricing, settings=wish, measured=None))
        if best is not None:
            return f"`train.adapter: {{kind: {kind}}}` would fit, in {best.memory.peak / GIB:.1f} GiB. "
    return ""


def what_fits(pricing: Pricing) -> str:
    """A sentence on the largest of the known models that could be trained so on the same GPUs.

    Without an adapter all weights are trained, so parameters, gradients and states have to fit: 8 bytes each and more,
    6.1 with `states: int8`, whose largest is named where it is larger.
    """
    settings, place = pricing.settings, f"{pricing.gpus} x {pricing.device.name}"
    found, coded = largest(pricing), None
    if (settings.precision, settings.optimizer, settings.states) == ("pure-bf16", "adamw", "full"):
        coded = largest(replace(pricing, settings=replace(settings, states="int8")))
    if found is None:
        if coded is None:
            return f"No known model does on {place}; lower sequence_length"
        return f"On {place} the largest known model that does is, with `states: int8`, {told(*coded)}"
    more = f"; with `states: int8` it is {told(*coded)}" if coded is not None and coded[0] != found[0] else ""
    each = 8 if settings.states == "full" else 6.1
    why = "" if settings.adapter else f": all weights are trained, at {each} bytes each and more"
    return f"On {place} the largest known model that does is {told(*found)}{why}{more}"


Fitting = tuple[str, Shape, Option]
"""A known model by name, its shape and how it fits."""


def largest(pricing: Pricing) -> Fitting | None:
    """The largest known model, with the recipe's vocabulary, that fits under the recipe's precision."""
    rows = pricing.shape.vocabulary
    for name, model in sorted(KNOWN.items(), key=lambda item: -Shape.of(item[1].config(), rows).parameters):
        shape = Shape.of(model.config(), rows)
        best = fastest(replace(pricing, shape=shape, measured=None))
        if best is not None:
            return name, shape, best
    return None


def told(name: str, shape: Shape, best: Option) -> str:
    """A model and how it fits, in words."""
    return (
        f"`{name}` ({KNOWN[name].hub}; {shape.parameters / 1e9:.2g} B parameters with this vocabulary, "
        f"`{best.layout.describe()}`, {best.memory.peak / GIB:.1f} GiB)"
    )


def fastest(pricing: Pricing) -> Option | None:
    """The fastest layout under the recipe's precision that fits."""
    wanted = kind_of(pricing.settings)
    fitting = [option for option in pricing.options() if option.fits and option.layout.kind == wanted]
    return max(fitting, key=lambda option: option.tokens_per_second, default=None)
