"""A base model of 0.2 M parameters, an instruct model made from it by training on a format task, and an adapted one."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch
from sample_tokenizers import ENGLISH, GERMAN
from tiny import tiny_llama
from transformers import AutoModelForCausalLM

from langadapt.models.folder import load_model
from langadapt.tokenizer.encoder import Tokenizer
from langadapt.tokenizer.templates import DEFAULT_FILE
from langadapt.tokenizer.training import train_bpe

SPECIAL = {"bos_token": "<|begin|>", "eos_token": "<|end|>", "pad_token": "<|pad|>"}
MARKERS = ["<|im_start|>", "<|im_end|>"]
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WORDS = sorted({word.strip(".,") for line in ENGLISH + GERMAN for word in line.split()})


def tokenizer_of(lines: list[str], size: int, *, markers: bool = True) -> Tokenizer:
    special = {**SPECIAL, **({f"extra_{at}": token for at, token in enumerate(MARKERS)} if markers else {})}
    return train_bpe(texts=lines, vocab_size=size, special_tokens=special, accept_fewer=True)


def save(model: Any, tokenizer: Tokenizer, folder: Path, template: str | None = None) -> Path:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if template is not None:
        (folder / DEFAULT_FILE).write_text(template)
    return folder


def fresh_base(folder: Path, tokenizer: Tokenizer, *, rows: int | None = None, **changes: Any) -> Path:
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2}
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    model = tiny_llama(
        vocab_size=rows or tokenizer.vocab_size,
        max_position_embeddings=256,
        initializer_range=0.06,
        **{**shape, **ids, **changes},
    )
    return save(model, tokenizer, folder)


def train(folder: Path, out: Path, texts: list[str], *, steps: int, rate: float, template: str | None = None) -> Path:
    """Plain AdamW on documents as they are, special tokens in them read as such."""
    # Two threads that share a busy core wait for each other.
    torch.set_num_threads(1)
    model: Any = load_model(folder, dtype=torch.float32)
    tokenizer = Tokenizer.from_pretrained(folder)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    chance = random.Random(0)
    for _ in range(steps):
        rows = [tokenizer.encode(text).astype("int64")[:64] for text in chance.choices(texts, k=8)]
        width = max(map(len, rows))
        ids, labels = torch.zeros((8, width), dtype=torch.int64), torch.full((8, width), -100)
        for at, row in enumerate(rows):
            ids[at, : len(row)] = labels[at, : len(row)] = torch.from_numpy(row)
        model(input_ids=ids, labels=labels).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return save(model.eval(), tokenizer, out, template)


def plain(lines: list[str]) -> list[str]:
    return [f"{SPECIAL['bos_token']}{line}{SPECIAL['eos_token']}" for line in lines]


def conversations(seed: int = 1, count: int = 200) -> list[str]:
    """A user's words; the answer is between tags, then the turn ends."""
    chance = random.Random(seed)
    found = []
    for _ in range(count):
        said, reply = (" ".join(chance.choices(WORDS, k=chance.randint(1, 4))) for _ in range(2))
        turns = [("user", said), ("assistant", f"[[ {reply} ]]")]
        found.append(SPECIAL["bos_token"] + "".join(f"<|im_start|>{role}\n{text}<|im_end|>\n" for role, text in turns))
    return found


def in_format(text: str) -> bool:
    """Whether a reply is what the instruct model learnt to say."""
    return text.startswith("[[ ") and text.endswith(" ]]") and len(text) > 6


def perturbed(base: Path, instruct: Path, out: Path) -> Path:
    """The base moved as far as the instruct model, tensor by tensor, in a random direction."""
    start, there = (AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32) for folder in (base, instruct))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for (_, tensor), (_, other) in zip(start.named_parameters(), there.named_parameters(), strict=True):
            noise = torch.randn(tensor.shape, generator=generator)
            tensor += noise * ((other - tensor).norm() / noise.norm())
    return save(start, Tokenizer.from_pretrained(instruct), out)
