"""The fused optimizer in another trainer: Hugging Face's `Trainer` with `FusedAdamW`, in pure bf16.

python examples/hf_trainer.py MODEL TEXT OUT     # MODEL: a folder or hub id; TEXT: a .jsonl or .txt file

The optimizer rounds stochastically, so that bf16 weights keep the small updates that rounding to nearest loses; the
Trainer's own clipping is off, because the optimizer limits the norm within its step.
"""

from __future__ import annotations

import sys

import torch
from transformers import AutoModelForCausalLM, Trainer, TrainingArguments, get_cosine_schedule_with_warmup

import langadapt
from langadapt_kernels import FusedAdamW

LENGTH, STEPS = 256, 100


def windows(tokenizer: langadapt.Tokenizer, text: str, length: int) -> list[dict[str, torch.Tensor]]:
    """The text's tokens in windows of ``length``, each its own label."""
    ids, _ = tokenizer.encode_batch(langadapt.read_documents(text))
    rows = torch.from_numpy(ids.astype("int64")[: len(ids) // length * length]).view(-1, length)
    return [{"input_ids": row, "labels": row} for row in rows]


def main(model: str, text: str, out: str, steps: int = STEPS, length: int = LENGTH) -> Trainer:
    """Train and save; returns the trainer."""
    tokenizer = langadapt.Tokenizer.from_pretrained(model)
    network = AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16)
    decayed = [p for p in network.parameters() if p.ndim > 1]
    plain = [p for p in network.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": 0.05}, {"params": plain, "weight_decay": 0.0}]
    optimizer = FusedAdamW(groups, 1e-4, (0.9, 0.95), 1e-8, 0.0, rounding="stochastic", max_grad_norm=1.0)
    schedule = get_cosine_schedule_with_warmup(optimizer, steps // 10, steps)
    arguments = TrainingArguments(
        output_dir=out,
        max_steps=steps,
        per_device_train_batch_size=4,
        max_grad_norm=0.0,
        save_strategy="no",
        report_to=[],
        logging_steps=max(steps // 10, 1),
    )
    data = windows(tokenizer, text, length)
    trainer = Trainer(network, arguments, train_dataset=data, optimizers=(optimizer, schedule))
    trainer.train()
    trainer.save_model(out)
    tokenizer.save_pretrained(out)
    return trainer


if __name__ == "__main__":
    main(*sys.argv[1:4])
