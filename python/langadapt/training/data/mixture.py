"""Token stores and a tokenizer become a mixture of packed windows, or an error that says why they cannot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from langadapt.errors import ConfigError, MismatchError
from langadapt.store import TokenStore
from langadapt.tokenizer.encoder import Tokenizer
from langadapt.tokenizer.files import load_auto
from langadapt.training.data.batches import Mixture, Store, StoreShare, Windows
from langadapt.training.model import check_vocabulary
from langadapt.training.settings import TrainSettings


def open_mixture(
    shares: Sequence[StoreShare], tokenizer: Any, ids: Any, model: Any, *, settings: TrainSettings
) -> Mixture:
    """Pack all stores. ``tokenizer`` is what the stores must be of, ``ids`` what knows the special tokens.

    Raises:
        MismatchError: a store of another tokenizer.
        DataError: too little text for one step.
    """
    if not shares:
        raise ConfigError("no token store to train on")
    start, end = special_tokens(ids, model, settings)
    sources, names = [], set()
    for number, share in enumerate(shares):
        store = open_store(share)
        name = share.name or f"store{number}"
        if name in names:
            raise ConfigError(f"two stores are named {name!r}; logs could not tell them apart")
        names.add(name)
        check_made_by(store, name, tokenizer)
        vocabulary = store.manifest.get("summary", {}).get("vocab_size")
        if vocabulary is not None:
            check_vocabulary(model, int(vocabulary) - 1, f"store {name}")
        # An id without an embedding would end the run in an index error, or in a GPU's assertion.
        entries = int(vocabulary) if vocabulary is not None else int(model.get_input_embeddings().weight.shape[0])
        # A chat template has set all special tokens itself.
        around = {"start": None, "end": None} if is_chat(store) else {"start": start, "end": end}
        sources.append(Windows(store, name, settings.window, **around, seed=settings.seed, ids=entries))
    weights, repeats = [share.weight for share in shares], [share.max_repeats for share in shares]
    return Mixture(sources, weights, settings.sequences_per_step, repeats)


def is_chat(store: Store) -> bool:
    """Whether a store holds conversations, and says which of their tokens are learnt."""
    return getattr(store, "learnt", None) is not None


def open_store(share: StoreShare) -> Store:
    """The store of a share, opened if it is a folder."""
    if isinstance(share.store, (str, Path)):
        store: Store = TokenStore.open(share.store)
        return store
    return share.store


def special_tokens(tokenizer: Any, model: Any, settings: TrainSettings) -> tuple[int | None, int | None]:
    """(token set before a document, token set after it) from the tokenizer, or from the model's config without one.

    Raises:
        ConfigError: the asked-for start token does not exist.
    """
    known = tokenizer if tokenizer is not None else model.config
    bos, eos = (first(getattr(known, f"{role}_token_id", None)) for role in ("bos", "eos"))
    wanted = settings.document_start
    if (wanted == "bos" and bos is None) or (wanted == "eos" and eos is None):
        raise ConfigError(f"document_start: {wanted}, but the tokenizer has no {wanted.upper()} token; use `auto`")
    start = {"bos": bos, "eos": eos, "none": None, "auto": bos if bos is not None else eos}[wanted]
    return start, eos


def bytes_per_token(mixture: Mixture) -> list[float | None]:
    """UTF-8 bytes of text behind a learnt token of each source; none where the store does not tell."""
    found: list[float | None] = []
    for windows in mixture.sources:
        size = windows.store.manifest.get("summary", {}).get("bytes")
        found.append(None if size is None else float(size) / max(int(windows.learnt_per_window.sum()), 1))
    return found


def first(value: Any) -> int | None:
    """Some configs list several end tokens; the first is the one that ends documents."""
    if isinstance(value, (list, tuple)):
        value = value[0] if value else None
    return None if value is None else int(value)


def check_made_by(store: Store, name: str, tokenizer: Any) -> None:
    """Compare a store's manifest with the tokenizer of this run.

    The fingerprint decides where the tokenizer has one; other tokenizers are compared by size.
    """
    if tokenizer is None:
        return
    made_by = store.manifest.get("inputs", {}).get("tokenizer")
    mine = getattr(tokenizer, "fingerprint", None)
    if made_by is not None and mine is not None:
        if made_by != mine:
            raise MismatchError(
                f"store {name}: made by another tokenizer (fingerprint {made_by}, this run's is {mine}); "
                "tokenize the text again with this run's tokenizer"
            )
        return
    stored = store.manifest.get("summary", {}).get("vocab_size")
    # A Hugging Face tokenizer's `vocab_size` leaves added tokens out; its length does not.
    size = len(tokenizer) if hasattr(tokenizer, "__len__") else getattr(tokenizer, "vocab_size", None)
    if stored is not None and size is not None and int(stored) != int(size):
        raise MismatchError(
            f"store {name}: made by a tokenizer of {stored} entries, but this run's has {size}; tokenize the text again"
        )


def load_tokenizer(tokenizer: Any, model: Any) -> Any:
    """A tokenizer object out of a folder's path; objects pass; without one, the model's folder is tried."""
    if tokenizer is None and isinstance(model, (str, Path)) and (Path(model) / "tokenizer.json").is_file():
        return load_auto(model)
    if isinstance(tokenizer, (str, Path)):
        return Tokenizer.from_pretrained(tokenizer)
    return tokenizer
