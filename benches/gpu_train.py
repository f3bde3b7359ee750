"""Training throughput on one GPU: Llama shapes of 1B and 7B, pure bf16 beside mixed, and the Hugging Face Trainer.

Needs only torch, triton and transformers, and this checkout on PYTHONPATH (the extension module too). Each case runs in
a process of its own with a time limit, so that a case that fails costs its own line and nothing else; what was measured
is printed as it comes, one JSON object per line, and written to $OUT/gpu_train.jsonl where OUT is set. All cases
together stay below nine minutes.

    PYTHONPATH=python:kernels/src python benches/gpu_train.py            # on a GPU
    PYTHONPATH=python:kernels/src python benches/gpu_train.py --smoke    # every case, tiny, on a CPU, seconds

Inside the timer: forward, backward, update of whole steps, with a sync before and after; the first two steps, which
compile, are not counted. Documents are random tokens, as long as a window, so attention is causal over all of it. `mfu`
counts 6 N + 12 L H T (attention not halved for causality) as published figures do; `mfu_causal` what causal attention
needs.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any


def llama(width: int, inner: int, layers: int, heads: int, kv_heads: int, vocabulary: int = 32768) -> dict[str, int]:
    """A config's numbers."""
    return {
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "vocab_size": vocabulary,
    }


SHAPES = {
    "1b": llama(2048, 5632, 22, 16, 4),
    "7b": llama(4096, 14336, 32, 32, 8),
    "tiny": llama(64, 128, 2, 4, 2, 256),
}
Case = tuple[str, str, str, dict[str, Any], int]
PURE = {"precision": "pure-bf16", "rounding": "stochastic", "compile": True}
MIXED = {"precision": "mixed-bf16", "rounding": "nearest", "compile": True}
EIGHT = {"micro_batch": 8, "batch_sequences": 16, "activation_checkpointing": "none"}
ONE = {"micro_batch": 1, "batch_sequences": 4, "activation_checkpointing": "none"}
# (name, shape, kind, settings, seconds allowed), the most telling first: a run that is cut short has them.
CASES: list[Case] = [
    ("pure 1b", "1b", "ours", {**PURE, **EIGHT}, 90),
    ("pure 7b", "7b", "ours", {**PURE, **ONE, "accumulate": "bf16"}, 100),
    # It makes all logits at once, where eight windows hardly fit, and compiles the model as a whole, which takes long.
    ("trainer 1b", "1b", "trainer", {**EIGHT, "micro_batch": 4, "compile": True}, 150),
    ("mixed 1b", "1b", "ours", {**MIXED, **EIGHT}, 80),
    ("pure 1b, not compiled", "1b", "ours", {**PURE, **EIGHT, "compile": False, "micro_batch": 4}, 60),
    ("pure 1b, sdpa", "1b", "ours", {**PURE, **EIGHT, "attention": "sdpa"}, 70),
    (
        "pure 7b, selective",
        "7b",
        "ours",
        {**PURE, **ONE, "accumulate": "bf16", "activation_checkpointing": "selective"},
        90,
    ),
    ("pure 7b, fp32 sums", "7b", "ours", {**PURE, **ONE, "activation_checkpointing": "full"}, 90),
    # Its warm-up holds the search for the layout.
    ("pure 1b, auto", "1b", "ours", {**PURE, "compile": False, "micro_batch": "auto", "batch_sequences": 16}, 150),
    ("pure 1b, Liger's loss", "1b", "ours", {**PURE, **EIGHT, "loss_chunk": "liger"}, 70),
]
LIMIT = 510
"""Seconds for all cases."""


def cases(smoke: bool) -> list[Case]:
    """All cases; for a smoke test each of them with a tiny shape, a few windows and no compiler."""
    if not smoke:
        return CASES
    tiny = {"batch_sequences": 4, "compile": False, "loss_chunk": "auto"}
    return [
        (
            f"{name} (smoke)",
            "tiny",
            kind,
            {**settings, **tiny, "micro_batch": 1 if settings["micro_batch"] == 1 else 2},
            120,
        )
        for name, _, kind, settings, _ in CASES
    ]


