"""Makes the text of the demo anew: two Bibles in the public domain, from Debian's packages `sword-text-web` (World
English Bible) and `sword-text-sparv` (Reina-Valera 1909), read by its `diatheke`.

python .ci/demo_texts.py python/langadapt/demo/texts
"""

from __future__ import annotations

import html
import itertools
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

MODULES = {"english": "engWEB2015eb", "spanish": "spaRV1909eb"}
BOOKS = re.findall(
    r"\w+",
    "Gen Exod Lev Num Deut Josh Judg Ruth 1Sam 2Sam 1Kgs 2Kgs 1Chr 2Chr Ezra Neh Esth Job Ps Prov Eccl Song Isa "
    "Jer Lam Ezek Dan Hos Joel Amos Obad Jonah Mic Nah Hab Zeph Hag Zech Mal Matt Mark Luke John Acts Rom 1Cor "
    "2Cor Gal Eph Phil Col 1Thess 2Thess 1Tim 2Tim Titus Phlm Heb Jas 1Pet 2Pet 1John 2John 3John Jude Rev",
)
ALIGNED = ("Ruth", "Jonah", "Jas")
"""Books of which both languages are kept, verse by verse, for tokenizer parity; nothing is trained on them."""
VERSES = 10
"""Of a document, at least; what is left of a chapter goes to its last one."""
VERSE = re.compile(r"^.*?(?:[1-3I]+ )?[A-Z][A-Za-z ]+ (\d+):(\d+): (.*)$")

Verse = tuple[int, int, str]
"""Chapter, number, text."""


def plain(text: str) -> str:
    """A verse without markup, notes and headings, its words as they are."""
    text = re.sub(r"<(note|title)\b.*?</\1>", " ", text)
    text = re.sub(r"</?(?:l|lg|div|milestone|p|transChange)\b[^>]*>", " ", text).replace("</w><w", "</w> <w")
    text = " ".join(html.unescape(re.sub(r"<[^>]+>", "", text)).replace("¶", "").split())
    text = re.sub(r" ([,.;:!?”’)])", r"\1", text)
    return re.sub(r"([,.;:!?])(?=[A-Za-zÁÉÍÓÚÑáéíóúñ¿¡“])", r"\1 ", text)


def verses(module: str, book: str) -> list[Verse]:
    """Of one book."""
    command = ["diatheke", "-b", module, "-k", book]
    found: list[Verse] = []
    for line in subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines():
        if line.startswith("("):
            continue  # the module's name, at the end
        if match := VERSE.match(line):
            found.append((int(match[1]), int(match[2]), match[3]))
        elif found:
            found[-1] = (*found[-1][:2], f"{found[-1][2]} {line}")
    return [(chapter, number, text) for chapter, number, raw in found if (text := plain(raw))]


def documents(chapter: list[str]) -> Iterator[str]:
    """A chapter's verses, some to a document."""
    count = max(len(chapter) // VERSES, 1)
    for at in range(count):
        yield " ".join(chapter[at * VERSES : (at + 1) * VERSES if at < count - 1 else None])


def main(out: Path) -> None:
    """Write both corpora, zstd-compressed, and the aligned verses. English takes every other chapter and Spanish those
    between, so that no text of one is the translation of text of the other."""
    bible = {language: {book: verses(module, book) for book in BOOKS} for language, module in MODULES.items()}
    chapters = {
        language: {
            (book, chapter): [text for _, _, text in group]
            for book, found in books.items()
            if book not in ALIGNED
            for chapter, group in itertools.groupby(found, key=lambda verse: verse[0])
        }
        for language, books in bible.items()
    }
    shared = [place for place in chapters["english"] if place in chapters["spanish"]]
    for first, language in enumerate(MODULES):
        texts = itertools.chain.from_iterable(documents(chapters[language][place]) for place in shared[first::2])
        lines = "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts)
        file = out / f"{language}.jsonl.zst"
        subprocess.run(["zstd", "-19", "-q", "-f", "-o", str(file)], input=lines.encode(), check=True)
    pairs = []
    for book in ALIGNED:
        spanish = {verse[:2]: verse[2] for verse in bible["spanish"][book]}
        english = ((verse[:2], verse[2]) for verse in bible["english"][book])
        pairs += [{"source": text, "target": spanish[place]} for place, text in english if place in spanish]
    rows = "".join(json.dumps(pair, ensure_ascii=False) + "\n" for pair in pairs)
    (out / "parallel.jsonl").write_text(rows, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
