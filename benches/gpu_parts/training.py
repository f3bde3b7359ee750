"""One case of `benches/gpu_train.py` in this process: whole optimizer steps, ours or the Trainer's, timed."""

from __future__ import annotations

import importlib.util
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from gpu_parts.cases import SHAPES, Case

MFU = (
    "mfu: 6 per weight but the input embedding + 12 x layers x heads x head width x HALF the window per token, over "
    "the GPU's published dense bf16 peak, as the training log has it; mfu_whole_attention: the same with the WHOLE "
    "window, as many published figures have it; neither counts what is computed twice, nor that documents are shorter"
)


class Skipped(Exception):
    """Why this case cannot be measured here."""


def measure(case: Case, smoke: bool) -> dict[str, Any]:
    """The case's row.

    Raises:
        Skipped: a package is missing, or the device has too little memory.
    """
    import torch
    import transformers

    missing = [name for name in case.needs if importlib.util.find_spec(name) is None]
    if missing:
        raise Skipped(f"not installed: {', '.join(missing)}")
    shape, length, steps = SHAPES[case.shape], 128 if smoke else 4096, 2 if smoke else 6
    gpu = torch.cuda.is_available()
    if gpu:
        torch.set_float32_matmul_precision("high")
    if case.trainer:
        found = run_trainer(shape, length, case.settings, steps)
    else:
        found = run_ours(shape, length, case, steps)
    seconds = found.pop("step_seconds")
    speed = found["tokens_per_step"] / statistics.median(seconds)
    row = {"kind": "trainer" if case.trainer else "ours", **found, "tokens_per_second": round(speed, 1)}
    row["step_seconds"] = [round(value, 4) for value in seconds]
    if gpu:
        row |= memory_used() | utilisation(torch.cuda.get_device_name(), shape, length, speed)
    return {**row, "torch": torch.__version__, "transformers": transformers.__version__}


def memory_used() -> dict[str, Any]:
    """What was used at most, of tensors and in all, and on what."""
    import torch

    free, total = torch.cuda.mem_get_info()
    found = {"peak": torch.cuda.max_memory_allocated(), "reserved": torch.cuda.max_memory_reserved()}
    found["used"] = total - free
    return {f"{name}_gib": gib(size) for name, size in found.items()} | {"device": torch.cuda.get_device_name()}


def gib(size: float) -> float:
    """For people."""
    return round(size / 2**30, 2)


def utilisation(device: str, shape: dict[str, int], length: int, speed: float) -> dict[str, Any]:
    """Shares of the device's peak at ``speed`` tokens per second; none for a device that is not in the table."""
    from langadapt.costs import devices
    from langadapt.costs.flops import Shape

    known = devices.named(device)
    if known is None:
        return {}
    form = Shape.of({**shape, "tie_word_embeddings": False})
    whole = form.flops_per_token(length) * speed / known.flops
    mfu = round(form.mfu(speed, length, known.flops), 4)
    return {"mfu": mfu, "mfu_whole_attention": round(whole, 4), "peak_flops": known.flops, "mfu_counts": MFU}