def network(shape: dict[str, int], length: int, dtype: Any, device: Any) -> Any:
    """An untrained Llama."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(**shape, max_position_embeddings=length, tie_word_embeddings=False, rope_theta=10000.0)
    with torch.device(device):
        torch.manual_seed(0)
        before = torch.get_default_dtype()
        torch.set_default_dtype(dtype)
        try:
            return LlamaForCausalLM(config)
        finally:
            torch.set_default_dtype(before)


def run_ours(shape: dict[str, int], length: int, changes: dict[str, Any], steps: int) -> dict[str, Any]:
    """Whole optimizer steps through the stepper of `train_model`."""
    import torch

    from langadapt.planning.calibration import NoiseStore
    from langadapt.training import TrainSettings, parallel
    from langadapt.training import model as models
    from langadapt.training.data.batches import Mixture, Windows
    from langadapt.training.probe import fastest_layout, synchronize
    from langadapt.training.step import Stepper

    settings = TrainSettings(
        steps=1000, sequence_length=length, learning_rate=1e-4, min_learning_rate=1e-5, stale_every=0, **changes
    )
    team = parallel.join(settings)
    dtype = torch.bfloat16 if settings.precision == "pure-bf16" else torch.float32
    model = models.load(network(shape, length, dtype, team.device), settings, team.device)
    store = NoiseStore(shape["vocab_size"], (steps + 2) * settings.tokens_per_step + length, length + 1)
    mixture = Mixture([Windows(store, "noise", length, None, None, 0)], [1.0], settings.sequences_per_step)
    stepper = Stepper(model, mixture, settings, team, None)
    begun = time.perf_counter()
    stepper.prepare(None, search=fastest_layout)
    seconds, updates = [], []
    for step in range(steps + 2):
        batch = mixture.batch(step)
        synchronize(team.device)
        start = time.perf_counter()
        stepper.step(batch, step, rate=1e-4)
        synchronize(team.device)
        seconds.append(time.perf_counter() - start)
        updates.append(stepper.optimizer_time.take())
    stepper.check_finite(steps, Path())
    return {
        "attention": stepper.attention,
        "chunked_loss": stepper.head_loss.chunk > 0,
        "tokens_per_step": settings.tokens_per_step,
        "warm_up_seconds": round(time.perf_counter() - begun - sum(seconds[2:]), 1),
        "step_seconds": seconds[2:],
        "optimizer_seconds": round(statistics.median(updates[2:]), 5),
        **stepper.layout(),
        **planned_memory(stepper),
    }


def planned_memory(stepper: Any) -> dict[str, float]:
    """What `langadapt plan` says this layout needs: all of it, and the tensors alone."""
    from langadapt.costs.memory import CONTEXT, OVERHEAD, estimate
    from langadapt.training.layout import layout_of

    settings = stepper.settings
    layout = layout_of(settings, stepper.team, "none", settings.activation_checkpointing, stepper.micro_batch)
    peak = estimate(stepper.shape, layout, settings.sequence_length, settings.loss_chunk).peak
    tensors = (peak - CONTEXT) / (1 + OVERHEAD)
    return {"planned_gib": round(peak / 2**30, 2), "planned_tensors_gib": round(tensors / 2**30, 2)}


def run_trainer(shape: dict[str, int], length: int, changes: dict[str, Any], steps: int) -> dict[str, Any]:
    """The Hugging Face Trainer: bf16 weights as ours, fused AdamW, SDPA, compiled, the same batches."""
    import tempfile

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


def utilisation(device: str, shape: dict[str, int], length: int, speed: float) -> dict[str, float]:
    """Shares of the device's peak at ``speed`` tokens per second; none for a device that is not in the table."""
    from langadapt.costs import devices
    from langadapt.costs.flops import Shape

    known = devices.named(device)
    if known is None:
        return {}
    form = Shape.of({**shape, "tie_word_embeddings": False})
    return {
        "mfu": round(form.flops_per_token(length) * speed / known.flops, 4),
        "mfu_causal": round(form.flops_per_token(length / 2) * speed / known.flops, 4),
    }


