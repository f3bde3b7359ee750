"""The proof that a GGUF file speaks as its model does: llama.cpp loads it, ids and logits are compared."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from langadapt.errors import LangadaptError, MismatchError, shorten
from langadapt.models.folder import load_model
from langadapt.progress import Progress
from langadapt.tokenizer.check import SAMPLES
from langadapt.tokenizer.encoder import Tokenizer
from langadapt.tokenizer.llamacpp import llamacpp_form

MOST_LINES, MOST_WINDOWS, WINDOW = 10_000, 100, 64
"""Lines whose ids are compared; windows whose logits are, and tokens of each."""
TOLERANCE = {"f16": 0.02, "bf16": 0.05, "q8_0": 0.15}
"""Of a window: |difference| / |logits|, both centred by position. llama.cpp rounds activations to the type of the
weights before each product; a wrong rotation or norm is at 0.3 and above."""
LARGE = 2_000_000_000
"""Parameters from which the reference is computed in the model's own type, not in float32."""


@dataclass(frozen=True)
class Proof:
    """What was compared and agreed."""

    lines: int
    """Whose ids are the same."""
    tokens: int
    """In those lines."""
    unnormalized: int
    """Lines left out: llama.cpp does not normalize, and the tokenizer does."""
    windows: int
    logit_error: float
    """Largest of all windows, see :data:`TOLERANCE`."""
    same_choice: float
    """Share of positions whose likeliest token is the same."""


def need_llama() -> Any:
    """The package that loads GGUF files.

    Raises:
        LangadaptError: it is not installed.
    """
    try:
        import llama_cpp
    except (ImportError, RuntimeError, OSError) as error:
        raise LangadaptError(
            f"the proof needs llama-cpp-python ({shorten(str(error))}); install it: pip install 'langadapt[gguf]', or "
            "write without a proof: --no-proof"
        ) from None
    return llama_cpp


def prove(
    file: Path, folder: Path, lines: Iterable[str], *, type: str = "bf16", progress: Progress | None = None
) -> Proof:
    """Compare a GGUF file with the model that it was made from.

    Args:
        file: the GGUF file.
        folder: the model's.
        lines: text, besides a few sentences in several scripts; up to 10,000 lines count.
        type: of the file's matrices.
        progress: called as ``(phase, done, total, unit)``.

    Raises:
        MismatchError: names the first line that is cut otherwise, and why; or the first window of other logits.
        LangadaptError: llama-cpp-python is not installed.
    """
    llama_cpp, tokenizer = need_llama(), Tokenizer.from_pretrained(folder)
    samples = [line for texts in SAMPLES.values() for line in texts]
    text = list(islice((line for one in (lines, samples) for line in one if line), MOST_LINES))
    forms = llamacpp_form(tokenizer).forms
    fair = [line for line in text if is_normal(forms, line)]
    tokens = compare_ids(llama_cpp, file, tokenizer, fair, progress=progress)
    windows = list(islice(cut(tokenizer, fair), MOST_WINDOWS))
    error, same = compare_logits(llama_cpp, file, folder, windows, type=type, progress=progress)
    return Proof(len(fair), tokens, len(text) - len(fair), len(windows), error, same)


def loaded(llama_cpp: Any, file: Path, **options: Any) -> Any:
    """The file in llama.cpp.

    Raises:
        MismatchError: it does not take it.
    """
    try:
        return llama_cpp.Llama(str(file), verbose=False, **options)
    except ValueError as error:
        raise MismatchError(f"{file}: llama.cpp does not load it ({shorten(str(error))})") from None


def is_normal(forms: Sequence[str], line: str) -> bool:
    """Whether normalization leaves ``line`` as it is."""
    return all(unicodedata.is_normalized(form, line) for form in forms)  # type: ignore[arg-type]


