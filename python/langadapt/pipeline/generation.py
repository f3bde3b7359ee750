"""Text that a model writes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from langadapt.checks import at_least, seed_fits
from langadapt.errors import ConfigError, DataError
from langadapt.machine import choose_device, quiet_transformers
from langadapt.models.embeddings import check_largest
from langadapt.models.folder import load_model
from langadapt.pipeline.finished import model_of
from langadapt.tokenizer.files import load_auto

Stream = Callable[[str], None]
"""Takes the next piece of text, as soon as its words are whole."""


def generate(
    model: str | Path,
    prompt: str = "",
    *,
    max_tokens: int = 100,
    temperature: float = 0.8,
    seed: int = 0,
    device: str = "auto",
    stream: Stream | None = None,
) -> str:
    """What a model writes after ``prompt``.

    Args:
        model: folder or hub id of a causal model, or the folder of a run, whose trained model is taken.
        prompt: to go on from; empty = from the beginning of a document.
        max_tokens: at most; an end-of-sequence token ends the text before that.
        temperature: of the draws; 0 = the likeliest token each time.
        seed: of the draws; the same seed gives the same text on the same machine.
        device: ``auto``, ``cpu``, ``cuda``, ...
        stream: called with the text piece by piece.

    Returns:
        the text after the prompt.

    Raises:
        ConfigError: no such model, or a number out of range.
        DataError: the folder is not a model's.
        TypeError: the prompt is no text.
    """
    if not isinstance(prompt, str):
        raise TypeError(f"prompt: {type(prompt).__name__}; pass a text")
    at_least(1, max_tokens=max_tokens)
    at_least(0, temperature=temperature)
    seed_fits(seed)
    quiet_transformers()
    folder = model_of(model)
    chosen, tokenizer = choose_device(device), load_auto(folder)
    loaded: Any = load_model(folder, dtype="auto").to(chosen).eval()
    # In its place, not beside it: beams, penalties and stop strings of the model's own would go on.
    loaded.generation_config = configuration(tokenizer, max_tokens, temperature)
    given = prompt_ids(tokenizer, prompt).to(chosen)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        check_numbers(loaded, given, folder)
        written = loaded.generate(
            given,
            attention_mask=torch.ones_like(given),
            streamer=None if stream is None else streamer(tokenizer, stream),
        )
    return str(tokenizer.decode(written[0, given.shape[1] :], skip_special_tokens=True))


def check_numbers(model: Any, given: torch.Tensor, folder: Path) -> None:
    """Raise MismatchError for a token without a row, DataError where the model foretells nothing: the likeliest of no
    numbers would be the first token."""
    check_largest(int(given.max()), len(model.get_input_embeddings().weight))
    if not model(given).logits[:, -1].isfinite().any():
        raise DataError(f"{folder}: what the model foretells are no numbers; its weights are damaged")


def configuration(tokenizer: Any, max_tokens: int, temperature: float) -> Any:
    """transformers' ``GenerationConfig``."""
    from transformers import GenerationConfig

    end = tokenizer.eos_token_id
    return GenerationConfig(max_new_tokens=max_tokens, eos_token_id=end, pad_token_id=end or 0, **draws(temperature))


def draws(temperature: float) -> dict[str, Any]:
    """How tokens are chosen."""
    if not temperature:
        return {"do_sample": False}
    return {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}


def prompt_ids(tokenizer: Any, prompt: str) -> torch.Tensor:
    """int64 ``[1, n]``: the prompt behind the token that documents began with in training.

    Raises:
        ConfigError: there is nothing to begin with.
    """
    begin = next((one for one in (tokenizer.bos_token_id, tokenizer.eos_token_id) if one is not None), None)
    ids = tokenizer(prompt, add_special_tokens=False)["input_ids"] if prompt else []
    if begin is not None:
        ids = [begin, *ids]
    if not ids:
        raise ConfigError("prompt: is empty, and the tokenizer has no token that begins a document; give a prompt")
    return torch.tensor([ids], dtype=torch.int64)


def streamer(tokenizer: Any, stream: Stream) -> Any:
    """transformers' streamer, which gives words when they are whole, into a function."""
    from transformers import TextStreamer

    class IntoFunction(TextStreamer):
        def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
            stream(text)

    return IntoFunction(tokenizer, skip_prompt=True, skip_special_tokens=True)
