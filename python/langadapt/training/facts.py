"""What a run has to do with, read from its stores, its model and its machine: what `choices` decides by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from langadapt.costs import devices
from langadapt.costs.flops import Shape
from langadapt.models.folder import stated_context, text_config, trained_at
from langadapt.training.choices import Facts, is_settled, settle, with_window
from langadapt.training.data.batches import StoreShare
from langadapt.training.data.mixture import open_store
from langadapt.training.layout import this_gpu
from langadapt.training.options import predicted_speed
from langadapt.training.parallel import ProcessGroup
from langadapt.training.settings import TrainSettings


def facts_of(
    shares: Sequence[StoreShare],
    config: Mapping[str, Any],
    settings: TrainSettings,
    processes: ProcessGroup,
    *,
    folder: Path | None = None,
) -> Facts:
    """Facts of a run on ``shares``, the target text's first, of a model of ``config`` (or with the store's vocabulary,
    where it is about to be swapped), whose ``folder`` may tell how it was trained."""
    stores, total = [open_store(share) for share in shares], sum(share.weight for share in shares)
    parts = [(len(store.tokens), share.weight / total) for store, share in zip(stores, shares, strict=True) if total]
    used = [(tokens, share) for tokens, share in parts if share > 0]
    shape = Shape.of(config, stores[0].manifest.get("summary", {}).get("vocab_size"))
    context = stated_context(text_config(config))
    facts = Facts(
        text=used[0][0] if used else None,
        share=used[0][1] if used else 1.0,
        least=min((tokens / share for tokens, share in used), default=None),
        context=context,
        parameters=shape.parameters,
        processes=processes.size,
        trained_at=None if folder is None else trained_at(folder),
    )
    if settings.hours is None and settings.limit_hours is None:
        return facts
    return replace(facts, speed=speed_here(shape, settings, facts, processes))


def settled(
    settings: TrainSettings, shares: Sequence[StoreShare], model: Any, processes: ProcessGroup
) -> TrainSettings:
    """``settings`` without `auto` in window, batch and warm-up, the same for all processes."""
    if is_settled(settings):
        return settings
    found: TrainSettings = processes.broadcast(
        settle(settings, facts_of(shares, model.config.to_dict(), settings, processes))
    )
    return found


def speed_here(shape: Shape, settings: TrainSettings, facts: Facts, processes: ProcessGroup) -> float:
    """Tokens per second of these processes on this machine, as predicted."""
    device = this_gpu(processes.device) if processes.device.type == "cuda" else devices.cpu()
    return predicted_speed(shape, with_window(settings, facts), processes.size, device)
