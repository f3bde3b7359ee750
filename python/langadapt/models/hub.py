"""Files from the Hugging Face hub, and what it means when they do not come."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from langadapt.errors import shorten

UNREACHABLE = "the hub cannot be reached from here, and its cache here does not have it"
REASONS = {
    "GatedRepoError": "its owner gives it to those who accept a licence on its page there; do so, then `hf auth login`",
    "DisabledRepoError": "the hub has closed it",
    "RevisionNotFoundError": "the hub has no such revision of it",
    "RepositoryNotFoundError": "the hub has nothing of this name, or keeps it private (`hf auth login`)",
    "LocalEntryNotFoundError": UNREACHABLE,
    "EntryNotFoundError": "the hub has it, but not the files that are needed",
    "OfflineModeIsEnabled": "HF_HUB_OFFLINE forbids to ask the hub, and its cache here does not have it",
    "HFValidationError": "on the hub names are like `owner/model`, of letters, digits, `-`, `_` and `.`",
    "TransportError": UNREACHABLE,
    "ConnectionError": UNREACHABLE,
    "TimeoutError": UNREACHABLE,
}
"""What went wrong, by the class of the error of huggingface_hub, of httpx (whose timeouts are transport errors), or of
Python."""


def fetch(name: str, patterns: Sequence[str]) -> Path:
    """The folder in the hub's cache with the files of ``name`` that match; fetched where they are not there yet.

    Raises:
        LookupError: they cannot be had; the message is the reason, for people.
    """
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=list(patterns)))
    except Exception as error:  # Of a dozen kinds, of three packages.
        raise LookupError(reason_of(error)) from None


def reason_of(error: BaseException) -> str:
    """Why the hub did not give something, in words of a user."""
    for kind in type(error).__mro__:
        if kind.__name__ in REASONS:
            return REASONS[kind.__name__]
    return shorten(str(error))
