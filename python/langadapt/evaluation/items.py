"""Multiple-choice items made of a user's own held-out text, for languages that no board knows.

Three kinds, each a file that ``evaluate --suite FOLDER`` reads:

- ``next_paragraph``: which of four passages goes on a text; the others are of other documents, of like length.
- ``cloze``: which word stood in a sentence; it is nowhere else in the passage, and the others, as frequent and as
  long, are not in it at all.
- ``word_order``: which of four sentences is in order; the others have the same words, shuffled.

No item needs a translation, an annotator or a model. They are made once, saved, and the same for all models of a
comparison; the standard error that is measured with them is that of the items.
"""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langadapt.artefacts.folders import new_folder, write_manifest
from langadapt.errors import DataError

KINDS = ("next_paragraph", "cloze", "word_order")
CHOICES = 4
CHANCE = 1 / CHOICES
SENTENCE = re.compile(r"[^.!?。؟।!\n]+[.!?。؟।!]+")
WORD = re.compile(r"[^\W\d_](?:[^\W\d_]|[\u0300-\u036f\u064b-\u0652\u0900-\u0dff\u200c\u200d'’-])*")
LONGEST_CONTEXT = 600
"""Characters of text before a question."""
PASSAGE = (60, 240)
"""Characters of a passage: shorter ones say too little, longer ones are cut at a word."""
SENTENCE_WORDS = (6, 25)
FUNCTION_WORDS = 100
"""The most frequent words are no content words."""
LETTERS = 4
"""Of a content word, at least."""
LIKE_LENGTH = 2
"""Letters by which words that stand for each other may differ."""
UNSPACED = re.compile(r"[\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]")
"""Letters of scripts without spaces between words: Thai, Lao, Tibetan, Burmese, Khmer, Japanese, Chinese."""
MOST_UNSPACED = 0.3
"""Share of such characters from which words cannot be told by spaces."""


@dataclass(frozen=True)
class ItemReport:
    """What was made."""

    items: dict[str, int]
    """By kind; kinds that the text does not give are left out."""
    documents: int
    notes: list[str]


