"""The stages that have to do with text: documents, tokenizer, fertility, token stores, token vectors."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from langadapt.artefacts.folders import write_atomically
from langadapt.corpus.documents import build_corpus, files_of, is_stream, read_documents
from langadapt.corpus.samples import first_bytes
from langadapt.errors import ConfigError
from langadapt.fertility import measure_fertility
from langadapt.models.folder import tokenizer_file
from langadapt.pipeline.job import FERTILITY_NAME, VECTORS_NAME, Job
from langadapt.store import TokenStore, tokenize_corpus
from langadapt.tokenizer.encoder import Tokenizer
from langadapt.tokenizer.training import train_bpe
from langadapt.training import StoreShare
from langadapt.vectors.cbow import save_vectors, train_vectors


@dataclass(frozen=True)
class Corpus:
    """Documents of one language, split in two."""

    language: str
    """``target`` or ``source``."""
    train: Path
    validation: Path
    report: dict[str, Any]
    """See :class:`langadapt.corpus.documents.CorpusReport`."""

    def held_out(self, limit: float = math.inf) -> list[str]:
        """Documents that were set aside, up to ``limit`` UTF-8 bytes but at least one."""
        return first_bytes(read_documents([str(self.validation)]), limit)


Corpora = Mapping[str, Corpus]
"""By ``target`` and, where there is text of it, ``source``."""


def corpora(job: Job) -> dict[str, Corpus]:
    """Text of all languages."""
    return {language: corpus(job, language) for language in job.languages}


def corpus(job: Job, language: str) -> Corpus:
    """Documents of one language, split into training and validation text."""
    settings = job.recipe.corpus
    inputs = settings.target if language == "target" else settings.source
    out = job.folder / "corpus" / language
    options = settings.building()
    # A stream has no bytes here to know it by: its name has to do.
    streams = [name for name in inputs if is_stream(name)]

    report = job.run.stage(
        f"corpus-{language}",
        out,
        lambda: build_corpus(inputs, out, **options, progress=job.progress).to_dict(),
        settings={**options, "streams": streams},
        inputs=files_of(inputs) or {},
    )
    if not report["validation"]["documents"]:
        raise ConfigError(f"{out}: nothing was set aside to measure on; one document is too little text")
    return Corpus(language, out / "train.jsonl.zst", out / "validation.jsonl.zst", report)


def tokenizer(job: Job, target: Corpus) -> Path:
    """The new tokenizer's folder: trained here, or copied from where the recipe says."""
    settings, out = job.recipe.tokenizer, job.folder / "tokenizer"
    like = str(job.model) if settings.like == "source" else settings.like
    inputs = {"corpus": target.train} if settings.path is None else {"tokenizer": Path(settings.path)}
    if like is not None and settings.path is None:
        inputs["like"] = tokenizer_file(Path(like))

    def make() -> dict[str, Any]:
        if settings.path is not None:
            made = Tokenizer.from_pretrained(settings.path)
        else:
            made = train_bpe([str(target.train)], **settings.training(like), progress=job.progress)
        made.save_pretrained(out)
        return {"vocab_size": made.vocab_size}

    job.run.stage("tokenizer", out, make, settings=asdict(settings), inputs=inputs)
    return out


def fertility(job: Job, texts: Corpora, new: Path) -> dict[str, Any]:
    """Both tokenizers on both languages' validation text, and on aligned sentences where the recipe names some."""
    out = job.folder / FERTILITY_NAME
    names = {"source": job.recipe.source_language, "target": job.recipe.target_language}
    files = {names[language]: text.validation for language, text in texts.items()}
    parallel = job.recipe.evaluate.parallel

    def make() -> dict[str, Any]:
        tokenizers = {"source": Tokenizer.from_pretrained(job.model), "new": Tokenizer.from_pretrained(new)}
        running = measure_fertility(tokenizers, {name: [str(file)] for name, file in files.items()})
        report = {"text": running.to_dict()}
        if parallel is not None:
            sentences = {names[side]: iter(lines) for side, lines in read_aligned(Path(parallel)).items()}
            report["aligned"] = measure_fertility(tokenizers, sentences, reference=names["source"]).to_dict()
        write_atomically(out, json.dumps(report, indent=2, ensure_ascii=False) + "\n")
        return report

    inputs = {"source": tokenizer_file(job.model), "target": tokenizer_file(new), **files}
    if parallel is not None:
        inputs["parallel"] = Path(parallel)
    return job.run.stage("fertility", out, make, settings={"names": names}, inputs=inputs)


def read_aligned(file: Path) -> dict[str, list[str]]:
    """Sides of a file of JSON lines ``{"source": ..., "target": ...}``."""
    sides: dict[str, list[str]] = {"source": [], "target": []}
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        try:
            pair = json.loads(line)
            for side, lines in sides.items():
                lines.append(str(pair[side]))
        except (json.JSONDecodeError, KeyError, TypeError):
            raise ConfigError(f'{file}:{number}: expected {{"source": "...", "target": "..."}}') from None
    return sides


def stores(job: Job, texts: Corpora, under: Path) -> list[StoreShare]:
    """What is trained on, under one tokenizer: target text, and source text where the recipe replays some."""
    share = job.recipe.corpus.source_share
    shares = [StoreShare(store(job, texts["target"], under), 1.0 - share, "target")]
    if share > 0:
        shares.append(StoreShare(store(job, texts["source"], under), share, "source"))
    return shares


def store(job: Job, text: Corpus, under: Path) -> Path:
    """The token store of one language's training text under the tokenizer in a folder."""
    name = f"{text.language}-{'own' if under == job.model else 'new'}"
    out = job.folder / "stores" / name

    def make() -> dict[str, Any]:
        made = tokenize_corpus([str(text.train)], Tokenizer.from_pretrained(under), out, progress=job.progress)
        return dict(made.manifest["summary"])

    inputs = {"text": text.train, "tokenizer": tokenizer_file(under)}
    job.run.stage(f"store-{name}", out, make, settings={}, inputs=inputs)
    return out


def vectors(job: Job, target: Path) -> Path:
    """Vectors of the new tokenizer's tokens, learnt on the target language's store."""
    settings, out = asdict(job.recipe.vectors), job.folder / VECTORS_NAME

    def make() -> dict[str, Any]:
        opened = TokenStore.open(target)
        learnt = train_vectors(opened, **settings, seed=job.recipe.seed, progress=job.progress)
        save_vectors(learnt, out, store=opened)
        return {"rows": int(learnt.shape[0]), "dim": int(learnt.shape[1])}

    job.run.stage("vectors", out, make, settings={**settings, "seed": job.recipe.seed}, inputs={"store": target})
    return out
