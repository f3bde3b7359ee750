"""A model folder onto the Hugging Face hub, with its card; what lies there is whole before it can be seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from huggingface_hub import HfApi

from langadapt.artefacts.folders import CARD_NAME, files_below, is_described, verify
from langadapt.errors import ConfigError, LangadaptError
from langadapt.models.hub import reason_of
from langadapt.models.weights import weight_files

STALE = ["*.safetensors", "*.safetensors.index.json"]
"""Weights of an earlier push: shards that the new model does not have would be downloaded with it."""


def push_to_hub(folder: str | Path, repo: str, *, private: bool = True, message: str | None = None) -> str:
    """Upload a model folder and return the address of what was written there.

    A folder that differs from its manifest is not sent. Weights are replaced as a whole; other files of the repository
    stay. An interrupted call sends what is missing when it is repeated.

    Args:
        folder: of the model; its ``README.md`` becomes the repository's card.
        repo: ``OWNER/NAME``; made if it does not exist.
        private: of a repository that is made here; one that exists stays as it is.
        message: of the commit.

    Raises:
        ConfigError: no model in the folder, or no card.
        DataError: a file is damaged or missing.
        LangadaptError: the hub did not take it; says why.
    """
    folder = Path(folder)
    weight_files(folder)
    if is_described(folder):
        verify(folder)
    if not (folder / CARD_NAME).is_file():
        raise ConfigError(
            f"{folder}: no {CARD_NAME}; `langadapt report RUN` writes the model card, or write one that names the base "
            "model and its licence"
        )
    names = [file.relative_to(folder).as_posix() for file in files_below(folder)]
    hub: Any = HfApi()
    try:
        hub.create_repo(repo, private=private, exist_ok=True)
        commit = hub.upload_folder(
            repo_id=repo,
            folder_path=folder,
            allow_patterns=[*names, CARD_NAME],
            delete_patterns=STALE,
            commit_message=message or f"{folder.resolve().name}, made with langadapt",
        )
    except Exception as error:  # Of a dozen kinds, of three packages.
        raise LangadaptError(f"{repo}: not sent, {refusal(error)}") from None
    return str(commit.commit_url)


def refusal(error: BaseException) -> str:
    """Why the hub did not take something, in words of a user."""
    # "Error while uploading FILE" has the reason behind it.
    error = error.__cause__ or error
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403) or type(error).__name__ == "LocalTokenNotFoundError":
        return "the hub wants a token that may write there: `hf auth login`, or HF_TOKEN"
    return reason_of(error)
