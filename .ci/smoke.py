"""The abi3 wheel under one interpreter, without torch: stream a corpus, train a tokenizer, encode, decode, store."""

import json
import sys
import tempfile
from pathlib import Path

import langadapt
from langadapt.store import tokenize_corpus
from langadapt.tokenizer.training import train_bpe

with tempfile.TemporaryDirectory() as name:
    folder = Path(name)
    text = folder / "text.jsonl"
    lines = [f"Die Maus {n} läuft über das Haus, {n * 7} Mäuse sehen zu." for n in range(400)]
    text.write_text("".join(json.dumps({"text": line}) + "\n" for line in lines), encoding="utf-8")
    if list(langadapt.read_documents([str(text)])) != lines:
        sys.exit("documents differ")
    for style in ("sentencepiece", "byte_level"):
        tokenizer = train_bpe([str(text)], 320, style=style)
        if tokenizer.decode(tokenizer.encode(lines[3])) != lines[3]:
            sys.exit(f"{style}: the round trip differs")
        store = tokenize_corpus([str(text)], tokenizer, folder / style)
        if tokenizer.decode(store[5]) != lines[5]:
            sys.exit(f"{style}: the store differs")
sys.stdout.write(f"Python {sys.version.split()[0]}: langadapt {langadapt.__version__} works\n")
