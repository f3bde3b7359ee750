"""What can be told to be wrong with a run before any of it is done, by the functions that would refuse it later."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

import torch

from langadapt.artefacts.folders import scratch_folder
from langadapt.artefacts.mirror import check_writable
from langadapt.artefacts.places import check_space
from langadapt.corpus.build import least_bytes
from langadapt.corpus.documents import files_of, is_stream
from langadapt.errors import ConfigError
from langadapt.evaluation.bits_per_byte import check_windows
from langadapt.evaluation.suites import check_suites
from langadapt.finish.members import check_kin, open_member
from langadapt.finish.tokens import templates_of
from langadapt.machine import choose_device
from langadapt.models.folder import context_length, resolve_model
from langadapt.models.miniature import miniature
from langadapt.models.skeleton import build_skeleton
from langadapt.models.weights import check_precision, weight_files
from langadapt.pipeline.aligned import pairs_as_documents, read_aligned
from langadapt.recipe.recipe import Recipe
from langadapt.swap.files import read_model
from langadapt.swap.rows.names import AUTO, KEEP, check_methods
from langadapt.tokenizer.agreement import PROBES, check_agreement
from langadapt.tokenizer.encoder import Tokenizer
from langadapt.tokenizer.training import train_bpe
from langadapt.training import adapter, loss, meters, optimizer
from langadapt.training.attention.choice import candidates_for, register
from langadapt.training.course import check_deadline
from langadapt.training.data.mixture import special_tokens
from langadapt.training.model import check_causal, fp32_names, way_apart
from langadapt.training.protect import linear_layers

log = logging.getLogger(__name__)

STATES = 3
"""A checkpoint holds the weights and two states of the optimizer, at least."""


def check_run(recipe: Recipe, model: Path, arms: Iterable[str]) -> None:
    """Refuse what would only fail hours later.

    Args:
        recipe: of the run.
        model: folder of the source model.
        arms: methods of the comparison, the recipe's own first.

    Raises:
        ConfigError: the recipe cannot work with this model, or a package is missing that it asks for.
        DataError: the model's weights are missing, in another format than safetensors, or cut short; a tokenizer or
            suite is not one.
        FileNotFoundError: an input is missing.
        OSError: the disk is too full, or nothing may be written there.
    """
    choose_device(recipe.train.device)
    arms, out = list(arms), Path(recipe.out)
    # A run that is complete may be called again at any time.
    done = {path.parent.name for path in out.glob("trained/*/final")}
    left = [arm for arm in arms if arm not in done and not (arm == AUTO and done)]
    if left:
        check_deadline(recipe.train)
    check_methods_of(recipe, arms)
    check_inputs(recipe)
    check_model(model, left)
    context, length = context_length(model), recipe.train.sequence_length
    if context is not None and length != "auto" and length > context:
        raise ConfigError(f"train.sequence_length: {length} tokens exceed the model's context of {context} ({model})")
    check_windows(context, recipe.evaluate.window, recipe.evaluate.stride)
    if recipe.finish.instruct is not None:
        check_instruct(model, resolve_model(recipe.finish.instruct))
    if left:
        check_tokenizers(recipe, model, left)
        check_training(recipe, model)
        check_space(out, bytes_to_come(recipe, model, left))


def check_methods_of(recipe: Recipe, arms: Iterable[str]) -> None:
    """Raise ConfigError for a method that nobody knows, or that lacks what it is made from."""
    settings = recipe.swap
    methods = [*(method for method in arms if method != AUTO), *settings.candidates]
    check_methods(methods)
    for method, needed in (("wechsel", "words"), ("clp", "helper")):
        if method in (*methods, settings.output_method) and not getattr(settings, needed):
            raise ConfigError(f"method `{method}` needs `swap.{needed}`, which the recipe does not set")


def check_instruct(model: Path, instruct: Path) -> None:
    """Refuse an instruct model that a run could not be finished with.

    Raises:
        ConfigError: it is of another base (names the tensors), or has no chat template.
    """
    base, tuned = open_member(model), open_member(instruct)
    templates_of(tuned.tokenizer)
    check_kin(base, tuned, "instruct")


def check_inputs(recipe: Recipe) -> None:
    """Find all files that a stage will read, and read those that are small."""
    for source in recipe.corpus.texts:
        name, inputs = source.name, source.paths
        streams = [one for one in inputs if is_stream(one)]
        if streams and source.kind == "pairs":
            raise ConfigError(f"corpus.{name}: {streams[0]} is a stream; pairs are read from files")
        if streams and len(inputs) > 1:
            raise ConfigError(f"corpus.{name}: {streams[0]} cannot be mixed with other inputs")
        if streams and find_spec("datasets") is None:
            raise ConfigError(f"corpus.{name}: {streams[0]} needs the package `datasets`; pip install datasets")
        files_of(inputs)
        if source.kind == "pairs":
            next(pairs_as_documents(inputs))
    files_of(recipe.corpus.foreign)
    for words in recipe.swap.words:
        with Path(words).open("rb"):
            pass
    if recipe.swap.helper is not None:
        resolve_model(recipe.swap.helper)
    if recipe.evaluate.parallel is not None:
        read_aligned(Path(recipe.evaluate.parallel))
    check_suites(recipe.evaluate.suites, recipe.evaluate.limit)


def check_model(model: Path, arms: Iterable[str]) -> None:
    """Make sure of a model's files, and that it can be swapped if an arm does.

    Raises:
        ConfigError: quantised weights, or a table by token id for which no rows can be made.
        DataError: weights are missing, or not as long as their headers say.
    """
    check_precision(model)
    if any(arm != KEEP for arm in arms):
        read_model(model)


def check_tokenizers(recipe: Recipe, model: Path, arms: Iterable[str]) -> None:
    """Load the tokenizers that are there already; say what will become of the chat template."""
    own, settings, new = Tokenizer.from_pretrained(model), recipe.tokenizer, None
    known = [own] if KEEP in arms or settings.like == "source" else []
    if settings.path is not None:
        new = Tokenizer.from_pretrained(settings.path)
        known.append(new)
        for note in new.with_templates_of(own)[1]:
            log.info("%s: %s", settings.path, note)
    elif settings.like not in (None, "source"):
        known.append(Tokenizer.from_pretrained(str(settings.like)))
    for tokenizer in known:
        special_tokens(tokenizer, None, recipe.train)
    if any(arm != KEEP for arm in arms):
        check_view(recipe, model, new)


def check_view(recipe: Recipe, model: Path, new: Tokenizer | None) -> None:
    """Make sure that transformers will see the new tokenizer beside this model; one that is still to be trained is made
    of a few lines, for how it cuts text does not depend on the text."""
    settings = recipe.tokenizer
    like = str(model) if settings.like == "source" else settings.like
    if new is None:
        options = settings.training(like) | {"vocab_size": min(settings.vocab_size, 4096), "accept_fewer": True}
        new = train_bpe(texts=[*PROBES] * 3, **options)
    with scratch_folder("langadapt-view") as folder:
        shutil.copy(model / "config.json", folder)
        new.save_pretrained(folder)
        check_agreement(new, folder)


def check_training(recipe: Recipe, model: Path) -> None:
    """Make sure of the packages and the store that training asks for, and of what the architecture does with packed
    documents.

    The latter is seen on a miniature of the model; where there is none, training itself says it.
    """
    settings, device = recipe.train, torch.device(choose_device(recipe.train.device))
    if settings.checkpoints_url is not None:
        check_writable(settings.checkpoints_url)
    optimizer.check_packages(settings)
    meters.check_packages(settings)
    config, skeleton = build_skeleton(model)
    if settings.protect is not None:
        linear_layers(skeleton)
    if settings.adapter is not None:
        adapter.check(skeleton, settings.adapter, device, leave_out=fp32_names(skeleton))
    register()
    if settings.isolate_documents:
        candidates_for(config.get_text_config(), settings.attention, device, True)
    if settings.loss_chunk == "fused":
        loss.check_fused(device)
    elif settings.loss_chunk == "liger":
        loss.liger_loss(device)
    small = miniature(config)
    if small is not None:
        check_causal(small, torch.device("cpu"), False)
        if settings.isolate_documents:
            way_apart(small, str(small.config._attn_implementation), torch.device("cpu"), False)


def bytes_to_come(recipe: Recipe, model: Path, arms: Iterable[str]) -> int:
    """What the stages that are not done yet will write, at least."""
    out = Path(recipe.out)
    weights = sum(file.stat().st_size for file in weight_files(model))
    # Each arm that is not trained: a swapped model, a checkpoint, the trained model.
    copies = sum(1 + STATES + (arm != KEEP and not (out / "swapped" / arm).is_dir()) for arm in arms)
    total = copies * weights
    for source in recipe.corpus.texts:
        if not recipe.corpus.leaves_out and not (out / "corpus" / source.name).is_dir():
            # The token store takes as much as the packed text, and more.
            total += 2 * least_bytes((files_of(source.paths) or {}).values())
    return total
