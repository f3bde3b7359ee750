"""BPE training against its rivals: equality first, then one library per process, rounds interleaved.

    python benches/bpe_training.py --corpus de.jsonl [--rounds 5] [--rivals rustbpe,gigatoken,...] [--out NAME]

Timer: ours and gigatoken's run from the .jsonl file on the disk to the finished vocabulary (ours to a complete
`Tokenizer`, that is with `tokenizer.json` written and read back). CPU s is the time of all threads, which a busy
machine disturbs less. The other rivals get the documents already parsed,
in memory, so the reading of JSON is on our side alone. Imports are outside the timer, for all. Every round runs each
library once, in a new order. Ratios compare medians; the spread is the smallest and the largest round.

Remaining asymmetries: gigatoken cuts with its own default pre-tokenizer, so its vocabulary differs; rustbpe's ties
differ; SentencePiece gets lines, as its Python interface wants them.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import sys
from pathlib import Path
from typing import Any

from contenders import answer, peak_mb, rounds_of, timed
from machine import describe, write_report
from tables import markdown
from texts import unpacked

VOCAB_SIZE = 32_768
Trained = tuple[Any, dict[str, float]]


def langadapt_byte_level(path: str) -> Trained:
    from langadapt.tokenizer.training import train_bpe

    return timed(lambda: train_bpe([path], VOCAB_SIZE, special_tokens=["<s>", "</s>"], min_frequency=0))


def langadapt_sentencepiece(path: str) -> Trained:
    from langadapt.tokenizer.training import train_bpe

    return timed(lambda: train_bpe([path], VOCAB_SIZE, style="sentencepiece"))


def hugging_face(path: str) -> Trained:
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

    from langadapt.tokenizer.cutting import PATTERNS

    texts = list(unpacked(Path(path)))
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(PATTERNS["llama3"]), "isolated")
    mapping = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, mapping])
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        min_frequency=0,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    _, seconds = timed(lambda: tokenizer.train_from_iterator(texts, trainer))
    return tokenizer, seconds


def rustbpe(path: str) -> Trained:
    import rustbpe

    texts = list(unpacked(Path(path)))
    tokenizer = rustbpe.Tokenizer()
    return timed(lambda: tokenizer.train_from_iterator(iter(texts), VOCAB_SIZE))


def gigatoken(path: str) -> Trained:
    import gigatoken

    source = gigatoken.JsonlFileSource([path])
    return timed(lambda: gigatoken.train_bpe(source, VOCAB_SIZE, [], tie_breaking="huggingface"))


def bpeasy(path: str) -> Trained:
    import bpeasy

    from langadapt.tokenizer.cutting import PATTERNS

    texts = list(unpacked(Path(path)))
    return timed(lambda: bpeasy.train_bpe(iter(texts), PATTERNS["llama3"], 128, VOCAB_SIZE))


def sentencepiece(path: str) -> Trained:
    import sentencepiece

    lines = [line for text in unpacked(Path(path)) for line in text.split("\n") if line]
    model = io.BytesIO()

    def train() -> None:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines),
            model_writer=model,
            model_type="bpe",
            vocab_size=VOCAB_SIZE,
            character_coverage=0.9995,
            byte_fallback=True,
            split_digits=True,
            allow_whitespace_only_pieces=True,
            max_sentence_length=8192,
            pad_id=3,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            num_threads=os.cpu_count(),
            minloglevel=2,
        )

    _, seconds = timed(train)
    return model.getvalue(), seconds


OURS = {"byte-level": langadapt_byte_level, "sentencepiece": langadapt_sentencepiece}
RIVALS = {
    "byte-level": {"rustbpe": rustbpe, "gigatoken": gigatoken, "tokenizers": hugging_face, "bpeasy": bpeasy},
    "sentencepiece": {"sentencepiece": sentencepiece},
}


def equal_to_reference(path: str) -> dict[str, bool]:
    """Whether our vocabularies are those of the reference trainers, on the whole corpus."""
    import sentencepiece as package

    ours, _ = langadapt_byte_level(path)
    theirs, _ = hugging_face(path)
    model, reference = json.loads(ours.definition)["model"], json.loads(theirs.to_str())["model"]
    byte_level = model["vocab"] == reference["vocab"] and model["merges"] == reference["merges"]
    ours, _ = langadapt_sentencepiece(path)
    processor = package.SentencePieceProcessor(model_proto=sentencepiece(path)[0])
    pieces = [processor.id_to_piece(id) for id in range(processor.get_piece_size())]
    return {"byte-level": byte_level, "sentencepiece": [ours.id_to_token(id) for id in range(VOCAB_SIZE)] == pieces}


def work(style: str, name: str, path: str) -> None:
    """One run in a process of its own; a JSON line on stdout."""
    runner = OURS[style] if name == "langadapt" else RIVALS[style][name]
    _, used = runner(path)
    print(json.dumps({"seconds": used["wall_s"], "cpu_seconds": used["cpu_s"], "peak_mb": peak_mb()}))


def bench(path: str, rounds: int, names: list[str]) -> list[dict[str, Any]]:
    """All runs, style by style, in rounds of random order."""
    rows = []
    for style, rivals in RIVALS.items():
        libraries = ["langadapt", *(name for name in rivals if name in names)]

        def measure(name: str, style: str = style) -> dict[str, Any]:
            return answer(__file__, "--worker", f"{style}:{name}", "--corpus", path)

        for name, found in rounds_of(libraries, rounds, measure, seed=style).items():
            rows += [{"style": style, "library": name, **row} for row in found]
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    heads = ["style", "library", "median s", "range s", "times ours", "CPU s", "times ours", "peak MB"]
    cells = []
    for style in RIVALS:
        medians: dict[str, tuple[float, float]] = {}
        spreads: dict[str, str] = {}
        for name in dict.fromkeys(row["library"] for row in rows if row["style"] == style):
            mine = [row for row in rows if (row["style"], row["library"]) == (style, name)]
            clock = [row["seconds"] for row in mine]
            medians[name] = statistics.median(clock), statistics.median(row["cpu_seconds"] for row in mine)
            spreads[name] = f"{min(clock):.2f}-{max(clock):.2f} | {max(row['peak_mb'] for row in mine)}"
        ours = medians["langadapt"]
        for name, (clock_s, cpu_s) in sorted(medians.items(), key=lambda item: item[1]):
            spread, peak = spreads[name].split(" | ")
            ratios = clock_s / ours[0], cpu_s / ours[1]
            figures = f"{clock_s:.3f}", spread, f"{ratios[0]:.2f}", f"{cpu_s:.3f}", f"{ratios[1]:.2f}", peak
            cells.append([style, name, *figures])
    return markdown(heads, cells, words=(0, 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", required=True, help=".jsonl, unpacked")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rivals", default="rustbpe,gigatoken,tokenizers,bpeasy,sentencepiece")
    parser.add_argument("--out", type=Path, help="writes NAME.jsonl and NAME.md")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--no-check", action="store_true", help="leave out the equality check")
    options = parser.parse_args()
    if options.worker:
        work(*options.worker.split(":"), options.corpus)
        return
    equal = {} if options.no_check else equal_to_reference(options.corpus)
    if not all(equal.values()):
        sys.exit(f"not equal to the reference, nothing is timed: {equal}")
    names = options.rivals.split(",")
    rows = bench(options.corpus, options.rounds, names)
    text = table(rows)
    print(text, end="")
    if options.out:
        corpus = Path(options.corpus)
        facts = {"corpus": f"{corpus.name} ({corpus.stat().st_size:,} bytes)", "vocabulary": VOCAB_SIZE}
        same = {"equal to the reference": "unchecked" if options.no_check else ", ".join(equal)}
        write_report(options.out, describe(*names) | facts | same, rows, text)


if __name__ == "__main__":
    main()