def compare_ids(
    llama_cpp: Any, file: Path, tokenizer: Tokenizer, lines: Sequence[str], *, progress: Progress | None
) -> int:
    """Ids of all lines under both; returns how many there are.

    Raises:
        MismatchError: the first line that differs, with the place and what is known of llama.cpp's tokenizer.
    """
    model = loaded(llama_cpp, file, vocab_only=True)
    ids, offsets = tokenizer.encode_batch(lines)
    try:
        for at, line in enumerate(lines):
            ours = ids[int(offsets[at]) : int(offsets[at + 1])].tolist()
            theirs = model.tokenize(line.encode(), add_bos=False, special=True)
            if ours != theirs:
                what = difference(tokenizer, line, ours, theirs)
                raise MismatchError(f"{file}: llama.cpp reads line {at + 1} otherwise, {what}")
            if progress is not None and at % 1000 == 0:
                progress("compare ids", at, len(lines), "lines")
    finally:
        model.close()
    return len(ids)


def difference(tokenizer: Tokenizer, line: str, ours: list[int], theirs: list[int]) -> str:
    """What differs, for people."""
    first = next((n for n, pair in enumerate(zip(ours, theirs, strict=False)) if pair[0] != pair[1]), 0)
    shown = [[tokenizer.id_to_token(id) for id in ids[first : first + 4]] for ids in (ours, theirs)]
    known = llamacpp_form(tokenizer).differences
    cause = "; ".join(known) if known else "its cutting of this text is another"
    return (
        f"{shorten(line, 80)!r}: at token {first + 1} it has {shown[1]} where the model's tokenizer has {shown[0]}; "
        f"{cause}"
    )


def cut(tokenizer: Tokenizer, lines: Sequence[str]) -> Iterator[list[int]]:
    """Windows of consecutive text, BOS in front where there is one."""
    ids, _ = tokenizer.encode_batch(list(lines))
    start = [tokenizer.bos_token_id] if tokenizer.bos_token_id is not None else []
    for at in range(0, len(ids), WINDOW):
        yield start + ids[at : at + WINDOW].tolist()


def compare_logits(
    llama_cpp: Any, file: Path, folder: Path, windows: Sequence[list[int]], *, type: str, progress: Progress | None
) -> tuple[float, float]:
    """The largest error of all windows, and the share of positions with the same choice.

    Raises:
        MismatchError: the first window whose logits differ by more than the type explains.
    """
    model: Any = load_model(folder, dtype="auto")
    model = (model if model.num_parameters() > LARGE else model.float()).eval()
    # As many as torch: llama.cpp's threads spin while they wait for each other, which a busy machine pays for.
    threads = {name: torch.get_num_threads() for name in ("n_threads", "n_threads_batch")}
    llama = llama_cpp.Llama(str(file), n_ctx=WINDOW + 8, n_batch=WINDOW + 8, logits_all=True, verbose=False, **threads)
    worst, same, count = 0.0, 0, 0
    try:
        for at, window in enumerate(windows):
            with torch.no_grad():
                ours = model(input_ids=torch.tensor([window]), use_cache=False).logits[0].float().numpy()
            llama.reset()
            llama.eval(window)
            theirs = np.array(llama.scores[: len(window)], dtype=np.float32)[:, : ours.shape[1]]
            error = relative_error(ours, theirs)
            if not error <= TOLERANCE[type]:
                raise MismatchError(
                    f"{file}: llama.cpp computes other logits in window {at + 1} of {len(windows)}: they differ by "
                    f"{error:.1%}, and `{type}` explains {TOLERANCE[type]:.0%}; the model computes something that this "
                    "GGUF architecture does not, keep to transformers or vLLM"
                )
            worst, count = max(worst, error), count + len(window)
            same += int((ours.argmax(1) == theirs.argmax(1)).sum())
            if progress is not None:
                progress("compare logits", at + 1, len(windows), "windows")
    finally:
        llama.close()
    return worst, same / max(1, count)


def relative_error(ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> float:
    """|difference| / |ours| over all positions, both without their mean by position."""
    a, b = (logits - logits.mean(axis=1, keepdims=True) for logits in (ours, theirs))
    return float(np.linalg.norm(a - b) / max(float(np.linalg.norm(a)), 1e-30))
