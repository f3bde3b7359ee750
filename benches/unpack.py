"""Writes a corpus of the test data as plain JSON lines, for rivals that read nothing else: `unpack.py de OUT.jsonl`."""

import argparse
import json
from pathlib import Path

from langadapt import read_documents


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("language")
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    arguments = parser.parse_args()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    with arguments.out.open("w", encoding="utf-8") as file:
        for text in read_documents([str(arguments.data / "corpus" / f"{arguments.language}.jsonl.zst")]):
            file.write(json.dumps({"text": text}) + "\n")


if __name__ == "__main__":
    main()
