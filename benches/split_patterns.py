"""Published ways to cut text, side by side: counting words for training, and encoding, each on one thread.

Inside the timer: `train_bpe` up to and with 4,096 entries on texts in memory, and `Tokenizer.encode_batch` of all
texts, once to warm the cache and then the best of three. CPU seconds of the process, because the machine may be shared.
What is timed is checked first: the ids of 200 texts equal those of the `tokenizers` package. `--against PATH` times
Llama 3's pattern with another build of langadapt (a folder for PYTHONPATH) in a process of its own, before and after.

    python benches/split_patterns.py TEXT.jsonl.zst... --megabytes 8
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

DEEPSEEK = (
    r"\p{N}{1,3}",
    r"[一-龥぀-ゟ゠-ヿ]+",
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
    "| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+",
)
KIMI = (
    r"[\p{Han}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+"
    r"[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
)
BLOOM = r" ?[^(\s|[.,!?…。，、।۔،])]+"
BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
GPT2 = {**BYTES, "use_regex": True}


def split(regex: str, behavior: str = "Isolated", *, invert: bool = False) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": regex}, "behavior": behavior, "invert": invert}


def pre_tokenizers() -> dict[str, list[dict[str, Any]]]:
    """Steps by the tokenizers that have them."""
    from langadapt.tokenizer.cutting import PATTERNS

    one = {
        "Llama 3, GLM-4": PATTERNS["llama3"],
        "Phi-4 (cl100k)": PATTERNS["gpt4"],
        "Qwen 2": PATTERNS["qwen2"],
        "Qwen 3.5": PATTERNS.get("qwen35"),
        "GPT-OSS, MiniMax (o200k)": PATTERNS["o200k"],
        "Tekken, Nemotron 3": PATTERNS.get("tekken"),
        "default with marks": PATTERNS.get("llama3-marks"),
        "Kimi K2": KIMI,
        "Bloom": BLOOM,
    }
    digits = {"type": "Digits", "individual_digits": True}
    falcon = [{"type": "Punctuation", "behavior": "Contiguous"}, GPT2, {**digits, "individual_digits": False}]
    found = {name: [split(regex), BYTES] for name, regex in one.items() if regex is not None}
    found["Llama 3 from tiktoken"] = [split(PATTERNS["llama3"], "Removed", invert=True), BYTES]
    found["GPT-2"] = [GPT2]
    found["StarCoder 2, Command-R"] = [digits, GPT2]
    found["Falcon"] = [*falcon, split("[0-9][0-9][0-9]")]
    found["DeepSeek V3"] = [*map(split, DEEPSEEK), BYTES]
    return found


def read(files: Sequence[str], megabytes: float) -> list[str]:
    from langadapt.corpus.documents import read_documents

    texts: list[str] = []
    for file in files:
        size = 0
        for text in read_documents([file]):
            texts.append(text)
            size += len(text.encode())
            if size > megabytes * 1e6 / len(files):
                break
    return texts


def like(steps: list[dict[str, Any]]) -> Any:
    """An untrained tokenizer with these steps."""
    from langadapt.tokenizer.encoder import Tokenizer

    definition = {
        "version": "1.0",
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps},
        "post_processor": None,
        "decoder": GPT2,
        "model": {"type": "BPE", "vocab": {}, "merges": []},
    }
    return Tokenizer(json.dumps(definition).encode())


def cpu_seconds(work: Any) -> tuple[float, Any]:
    started = time.process_time()
    result = work()
    return time.process_time() - started, result


def measure(name: str, steps: list[dict[str, Any]], texts: list[str]) -> dict[str, Any]:
    from tokenizers import Tokenizer as Package

    from langadapt.tokenizer.training import train_bpe

    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    training, tokenizer = cpu_seconds(lambda: train_bpe(iter(texts), 4096, like=like(steps), threads=1))
    package = Package.from_str(tokenizer.definition.decode())
    for text in texts[:: max(len(texts) // 200, 1)]:
        assert package.encode(text).ids == tokenizer.encode(text).tolist(), name
    rounds = [cpu_seconds(lambda: tokenizer.encode_batch(texts, threads=1))[0] for _ in range(4)]
    encoding = min(rounds[1:])
    row = {"name": name, "backend": tokenizer.backend, "megabytes": round(megabytes, 2)}
    return row | {"training_mb_per_s": megabytes / training, "encoding_mb_per_s": megabytes / encoding}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("texts", nargs="+")
    parser.add_argument("--megabytes", type=float, default=8)
    parser.add_argument("--only")
    parser.add_argument("--against")
    chosen = parser.parse_args()
    texts = read(chosen.texts, chosen.megabytes)

    def baseline() -> None:
        if chosen.against:
            command = [sys.executable, __file__, *chosen.texts, "--megabytes", str(chosen.megabytes)]
            environment = {**os.environ, "PYTHONPATH": chosen.against}
            done = subprocess.run(
                [*command, "--only", "Llama 3, GLM-4"], env=environment, check=True, capture_output=True
            )
            print(json.dumps(json.loads(done.stdout) | {"name": "Llama 3, hand-written"}), flush=True)

    baseline()
    for name, steps in pre_tokenizers().items():
        if chosen.only in (None, name):
            print(json.dumps(measure(name, steps, texts), ensure_ascii=False), flush=True)
    baseline()


if __name__ == "__main__":
    main()
