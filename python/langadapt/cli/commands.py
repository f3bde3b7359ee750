"""All commands by name, each imported when it is called or looked at: the list of them needs none.

Importing all of them takes longer than everything else that ``langadapt --help`` does.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup

LINES = {
    "demo": "Adapt a tiny model from English to Spanish: the whole chain on bundled text, offline, on a CPU, in "
    "minutes.",
    "doctor": "Look at this machine: what is here, what will be used and why not more. Exit code 0 where langadapt "
    "works.",
    "fetch-sample": "Write text to try the commands on: 2 MB each of Spanish and English, in the public domain, out of "
    "the package.",
    "init": "Make a recipe for your model, text and machine: every number measured or reasoned, its reason beside it.",
    "adapt": "Run all stages of a recipe; run it again after any interruption and it goes on.",
    "plan": "Plan a recipe's training from its budget: memory, layout, tokens, dates, cost.",
    "fertility": "Measure how tokenizers cut text, side by side: fertility, parity, bytes per token and the rest.",
    "tokenize": "Tokenize a corpus into a token store: memory-mapped ids, document offsets, manifest.",
    "merge": "Put the parts of all shards together: byte for byte what one machine makes of all text.",
    "swap": "Give a model a new tokenizer, ready for `from_pretrained`.",
    "slurm": "Write a recipe as Slurm jobs (array for the corpus, torchrun, report) to OUT/slurm, and send nothing.",
    "train": "Train on a recipe's token stores; goes on where an interrupted run stopped.",
    "finish": "Give an adapted model the chat of an instruct model: weights, template, end tokens.",
    "items": "Make questions of your own held-out text: next paragraph, cloze, word order; for `evaluate --suite DIR`.",
    "sheet": "Write a blind sheet on which native speakers compare what two models write.",
    "evaluate": "Measure models: bits per byte of text, whatever the tokenizer, and suites of tasks through lm-eval.",
    "generate": "Let a model go on from a text, word by word on the terminal.",
    "dial": "Keep a part of a training: bits per byte of every language between two models, and the model you pick.",
    "report": "Write RUN_DIR/report: one self-contained HTML page and a model card. Prints the page's path.",
    "upload": "Copy a finished folder to a store: what is missing there, its manifest last.",
    "download": "Copy a folder back from a store, once it is whole there.",
    "corpus": "Files to documents: stream, filter, deduplicate, split.",
    "tokenizer": "Train, extend, trim, check and compare tokenizers.",
    "vectors": "Auxiliary token vectors.",
    "export": "A model for llama.cpp, Ollama and vLLM.",
}
"""What each is for, in the order of ``--help``: the first paragraph of its docstring."""
FUNCTIONS = {"upload": ("upload", "upload"), "download": ("upload", "download")}
"""Module and function, where they are not the command's own module and `command` there."""


def paragraphs(text: str) -> str:
    """Each on one line, for a terminal to fold: typer keeps the lines of a docstring behind the first paragraph."""
    return "\n\n".join(" ".join(one.split()) for one in text.split("\n\n"))


@cache
def load(name: str) -> Any:
    """A command or a group of them, as click has it."""
    home, function = FUNCTIONS.get(name, (name.replace("-", "_"), "command"))
    module: Any = import_module(f"langadapt.cli.{home}")
    # Frames of rich leave names of options too little room in 80 columns, and cut them.
    app = typer.Typer(rich_markup_mode=None, add_completion=False)
    group: typer.Typer | None = getattr(module, "app", None)
    if group is None:
        app.command(name)(getattr(module, function))
    else:
        app.add_typer(group, name=name, help=LINES[name])
    for command in (group or app).registered_commands:
        command.help = paragraphs(inspect.cleandoc((command.callback and command.callback.__doc__) or ""))
        # In the list of commands; without it each is cut to a line.
        command.short_help = command.help.split("\n\n")[0]
    made: Any = typer.main.get_command(app)
    return made if group is None else made.commands[name]


class Commands(Mapping[str, Any]):
    """The commands, loaded as they are asked for."""

    def __getitem__(self, name: str) -> Any:
        if name not in LINES:
            raise KeyError(name)
        return load(name)

    def __iter__(self) -> Iterator[str]:
        return iter(LINES)

    def __len__(self) -> int:
        return len(LINES)


class Program(TyperGroup):
    """``langadapt``: lists its commands without a look at them."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self.commands: Any = Commands()

    def list_commands(self, ctx: Any) -> list[str]:
        """Names."""
        return list(self.commands)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """The list in ``--help``."""
        with formatter.section("Commands"):
            formatter.write_dl(list(LINES.items()))
