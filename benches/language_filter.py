"""What `corpus.foreign` leaves out: learnt from one corpus and English, tried on the rest of it and on other languages.

    python benches/language_filter.py --rows docs/runs/language_filter.jsonl
    python benches/language_filter.py --rows docs/runs/language_filter.jsonl --table

Every second document of a corpus is learnt from (2 MB at most), the others are judged. Other languages are the
sentences of NTREX, five to a document.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from row_files import RowFile
from tables import markdown
from texts import SHARED, corpus

from langadapt import read_documents
from langadapt.corpus.language import SAMPLE_BYTES, language_of
from langadapt.corpus.samples import first_bytes

LANGUAGES = {"de": "German", "sw": "Swahili", "ar": "Arabic", "ru": "Russian", "zh": "Chinese", "fr": "French"}
SENTENCES = 5


def parallel() -> dict[str, list[str]]:
    """Documents of NTREX by language."""
    found = {}
    for file in sorted((SHARED / "parallel" / "ntrex").glob("??.txt")):
        lines = file.read_text("utf-8").splitlines()
        found[file.stem] = [" ".join(lines[at : at + SENTENCES]) for at in range(0, len(lines), SENTENCES)]
    return found


def measure(language: str, others: dict[str, list[str]]) -> dict[str, object]:
    """Shares of documents that stay."""
    texts = list(read_documents([str(corpus(language))]))
    english = list(read_documents([str(corpus("en"))]))
    half = len(english) // 2
    learnt = language_of(first_bytes(texts[1::2], SAMPLE_BYTES), first_bytes(english[:half], SAMPLE_BYTES))

    def kept(documents: list[str]) -> float:
        verdicts = learnt.judge(documents)
        return 1 - (verdicts.count("foreign") + verdicts.count("script")) / len(verdicts)

    third = {name: kept(documents) for name, documents in others.items() if name not in {language, "en"}}
    nearest = max(third, key=lambda name: third[name])
    return {
        "language": language,
        "documents": len(texts[0::2]),
        "own": kept(texts[0::2]),
        "english": kept(english[half:]),
        "own_news": kept(others[language]),
        "third": sum(third.values()) / len(third),
        "nearest": nearest,
        "nearest_kept": third[nearest],
    }


def table(rows: RowFile) -> str:
    """All rows."""
    head = ["corpus", "its documents", "other English", "its news", "25 third languages", "of them the nearest"]
    body = [
        [
            LANGUAGES[row["language"]],
            f"{row['own']:.1%} of {row['documents']:,}",
            f"{row['english']:.1%}",
            f"{row['own_news']:.1%}",
            f"{row['third']:.1%}",
            f"{row['nearest']} {row['nearest_kept']:.1%}",
        ]
        for row in rows.rows
    ]
    return markdown(head, body)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--table", action="store_true")
    given = parser.parse_args()
    rows = RowFile(given.rows, {"sample_bytes": SAMPLE_BYTES, "sentences": SENTENCES})
    if not given.table:
        done, others = {row["language"] for row in rows.rows}, parallel()
        for language in LANGUAGES:
            if language not in done:
                rows.add(measure(language, others))
    print(table(rows))


if __name__ == "__main__":
    main()
