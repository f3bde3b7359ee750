"""The stages that have to do with text: documents, tokenizer, fertility, token stores, token vectors."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

from langadapt.artefacts.folders import write_atomically
from langadapt.artefacts.remote import is_remote
from langadapt.artefacts.shards import find_parts
from langadapt.corpus.build import BuildOptions, build_corpus
from langadapt.corpus.documents import files_of, is_stream, read_documents
from langadapt.corpus.parts import build_on, check_parts, merge_corpus
from langadapt.corpus.samples import first_bytes, split_evenly
from langadapt.errors import ConfigError
from langadapt.evaluation.bits_per_byte import BitsPerByte
from langadapt.fertility import measure_fertility
from langadapt.models.folder import tokenizer_file
from langadapt.pipeline.aligned import pairs_as_documents, read_aligned
from langadapt.pipeline.job import FERTILITY_NAME, VECTORS_NAME, Job, parts_of
from langadapt.recipe.recipe import TokenizerSettings
from langadapt.recipe.sources import SourceSettings
from langadapt.store import TokenStore, tokenize_corpus
from langadapt.tokenizer.encoder import Tokenizer
from langadapt.tokenizer.files import copied_from
from langadapt.tokenizer.training import train_bpe
from langadapt.training import StoreShare
from langadapt.vectors.cbow import save_vectors, train_vectors

APART = 100
"""Held-out documents from which on those that training is watched with are kept out of the final test: of fewer,
neither part could tell two models apart."""


@dataclass(frozen=True)
class HeldOut:
    """Documents that nothing is trained on."""

    watched: list[str]
    """Measured while training, and by whatever chooses: a bake-off, a checkpoint."""
    tested: list[str]
    """Measured before and after training only."""
    apart: bool
    """Whether no document is in both."""


@dataclass(frozen=True)
class Part:
    """Documents of one source, split in two."""

    source: SourceSettings
    train: Path
    validation: Path
    report: dict[str, Any]
    """See :class:`langadapt.corpus.build.CorpusReport`."""

    @property
    def name(self) -> str:
        """The source's."""
        return self.source.name

    def held_out(self, limit: float) -> HeldOut:
        """Documents that were set aside, about ``limit`` UTF-8 bytes of them to watch training with."""
        texts = list(read_documents([str(self.validation)]))
        if len(texts) < APART:
            return HeldOut(first_bytes(texts, limit), texts, apart=False)
        watched, tested = split_evenly(texts, limit)
        if not watched:
            watched, tested = tested[:1], tested[1:]
        return HeldOut(watched, tested, apart=True)


@dataclass(frozen=True)
class Corpus:
    """What is measured as one: the sources of a language, or one that is of neither."""

    language: str
    """``target``, ``source``, or the name of a source of another language."""
    parts: list[Part]

    @property
    def train(self) -> list[str]:
        """Files to learn from."""
        return [str(part.train) for part in self.parts]

    def held_out(self, limit: float) -> HeldOut:
        """Those of all parts, end to end; ``limit`` is for all of them together."""
        found = [part.held_out(limit / len(self.parts)) for part in self.parts]
        watched, tested = ([text for one in found for text in texts(one)] for texts in (WATCHED, TESTED))
        return HeldOut(watched, tested, all(one.apart for one in found))

    def by_part(self, limit: float, found: BitsPerByte, texts: Texts) -> dict[str, float]:
        """Bits per byte of each part, from what was ``found`` on the watched or tested documents of all; none where the
        one part is the language."""
        bits, begin = {}, 0
        for part in self.parts:
            end = begin + len(texts(part.held_out(limit / len(self.parts))))
            bits[part.name] = sum(found.document_bits[begin:end]) / max(sum(found.document_bytes[begin:end]), 1)
            begin = end
        return {} if list(bits) == [self.language] else bits


Texts = Callable[[HeldOut], list[str]]
WATCHED, TESTED = attrgetter("watched"), attrgetter("tested")

Corpora = Mapping[str, Corpus]
"""By :attr:`Corpus.language`, ``target`` first and, where there is text of it, ``source``."""


def all_parts(texts: Corpora) -> dict[str, Part]:
    """All sources by name."""
    return {part.name: part for one in texts.values() for part in one.parts}


def corpora(job: Job, but: str = "") -> dict[str, Corpus]:
    """Text of all sources, by what it is measured with; of none in the language ``but``."""
    found: dict[str, Corpus] = {}
    for source in (one for one in job.recipe.corpus.texts if one.language != but):
        found.setdefault(source.group, Corpus(source.group, [])).parts.append(corpus(job, source))
    return found