def network(shape: dict[str, int], length: int, dtype: Any, device: Any) -> Any:
    """An untrained Llama."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(**shape, max_position_embeddings=length, tie_word_embeddings=False)
    with torch.device(device):
        torch.manual_seed(0)
        before = torch.get_default_dtype()
        torch.set_default_dtype(dtype)
        try:
            return LlamaForCausalLM(config)
        finally:
            torch.set_default_dtype(before)


def run_ours(shape: dict[str, int], length: int, case: Case, steps: int) -> dict[str, Any]:
    """Whole optimizer steps through the stepper of `train_model`."""
    import torch

    from langadapt.planning.calibration import NoiseStore
    from langadapt.training import TrainSettings, parallel
    from langadapt.training import model as models
    from langadapt.training.data.batches import Mixture, Windows
    from langadapt.training.layout_trials import synchronize
    from langadapt.training.step import Stepper

    rates = {"learning_rate": 1e-4, "min_learning_rate": 1e-5}
    settings = TrainSettings(steps=1000, sequence_length=length, stale_every=0, **rates, **case.settings)
    processes = parallel.join(settings)
    check_room(shape, settings, processes)
    dtype = torch.bfloat16 if settings.precision == "pure-bf16" else torch.float32
    model = models.load(network(shape, length, dtype, processes.device), settings, processes.device)
    tokens, document = (steps + 2) * settings.tokens_per_step + length, case.document or length
    # So many pairs of input and label, which fill windows to the last place, are of one token more.
    store = NoiseStore(shape["vocab_size"], tokens, document + 1)
    mixture = Mixture(
        [Windows(store, "noise", length, start=None, end=None, seed=0)], [1.0], settings.sequences_per_step
    )
    begun = time.perf_counter()
    stepper = Stepper(model, mixture, settings, processes)
    seconds, updates = [], []
    for step in range(steps + 2):
        batch = mixture.batch(step)
        synchronize(processes.device)
        start = time.perf_counter()
        stepper.step(batch, step, rate=1e-4)
        synchronize(processes.device)
        seconds.append(time.perf_counter() - start)
        updates.append(stepper.optimizer_time.take())
    stepper.check_finite(steps, Path())
    return {
        "attention": stepper.attention,
        "document": document,
        "chunked_loss": stepper.head_loss.chunk > 0,
        "tokens_per_step": settings.tokens_per_step,
        "warm_up_seconds": round(time.perf_counter() - begun - sum(seconds[2:]), 1),
        "step_seconds": seconds[2:],
        "optimizer_seconds": round(statistics.median(updates[2:]), 5),
        **stepper.describe_layout(),
        **planned_memory(stepper.shape, stepper.settings, processes, stepper.micro_batch),
    }


def planned_memory(form: Any, settings: Any, processes: Any, micro_batch: int) -> dict[str, float]:
    """What `langadapt plan` says this layout needs: all of it, and the tensors alone."""
    from langadapt.costs.memory import CONTEXT, OVERHEAD, estimate
    from langadapt.training.layout import layout_of

    layout = layout_of(settings, processes, "none", settings.activation_checkpointing, micro_batch=micro_batch)
    peak = estimate(form, layout, settings.sequence_length, settings.loss_chunk).peak
    return {"planned_gib": gib(peak), "planned_tensors_gib": gib((peak - CONTEXT) / (1 + OVERHEAD))}


def check_room(shape: dict[str, int], settings: Any, processes: Any) -> None:
    """Not by trial, which costs minutes: what the plan says of this layout. One that is to be found fits anyway.

    Raises:
        Skipped: tensors alone are more than the device has.
    """
    import torch

    from langadapt.costs.flops import Shape

    if not torch.cuda.is_available() or "auto" in (settings.micro_batch, settings.activation_checkpointing):
        return
    form = Shape.of({**shape, "tie_word_embeddings": False})
    needed = planned_memory(form, settings, processes, settings.micro_batch)["planned_tensors_gib"]
    there = gib(torch.cuda.get_device_properties(0).total_memory)
    if needed > there:
        raise Skipped(f"tensors of {needed} GiB by the plan, the device has {there}")


def run_trainer(shape: dict[str, int], length: int, changes: dict[str, Any], steps: int) -> dict[str, Any]:
    """The Hugging Face Trainer: bf16 weights as ours, fused AdamW, SDPA, compiled, the same batches."""
    import torch
    from transformers import Trainer, TrainerCallback, TrainingArguments

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = network(shape, length, torch.bfloat16, device)
    micro, windows = changes["micro_batch"], changes["batch_sequences"]
    ids = torch.randint(shape["vocab_size"], ((steps + 2) * windows, length))
    seconds: list[float] = []

    class Clock(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.wait()
            self.begun = time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.wait()
            seconds.append(time.perf_counter() - self.begun)

        @staticmethod
        def wait() -> None:
            if device == "cuda":
                torch.cuda.synchronize()

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder, per_device_train_batch_size=micro, gradient_accumulation_steps=windows // micro,
            max_steps=steps + 2, bf16=False, optim="adamw_torch_fused" if device == "cuda" else "adamw_torch",
            torch_compile=changes["compile"], logging_steps=1000, save_strategy="no", report_to=[], disable_tqdm=True,
            dataloader_num_workers=0, use_cpu=device == "cpu", learning_rate=1e-4,
        )  # fmt: skip
        data = [{"input_ids": row, "labels": row} for row in ids]
        Trainer(model=model, args=arguments, train_dataset=data, callbacks=[Clock()]).train()
    return {"tokens_per_step": windows * length, "step_seconds": seconds[2:], "micro_batch": micro}
