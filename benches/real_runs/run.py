"""Adapt an English base model, trained here from scratch, to German or Arabic on real text, on a CPU.

    python benches/real_runs/run.py german --data ../shared/data --out runs/real

The base model is made once and shared by both languages. Everything is resumable: run it again after an interruption.
"""

import argparse
import logging
from pathlib import Path

import yaml
from rich.console import Console

from langadapt.pipeline import adapt
from langadapt.recipe import Recipe
from langadapt.report import results_table
from langadapt.scratch import train_from_scratch
from langadapt.stages import Run

HERE = Path(__file__).parent
FILES = {"german": "de", "arabic": "ar"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("language", choices=FILES)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path("runs/real"))
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as of `langadapt adapt`")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")

    english = str(arguments.data / "corpus" / "en.jsonl.zst")
    run = Run(arguments.out / "english-base", logging.info)
    with run.locked():
        settings = yaml.safe_load((HERE / "base.yaml").read_text(encoding="utf-8"))
        model = train_from_scratch(run, [english], settings)
    target = arguments.data / "corpus" / f"{FILES[arguments.language]}.jsonl.zst"
    places = [
        f"model={model}",
        f"out={arguments.out / arguments.language}",
        f"corpus.target=[{target}]",
        f"corpus.source=[{english}]",
    ]
    recipe = Recipe.from_yaml(HERE / f"{arguments.language}.yaml", [*places, *arguments.set])
    Console().print(results_table(adapt(recipe)))


if __name__ == "__main__":
    main()