def run_case(name: str, smoke: bool) -> dict[str, Any]:
    """One case in this process."""
    import torch

    _, shape_name, kind, changes, _ = next(case for case in cases(smoke) if case[0] == name)
    shape, length, steps = SHAPES[shape_name], 128 if smoke else 4096, 2 if smoke else 6
    if torch.cuda.is_available():
        torch.set_float32_matmul_precision("high")
    found = (run_ours if kind == "ours" else run_trainer)(shape, length, changes, steps)
    middle = statistics.median(found["step_seconds"])
    speed = found["tokens_per_step"] / middle
    line = {"case": name, "kind": kind, **found, "tokens_per_second": round(speed, 1)}
    line["step_seconds"] = [round(value, 4) for value in found["step_seconds"]]
    if torch.cuda.is_available():
        line |= {"peak_gib": round(torch.cuda.max_memory_allocated() / 2**30, 2)}
        line |= {"reserved_gib": round(torch.cuda.max_memory_reserved() / 2**30, 2)}
        free, total = torch.cuda.mem_get_info()
        line |= {"used_gib": round((total - free) / 2**30, 2)}
        line |= {
            "device": torch.cuda.get_device_name(),
            **utilisation(torch.cuda.get_device_name(), shape, length, speed),
        }
    import transformers

    return {**line, "torch": torch.__version__, "transformers": transformers.__version__}


def run_here(names: list[str], smoke: bool) -> int:
    """Cases in this process; a failure is a line like any other. Returns the exit code."""
    failed = False
    for name in names:
        try:
            line = run_case(name, smoke)
        except Exception as error:
            traceback.print_exc()
            line, failed = {"case": name, "failed": f"{type(error).__name__}: {error}"[-400:]}, True
        print(json.dumps(line), flush=True)
    return int(failed)


def run_apart(names: list[str], smoke: bool, allowed: float) -> list[dict[str, Any]]:
    """Cases in a process of their own, which is killed after ``allowed`` seconds."""
    command = [sys.executable, __file__, *(["--smoke"] if smoke else []), "--case", *names]
    environment = {**os.environ, "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=allowed, env=environment)
        output, failure = done.stdout, (done.stderr.strip().splitlines() or [""])[-1] or f"exit code {done.returncode}"
    except subprocess.TimeoutExpired as expired:
        output = expired.stdout.decode(errors="replace") if isinstance(expired.stdout, bytes) else expired.stdout or ""
        failure = f"no answer within {allowed:.0f} s"
    lines = [json.loads(line) for line in output.splitlines() if line.startswith('{"case"')]
    told = {line["case"] for line in lines}
    return lines + [{"case": name, "failed": failure[-400:]} for name in names if name not in told]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="every case at a tiny shape, on a CPU, in one process")
    parser.add_argument("--case", nargs="+", help="run these cases in this process")
    arguments = parser.parse_args()
    if arguments.smoke:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    if arguments.case:
        return run_here(arguments.case, arguments.smoke)
    out = Path(os.environ["OUT"]) / "gpu_train.jsonl" if os.environ.get("OUT") else None
    begun, speeds, failed = time.monotonic(), {}, False
    chosen = [([name], allowed) for name, _, _, _, allowed in cases(arguments.smoke)]
    for names, allowed in [([name for group, _ in chosen for name in group], 270)] if arguments.smoke else chosen:
        left = LIMIT - (time.monotonic() - begun)
        if left < 20:
            break
        for line in run_apart(names, arguments.smoke, min(allowed, left)):
            print(json.dumps(line), flush=True)
            failed |= "failed" in line
            speeds[line["case"]] = line.get("tokens_per_second")
            if "planned_gib" in line and "used_gib" in line:
                off = line["planned_gib"] / line["used_gib"] - 1
                print(f"{line['case']}: memory planned {100 * off:+.1f} % of what was used (goal 5)", flush=True)
            if out is not None:
                with out.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(line) + "\n")
    if speeds.get("pure 1b"):
        for other, goal in (("mixed 1b", 1.39), ("trainer 1b", 1.2)):
            if speeds.get(other):
                print(f"pure 1b over {other}: {speeds['pure 1b'] / speeds[other]:.2f} x (goal {goal})", flush=True)
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
