"""The stages of a recipe that have to do with text: documents, tokenizer, fertility, token stores, token vectors."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langadapt.artefacts.folders import write_atomically
from langadapt.artefacts.stages import Run
from langadapt.corpus.documents import read_documents
from langadapt.corpus.samples import first_bytes
from langadapt.errors import ConfigError
from langadapt.models.folder import tokenizer_file
from langadapt.progress import Progress
from langadapt.recipe.recipe import Recipe

if TYPE_CHECKING:
    from langadapt.training import StoreShare


class TextStages:
    """What a run makes of its text, whatever becomes of the model.

    Args:
        recipe: of the run.
        run: its folder.
        model: folder of the source model, for its tokenizer.
        progress: called as ``(phase, done, total or None, unit)``.
    """

    def __init__(self, recipe: Recipe, run: Run, model: Path, progress: Progress | None) -> None:
        self.recipe = recipe
        self.run = run
        self.model = model
        self.progress = progress
        self.folder = run.folder
        self.languages = ["target", "source"] if recipe.corpus.source else ["target"]

    def build_corpus(self, language: str) -> dict[str, Any]:
        """Documents of one language, split into training and validation text."""
        from langadapt.corpus.documents import FileNames, build_corpus, expand_inputs, is_stream

        settings = self.recipe.corpus
        inputs = settings.target if language == "target" else settings.source
        out = self.folder / "corpus" / language
        options: dict[str, Any] = {
            "text_field": settings.text_field,
            "strict": settings.strict,
            "validation_bytes": settings.validation_bytes,
            "validation_share": settings.validation_share,
            "min_chars": settings.min_chars,
            "max_chars": settings.max_chars,
            "exact_duplicates": settings.exact_duplicates,
            "near_duplicates": settings.near_duplicates,
            "repetition": settings.repetition,
        }

        # A stream has no bytes here to know it by: its name has to do.
        streams = [name for name in inputs if is_stream(name)]
        files = expand_inputs([*inputs]) if not streams else []

        def make() -> dict[str, Any]:
            report = build_corpus(FileNames(inputs), out, **options, progress=self.progress)
            if not report.validation["documents"]:
                raise ConfigError(
                    f"{out}: nothing was set aside to measure on: no document chosen by corpus.validation_share = "
                    f"{settings.validation_share} fits into corpus.validation_bytes = {settings.validation_bytes}; "
                    "raise one of them"
                )
            return report.to_dict()

        return self.run.stage(
            f"corpus-{language}",
            out,
            make,
            settings={**options, "streams": streams},
            inputs={str(file): file for file in files},
        )

    def make_tokenizer(self) -> Path:
        """The new tokenizer's folder: trained here, or copied from where the recipe says."""
        from langadapt.tokenizer.encoder import Tokenizer
        from langadapt.tokenizer.training import train_bpe

        settings = self.recipe.tokenizer
        out = self.folder / "tokenizer"
        text = self.folder / "corpus" / "target" / "train.jsonl.zst"
        inputs = {"corpus": text}
        if settings.path is not None:
            inputs = {"tokenizer": Path(settings.path)}
        like = str(self.model) if settings.like == "source" else settings.like
        if like is not None and settings.path is None:
            inputs["like"] = tokenizer_file(Path(like))

        def make() -> dict[str, Any]:
            if settings.path is not None:
                tokenizer = Tokenizer.from_pretrained(settings.path)
            else:
                tokenizer = train_bpe(
                    [str(text)],
                    settings.vocab_size,
                    style=settings.style,
                    like=like,
                    min_frequency=settings.min_frequency,
                    accept_fewer=settings.accept_fewer,
                    progress=self.progress,
                )
            tokenizer.save_pretrained(out)
            return {"vocab_size": tokenizer.vocab_size}

        self.run.stage("tokenizer", out, make, settings=asdict(settings), inputs=inputs)
        return out

    def measure_fertility(self, tokenizer: Path) -> dict[str, Any]:
        """Both tokenizers on both languages' validation text, and on aligned sentences where the recipe names some."""
        from langadapt.fertility import measure_fertility
        from langadapt.tokenizer.encoder import Tokenizer

        out = self.folder / "fertility.json"
        names = {"source": self.recipe.source_language, "target": self.recipe.target_language}
        texts = {names[language]: self.validation(language) for language in self.languages}

        def make() -> dict[str, Any]:
            tokenizers = {
                "source": Tokenizer.from_pretrained(self.model),
                "new": Tokenizer.from_pretrained(tokenizer),
            }
            report: dict[str, Any] = measure_fertility(
                tokenizers, {name: [str(file)] for name, file in texts.items()}
            ).to_dict()
            if self.recipe.evaluate.parallel is not None:
                aligned = read_aligned(Path(self.recipe.evaluate.parallel))
                parity = measure_fertility(
                    tokenizers, {names[side]: iter(lines) for side, lines in aligned.items()}, reference=names["source"]
                )
                report = {"text": report, "aligned": parity.to_dict()}
            else:
                report = {"text": report}
            write_atomically(out, json.dumps(report, indent=2, ensure_ascii=False) + "\n")
            return report

        inputs = {"source": tokenizer_file(self.model), "target": tokenizer_file(tokenizer), **texts}
        if self.recipe.evaluate.parallel is not None:
            inputs["parallel"] = Path(self.recipe.evaluate.parallel)
        return self.run.stage("fertility", out, make, settings={"names": names}, inputs=inputs)

    def store(self, language: str, tokenizer: Path) -> Path:
        """The token store of one language's training text under one tokenizer."""
        from langadapt.store import tokenize_corpus
        from langadapt.tokenizer.encoder import Tokenizer

        which = "own" if tokenizer == self.model else "new"
        out = self.folder / "stores" / f"{language}-{which}"
        text = self.folder / "corpus" / language / "train.jsonl.zst"

        def make() -> Mapping[str, Any]:
            store = tokenize_corpus([str(text)], Tokenizer.from_pretrained(tokenizer), out, progress=self.progress)
            return dict(store.manifest["summary"])

        self.run.stage(
            f"store-{language}-{which}",
            out,
            make,
            settings={},
            inputs={"text": text, "tokenizer": tokenizer_file(tokenizer)},
        )
        return out

    def vectors(self, tokenizer: Path) -> Path:
        """Token vectors of the target language."""
        from langadapt.store import TokenStore
        from langadapt.vectors.cbow import save_vectors, train_vectors

        settings = asdict(self.recipe.vectors)
        store = self.store("target", tokenizer)
        out = self.folder / "vectors.safetensors"

        def make() -> dict[str, Any]:
            opened = TokenStore.open(store)
            vectors = train_vectors(opened, **settings, seed=self.recipe.seed, progress=self.progress)
            save_vectors(vectors, out, store=opened)
            return {"rows": int(vectors.shape[0]), "dim": int(vectors.shape[1])}

        self.run.stage("vectors", out, make, settings={**settings, "seed": self.recipe.seed}, inputs={"store": store})
        return out

    def stores(self, tokenizer: Path) -> list[StoreShare]:
        """What is trained on: target text, and source text where the recipe replays some."""
        from langadapt.training import StoreShare

        share = self.recipe.corpus.source_share
        shares = [StoreShare(self.store("target", tokenizer), 1.0 - share, "target")]
        if share > 0:
            shares.append(StoreShare(self.store("source", tokenizer), share, "source"))
        return shares

    def validation(self, language: str) -> Path:
        """The file of documents that were set aside."""
        return self.folder / "corpus" / language / "validation.jsonl.zst"

    def validation_texts(self, language: str, limit: float = math.inf) -> list[str]:
        """Documents that were set aside, up to ``limit`` UTF-8 bytes but at least one."""
        return first_bytes(read_documents([str(self.validation(language))]), limit)


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
