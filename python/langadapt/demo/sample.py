"""Text to try the commands on: that of the demo, as files of one's own."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from langadapt.artefacts.folders import whole_file
from langadapt.errors import ConfigError

LANGUAGES = ("spanish", "english")
NAME = "text.jsonl.zst"
"""Of a language's file, in a folder of its own."""
SOURCES = "SOURCES.md"


def write_sample(out: Path) -> list[Path]:
    """Write 2 MB each of Spanish and English, in the public domain, into folders below ``out``, with their sources.

    Returns:
        the folders; what lies in them already stays as it is.

    Raises:
        ConfigError: another file has the name of one of these.
    """
    texts = files(__package__) / "texts"
    wanted = {out / language / NAME: (texts / f"{language}.jsonl.zst").read_bytes() for language in LANGUAGES}
    wanted |= {out / language / SOURCES: (texts / SOURCES).read_bytes() for language in LANGUAGES}
    for file, content in wanted.items():
        if file.exists() and file.read_bytes() != content:
            raise ConfigError(f"{file}: is there already, with other content; name another folder")
    for file, content in wanted.items():
        with whole_file(file) as new:
            new.write_bytes(content)
    return [out / language for language in LANGUAGES]