def corpus(job: Job, source: SourceSettings) -> Part:
    """Documents of one source, split into training and validation text.

    Raises:
        ConfigError: nothing is left of it, or nothing was set aside; names it.
    """
    inputs, out = source.paths, job.folder / "corpus" / source.name
    parts = parts_of(job.folder, source.name)
    options = job.recipe.corpus.building(source)
    read = BuildOptions(**options).made_from(files_of(inputs)) or {}
    # A stream has no bytes here to know it by, and a server need not tell versions of its files: the name has to do.
    streams = [name for name in inputs if is_stream(name) or is_remote(name)]
    stamp = {**options, "streams": streams} | ({"kind": source.kind} if source.kind == "pairs" else {})

    def make() -> dict[str, Any]:
        if job.engine is not None:
            return build_on(job.engine, inputs, out, parts=parts, progress=job.progress, **options).to_dict()
        if parts.is_dir():
            found = find_parts([parts])
            check_parts(found, options, files_of(inputs) or {})
            return merge_corpus(found, out, progress=job.progress).to_dict()
        given: dict[str, Any] = {"texts": pairs_as_documents(inputs)} if source.kind == "pairs" else {"inputs": inputs}
        try:
            return build_corpus(out=out, **given, **options, progress=job.progress).to_dict()
        except ValueError as error:
            raise ConfigError(f"corpus, {source.name}: {error}") from None

    report = job.run.stage(f"corpus-{source.name}", out, make, settings=stamp, inputs=read)
    if not report["validation"]["documents"]:
        raise ConfigError(f"{out}: nothing was set aside to measure on; one document is too little text")
    return Part(source, out / "train.jsonl.zst", out / "validation.jsonl.zst", report)


def tokenizer(job: Job, texts: Corpora) -> Path:
    """The new tokenizer's folder: trained here, or copied from where the recipe says."""
    settings, out = job.recipe.tokenizer, job.folder / "tokenizer"
    like = str(job.model) if settings.like == "source" else settings.like
    learnt = learnt_on(settings, texts)
    if settings.path is not None:
        inputs = {"tokenizer": Path(settings.path)}
    else:
        inputs = {
            ("corpus" if part.name == "target" else part.name): part.train
            for part in all_parts(texts).values()
            if any(str(part.train) in files for files, _ in learnt)
        }
        inputs |= copied_from(like)

    def make() -> dict[str, Any]:
        if settings.path is not None:
            made = Tokenizer.from_pretrained(settings.path)
        else:
            (first, _), *others = learnt
            made = train_bpe(first, **settings.training(like), also=others, progress=job.progress)
        made.save_pretrained(out)
        return {"vocab_size": made.vocab_size}

    job.run.stage("tokenizer", out, make, settings=asdict(settings), inputs=inputs)
    return out


def learnt_on(settings: TokenizerSettings, texts: Corpora) -> list[tuple[list[str], float]]:
    """Files that the tokenizer learns from, and their share of the bytes."""
    if settings.weights:
        parts = all_parts(texts)
        return [([str(parts[name].train)], weight) for name, weight in settings.weights.items() if weight > 0]
    share = settings.source_share
    source = [(texts["source"].train, share)] if settings.wants_source else []
    return [(texts["target"].train, 1.0 - share), *source]


def fertility(job: Job, texts: Corpora, new: Path) -> dict[str, Any]:
    """Both tokenizers on both languages' validation text, and on aligned sentences where the recipe names some."""
    out = job.folder / FERTILITY_NAME
    names = {"source": job.recipe.source_language, "target": job.recipe.target_language}
    files = {
        names[language]: [part.validation for part in text.parts]
        for language, text in texts.items()
        if language in names
    }
    parallel = job.recipe.evaluate.parallel

    def make() -> dict[str, Any]:
        tokenizers = {"source": Tokenizer.from_pretrained(job.model), "new": Tokenizer.from_pretrained(new)}
        running = measure_fertility(tokenizers, {name: [*map(str, some)] for name, some in files.items()})
        report = {"text": running.to_dict()}
        if parallel is not None:
            sentences = {names[side]: iter(lines) for side, lines in read_aligned(Path(parallel)).items()}
            report["aligned"] = measure_fertility(tokenizers, sentences, reference=names["source"]).to_dict()
        write_atomically(out, json.dumps(report, indent=2, ensure_ascii=False) + "\n")
        return report

    inputs = {"source": tokenizer_file(job.model), "target": tokenizer_file(new)}
    inputs |= {names.get(name, name): part.validation for name, part in all_parts(texts).items()}
    if parallel is not None:
        inputs["parallel"] = Path(parallel)
    return job.run.stage("fertility", out, make, settings={"names": names}, inputs=inputs)


def stores(job: Job, texts: Corpora, under: Path) -> list[StoreShare]:
    """What is trained on, under one tokenizer: all sources with a share, those of the target language first."""
    return [
        StoreShare(store(job, part, under), part.source.share, part.name, part.source.max_repeats)
        for part in all_parts(texts).values()
        if part.source.share > 0
    ]


def store(job: Job, part: Part, under: Path) -> Path:
    """The token store of one source's training text under the tokenizer in a folder."""
    return tokenized(job, part.name, [part.train], under)


def target_store(job: Job, texts: Corpora, under: Path, shares: Sequence[StoreShare]) -> Path:
    """The token store of all training text of the target language, what token vectors and counts are learnt from: the
    first of ``shares``, as :func:`stores` gives them, where that is all there is."""
    parts = texts["target"].parts
    if len(parts) == 1:
        return Path(shares[0].store)
    return tokenized(job, "target", [part.train for part in parts], under)


def tokenized(job: Job, text: str, files: Sequence[Path], under: Path) -> Path:
    """The token store of some files."""
    name = f"{text}-{'own' if under == job.model else 'new'}"
    out = job.folder / "stores" / name

    def make() -> dict[str, Any]:
        inputs = [*map(str, files)]
        made = tokenize_corpus(inputs, Tokenizer.from_pretrained(under), out, progress=job.progress)
        return dict(made.manifest["summary"])

    inputs = {"tokenizer": tokenizer_file(under)}
    inputs |= {"text" if len(files) == 1 else f"text {number}": file for number, file in enumerate(files)}
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
