"""Adapt an English base model, trained here from scratch, to German or Arabic on real text, on a CPU.

    python benches/real_runs/run.py german --out runs/real

The base model is made once and shared by both languages. Everything is resumable: run it again after an interruption.
`--docs docs/runs` keeps the numbers, and the exact commands, as Markdown.
"""

import argparse
import logging
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from langadapt.artefacts.stages import Run
from langadapt.demo.scratch import train_from_scratch
from langadapt.pipeline.run import adapt
from langadapt.recipe.recipe import Recipe
from langadapt.report import results_table

HERE = Path(__file__).parent
FILES = {"german": "de", "arabic": "ar"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("language", choices=FILES)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path("runs/real"))
    parser.add_argument("--docs", type=Path, help="folder for LANGUAGE.md with the numbers")
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
    results = adapt(recipe)
    Console().print(results_table(results))
    if arguments.docs:
        arguments.docs.mkdir(parents=True, exist_ok=True)
        page = describe(arguments.language, arguments.out / arguments.language, results)
        (arguments.docs / f"{arguments.language}.md").write_text(page, encoding="utf-8")


def describe(language: str, run: Path, results: Mapping[str, Any]) -> str:
    """The run as Markdown: how to repeat it, and its numbers as the model card has them."""
    card = (run / "report" / "MODEL_CARD.md").read_text(encoding="utf-8")
    numbers = card[card.index("## Numbers") : card.index("## Limitations")]
    # Advice to whoever publishes a model.
    numbers = re.sub(r"\nDescribe where the texts[^\n]*\n", "", numbers)
    base = yaml.safe_load((HERE / "base.yaml").read_text(encoding="utf-8"))["train"]
    tokens = base["steps"] * base["batch_sequences"] * base["sequence_length"]
    options = " ".join(f"--set {item}" for item in sys.argv if "=" in item)
    command = f"python benches/real_runs/run.py {language} --out runs/real --docs docs/runs {options}"
    made_with = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    millions = results["rows"][0]["parameters"] / 1e6
    return f"""# English to {language.capitalize()}, on a CPU

    {command.strip()}

A Llama-shaped base model of {millions:.1f} M parameters, trained here from scratch on {tokens / 1e6:.1f} M tokens of
English (`benches/real_runs/base.yaml`), then adapted (`benches/real_runs/{language}.yaml`). Text: `corpus/en.jsonl.zst`
and `corpus/{FILES[language]}.jsonl.zst` of the test data, a few per cent of the documents held out by hash. All arms
share corpus and steps; an arm without a swap sees fewer bytes of {language.capitalize()} in the same number of tokens.
Made with {made_with},
on a machine that did other work at the same time: the seconds are too many.

{numbers.strip()}
"""


if __name__ == "__main__":
    main()
