"""``train.data: chat``: the model as it is, trained on conversations; source text may be replayed beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from langadapt.corpus.documents import files_of
from langadapt.errors import ConfigError
from langadapt.models.folder import tokenizer_file
from langadapt.pipeline import text
from langadapt.pipeline.finished import CHAT
from langadapt.pipeline.job import Job
from langadapt.pipeline.swap import Arm
from langadapt.tokenizer.conversations import ConversationEncoder, Example
from langadapt.tokenizer.encoder import Tokenizer
from langadapt.training import StoreShare
from langadapt.training.data.conversations import different, examples, split_conversations, store_conversations

MEASURED = 500
"""Conversations that are set aside, at most, where the recipe does not say."""


def conversations(job: Job, corpora: text.Corpora) -> tuple[Arm, list[Example]]:
    """What is trained, and the conversations that were set aside to watch it with.

    Raises:
        ConfigError: a model without a chat template, or conversations in other files than `.jsonl`.
        DataError: names a line that is no conversation.
    """
    corpus, tokenizer = job.recipe.corpus, Tokenizer.from_pretrained(job.model)
    encoder = ConversationEncoder(tokenizer)
    found = (files_of(corpus.paths_of("target")) or {}).values()
    files = [file for file in found if isinstance(file, Path)]
    if not files or len(files) < len(found):
        raise ConfigError("corpus.target: conversations are read from .jsonl files of this machine; copy them here")
    held_out = split_conversations(files, corpus.validation_share, corpus.validation_documents or MEASURED)
    out = job.folder / "stores" / CHAT

    def make() -> dict[str, Any]:
        made = store_conversations(files, tokenizer, out, held_out=held_out, progress=job.progress)
        return dict(made.manifest["summary"])

    inputs = {"tokenizer": tokenizer_file(job.model), **{str(file): file for file in files}}
    settings = {"share": corpus.validation_share, "documents": corpus.validation_documents}
    job.run.stage(f"store-{CHAT}", out, make, settings=settings, inputs=inputs)
    share = sum(one.share for one in corpus.texts if one.language == "target")
    shares = [StoreShare(out, share, CHAT), *text.stores(job, corpora, job.model)]
    return Arm(CHAT, job.model, job.model, shares), list(examples(encoder, different(files, held_out, within=True)))