def make_items(texts: Iterable[str], out: str | Path, *, count: int = 300, seed: int = 0) -> ItemReport:
    """Make items of documents and write them as a folder of multiple-choice files.

    Args:
        texts: held-out documents, paragraphs on lines of their own.
        out: the folder, replaced when it exists.
        count: of each kind, at most.
        seed: of what is drawn; the same text and seed give the same items.

    Raises:
        DataError: too little text for any item.
    """
    documents = [text for text in texts if text.strip()]
    chance, notes = random.Random(seed), []
    counts = Counter(word for text in documents for word in WORD.findall(text))
    unspaced = sum(len(UNSPACED.findall(text)) for text in documents)
    spaced = unspaced < MOST_UNSPACED * sum(map(len, documents))
    made = {"next_paragraph": next_paragraphs(documents, count, chance)}
    if spaced:
        sentences = sentences_of(documents)
        made["cloze"] = clozes(sentences, counts, count, chance)
        made["word_order"] = word_orders(sentences, count, chance)
    else:
        notes.append("the script has no spaces between words: no cloze, no word order")
    made = {kind: items for kind, items in made.items() if items}
    notes += [
        f"{kind}: {len(items)} items of {count}; more text gives more"
        for kind, items in made.items()
        if len(items) < count
    ]
    if not made:
        raise DataError(
            f"{len(documents)} documents give no item; give some with paragraphs of {PASSAGE[0]} characters"
        )
    sizes = {kind: len(items) for kind, items in made.items()}
    with new_folder(Path(out)) as folder:
        for kind, items in made.items():
            lines = (json.dumps(item, ensure_ascii=False) for item in items)
            (folder / f"{kind}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        write_manifest(folder, "items", {"count": count, "seed": seed}, {}, summary=sizes)
    return ItemReport(sizes, len(documents), notes)


def item(context: str, question: str, right: str, wrong: Sequence[str], *, chance: random.Random) -> dict[str, Any]:
    """One item, its choices in random order."""
    choices = [right, *wrong]
    chance.shuffle(choices)
    return {"context": context, "question": question, "choices": choices, "answer": choices.index(right)}


def ending(text: str) -> str:
    """The last of a text, from a word on."""
    text = text.strip()
    return text if len(text) <= LONGEST_CONTEXT else text[-LONGEST_CONTEXT:].partition(" ")[2]


def passage(text: str) -> str | None:
    """The beginning of a paragraph, cut at a word; none where it is too short."""
    text = " ".join(text.split())
    if len(text) < PASSAGE[0]:
        return None
    return text if len(text) <= PASSAGE[1] else text[: PASSAGE[1]].rsplit(" ", 1)[0]


def next_paragraphs(documents: Sequence[str], count: int, chance: random.Random) -> list[dict[str, Any]]:
    """Which passage goes on a text."""
    paragraphs = [[part for part in text.split("\n") if len(part.strip()) >= PASSAGE[0]] for text in documents]
    cut = [[passage(part) for part in parts] for parts in paragraphs]
    pool = [(at, shown) for at, parts in enumerate(cut) for shown in parts if shown is not None]
    places = [(at, n) for at, parts in enumerate(paragraphs) for n in range(len(parts) - 1)]
    chance.shuffle(places)
    found: list[dict[str, Any]] = []
    for at, n in places:
        right = cut[at][n + 1]
        if len(found) == count:
            break
        others = [shown for other, shown in chance.sample(pool, min(60, len(pool))) if other != at and shown != right]
        if right is None or len(others) < CHOICES - 1:
            continue
        others.sort(key=lambda shown: abs(len(shown) - len(right or "")))
        before = ending(paragraphs[at][n])
        found.append(item("", before, right, list(dict.fromkeys(others))[: CHOICES - 1], chance=chance))
    return [one for one in found if len(one["choices"]) == CHOICES]


def sentences_of(documents: Sequence[str]) -> list[tuple[str, str]]:
    """Sentences of middling length, each with what stands before it in its paragraph."""
    found = []
    for text in documents:
        for paragraph in text.split("\n"):
            for match in SENTENCE.finditer(paragraph):
                sentence = match.group().strip()
                if SENTENCE_WORDS[0] <= len(sentence.split()) <= SENTENCE_WORDS[1]:
                    found.append((ending(paragraph[: match.start()]), sentence))
    return found


def clozes(
    sentences: Sequence[tuple[str, str]], counts: Counter[str], count: int, chance: random.Random
) -> list[dict[str, Any]]:
    """Which content word stood in a sentence, against words as frequent and as long."""
    function = {word for word, _ in counts.most_common(FUNCTION_WORDS)}
    content = [word for word in counts if len(word) >= LETTERS and word not in function and counts[word] > 1]
    by_frequency: dict[int, list[str]] = {}
    for word in sorted(content):
        by_frequency.setdefault(counts[word].bit_length(), []).append(word)
    places = list(sentences)
    chance.shuffle(places)
    found: list[dict[str, Any]] = []
    for before, sentence in places:
        if len(found) == count:
            break
        # Not the first word: it has nothing before it, and its case is not its own.
        words = [match for match in WORD.finditer(sentence) if match.start() and match.group() in counts]
        words = [match for match in words if len(match.group()) >= LETTERS and match.group() not in function]
        # A word that is there twice is found by copying, which the other choices, new to the passage, never are.
        seen = Counter(WORD.findall(f"{before} {sentence}"))
        words = [match for match in words if counts[match.group()] > 1 and seen[match.group()] == 1]
        if not words:
            continue
        match = chance.choice(words)
        right = match.group()
        alike = [word for word in by_frequency[counts[right].bit_length()] if like(word, right) and word not in seen]
        if len(alike) < CHOICES - 1:
            continue
        # What follows the word belongs to each choice: the model reads on, and all words count.
        start, rest = sentence[: match.start()].strip(), sentence[match.end() :]
        wrong = [f"{word}{rest}" for word in drawn(alike, counts, chance)]
        found.append(item(before, start, f"{right}{rest}", wrong, chance=chance))
    return found


def drawn(words: Sequence[str], counts: Counter[str], chance: random.Random) -> list[str]:
    """Different words in the proportion in which a text has them, as the right one was drawn: by reservoir keys
    (Efraimidis and Spirakis, 2006)."""
    return sorted(words, key=lambda word: chance.random() ** (1 / counts[word]), reverse=True)[: CHOICES - 1]


def like(word: str, other: str) -> bool:
    """Whether two words look alike: their length and their first letter's case."""
    return abs(len(word) - len(other)) <= LIKE_LENGTH and word[0].isupper() == other[0].isupper()


def word_orders(sentences: Sequence[tuple[str, str]], count: int, chance: random.Random) -> list[dict[str, Any]]:
    """Which sentence is in order, against its own words shuffled between the first and the last."""
    places = [(before, sentence) for before, sentence in sentences if before]
    chance.shuffle(places)
    found: list[dict[str, Any]] = []
    for before, sentence in places[:count]:
        first, *middle, last = sentence.split()
        shuffled: dict[str, None] = {}
        for _ in range(20):
            chance.shuffle(middle)
            candidate = " ".join([first, *middle, last])
            if candidate != " ".join(sentence.split()):
                shuffled[candidate] = None
        if len(shuffled) >= CHOICES - 1:
            wrong = list(shuffled)[: CHOICES - 1]
            found.append(item("", before, " ".join(sentence.split()), wrong, chance=chance))
    return found
