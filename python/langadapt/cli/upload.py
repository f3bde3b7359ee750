"""``langadapt upload`` and ``langadapt download``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from langadapt.artefacts.stages import make_once
from langadapt.artefacts.upload import download_folder, upload_folder, whole_upload
from langadapt.cli.options import Out
from langadapt.cli.progress import progress, say

Url = Annotated[str, typer.Argument(metavar="URL", help="Folder in a store: s3://, gs://, az://.", show_default=False)]


def upload(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Corpus, token store, model or run.", show_default=False)
    ],
    url: Url,
) -> None:
    """Copy a finished folder to a store: what is missing there, its manifest last."""
    with progress("upload") as report:
        sent = upload_folder(folder, url, progress=report)
    say(f"{url}: {sent:,} files sent" if sent else f"{url}: up to date")


def download(url: Url, *, out: Out) -> None:
    """Copy a folder back from a store, once it is whole there."""

    def make() -> dict[str, Any]:
        with progress("download") as report:
            return {"files": download_folder(url, out, progress=report)}

    record, _, _ = whole_upload(url.rstrip("/"))
    found = make_once("download", out, make, settings={}, inputs={record.name: record}, log=say)
    say(f"{out}: {found['files']:,} files")
