"""The command line: nouns, then verbs.

Data goes to stdout, logs and progress to stderr; exit codes are 0, 1 (failed), 2 (usage), 130 (interrupted).

Each noun has a module of its own beside this one. They import what they run inside their functions: ``--help`` answers
without waiting for torch.
"""

from langadapt.cli.main import main

__all__ = ["main"]
