"""Every causal class of transformers, made tiny from its configuration: what langadapt makes of it.

Each is swapped to another tokenizer, trained for two steps on packed documents, exported, loaded again and measured;
its tokenizer is compared with that of `AutoTokenizer` in every folder, the first loss and the bits per byte with what
transformers alone says. `python tests/models_zoo.py` writes docs/models.md; a slow test holds that the page is up to
date. `python tests/models_zoo.py KIND...` tries some and writes their rows.
"""

from __future__ import annotations

import itertools
import json
import math
import re
import shutil
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import transformers
from sample_tokenizers import ENGLISH, GERMAN, byte_level, metaspace, save
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from langadapt import Tokenizer, tokenize_corpus
from langadapt.errors import LangadaptError
from langadapt.evaluation.bits_per_byte import measure_bits_per_byte
from langadapt.models import attention
from langadapt.models.folder import load_model
from langadapt.models.miniature import LARGEST, shrink
from langadapt.models.skeleton import build_skeleton
from langadapt.swap.files import read_model, swap_folder
from langadapt.tokenizer.training import train_bpe
from langadapt.training import StoreShare, TrainSettings, train_model
from langadapt.training.data.batches import IGNORE
from langadapt.training.model import check_causal
from langadapt.training.step import Stepper

PAGE = Path(__file__).resolve().parent.parent / "docs" / "models.md"
KINDS = sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
SIZE = 420
TEXTS = [line[: 20 + 7 * n] for n, line in enumerate(GERMAN)] * 4
SETTINGS: dict[str, Any] = {
    "sequence_length": 64,
    "batch_sequences": 4,
    "micro_batch": 2,
    "steps": 2,
    "log_every": 1,
    "checkpoint_minutes": None,
    "device": "cpu",
    "threads": 1,
    "stale_every": 0,
}
ASSISTANT = {"text_config": {"hidden_size_per_layer_input": 0, "vocab_size_per_layer_input": 0}}
SECTIONS: dict[str, dict[str, Any]] = {
    "gemma4_assistant": ASSISTANT,
    "gemma4_unified_assistant": ASSISTANT,
}
"""Of configurations whose defaults contradict each other."""
NOISE = 0.03
"""Of a loss in bf16, beside fp32."""


@dataclass(frozen=True)
class Row:
    """One class."""

    kind: str
    name: str
    swap: str = "not tried"
    """``swapped``, ``refused`` or ``not tried``."""
    training: str = ""
    """``packed`` or ``rows``, as documents were kept apart, ``refused``, or empty where there was nothing to train."""
    detail: str = ""


class Wrong(Exception):
    """A result that is not what transformers alone says."""


def first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(":")


def build(kind: str, folder: Path) -> tuple[str, str]:
    """Write a tiny model; returns its class, and why there is none."""
    name = str(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[kind])
    try:
        config = AutoConfig.for_model(kind, **SECTIONS.get(kind, {}))
        shrink(config, kind, SIZE)
        if getattr(config, "is_decoder", None) is False:
            # As the classes ask for themselves: without it they see later tokens, and training refuses them.
            config.is_decoder = True
        with torch.device("meta"):
            skeleton = AutoModelForCausalLM.from_config(config)
        name = type(skeleton).__name__
        size = sum(parameter.numel() for parameter in skeleton.parameters())
        if size > LARGEST:
            return name, f"{size / 1e6:.0f} M parameters where others are tiny"
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
        draw_padding(model)
        with torch.no_grad():
            model(input_ids=torch.arange(24)[None], use_cache=False)
        model.to(torch.bfloat16).save_pretrained(folder)
    except Exception as error:
        return name, f"no tiny model: {first_line(error)}"
    return name, ""


def draw_padding(model: Any) -> None:
    """Give the row of the padding token numbers, too. It comes as zeros, and here the end token is the same one: of a
    text that begins with zeros Gemma 3n's gradient is no number, nor is Gemma 4's, through 30 layers of norms."""
    for module in model.modules():
        if isinstance(module, torch.nn.Embedding) and module.padding_idx is not None:
            torch.nn.init.normal_(module.weight.data[module.padding_idx], std=0.02)


def one_line(error: LangadaptError, folder: Path) -> str:
    if "\n" in str(error):
        raise Wrong(f"a refusal of several lines: {error}")
    return re.sub(r"/\S+/target/tokenizer\.json", "the tokenizer", str(error).removeprefix(f"{folder}: "))


def check_folder(folder: Path) -> Any:
    """The model in a folder, after making sure that it is whole and that its tokenizer is that of `AutoTokenizer`."""
    model, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True, dtype=torch.float32)
    wrong = [key for keys in ("missing_keys", "unexpected_keys", "mismatched_keys") for key in info[keys]]
    if wrong:
        raise Wrong(f"the files do not load: {wrong[:3]}")
    theirs, ours = AutoTokenizer.from_pretrained(folder), Tokenizer.from_pretrained(folder)
    for text in (*TEXTS[:3], "<s>  ä</s>"):
        if theirs(text, add_special_tokens=False).input_ids != ours.encode(text).tolist():
            raise Wrong(f"the tokenizer in {folder.name} is another one for AutoTokenizer")
    named = [(role, getattr(theirs, role), getattr(ours, role)) for role in ("bos_token_id", "eos_token_id")]
    if len(theirs) != ours.vocab_size or any(one != other for _, one, other in named):
        raise Wrong(f"special tokens of {folder.name} are others for AutoTokenizer: {named}")
    check_blocks(model.eval())
    return model


@torch.no_grad()
def check_blocks(model: Any) -> None:
    """Evaluation computes attention in blocks: the same logits, with and without padding."""
    ids = torch.randint(3, 200, (2, 61), generator=torch.Generator().manual_seed(1))
    padded = torch.ones_like(ids)
    padded[0, 40:] = 0
    for mask, seen in ((None, padded >= 0), (padded, padded > 0)):
        # Some models draw: the same for both.
        torch.manual_seed(2)
        expected = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[seen]
        torch.manual_seed(2)
        with patch.object(attention, "BLOCK", 6), attention.in_blocks():
            found = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[seen]
        if not torch.allclose(found, expected, rtol=1e-3, atol=2e-4):
            raise Wrong(f"logits of attention in blocks are off by {float((found - expected).abs().max()):.2g}")


@torch.no_grad()
def loss_alone(model: Any, batch: Any) -> float:
    """Mean loss of a batch by transformers, each document on its own."""
    total = 0.0
    for ids, labels, positions in zip(batch.input_ids, batch.labels, batch.positions, strict=True):
        starts = [*(positions == 0).nonzero()[0], len(ids)]
        for start, end in itertools.pairwise(starts):
            target = torch.as_tensor(labels[start:end])
            if (target == IGNORE).all():
                continue
            logits = model(input_ids=torch.as_tensor(ids[start:end])[None], use_cache=False).logits[0].float()
            total += float(torch.nn.functional.cross_entropy(logits, target, ignore_index=-100, reduction="sum"))
    return total / batch.learnt


def train(folder: Path, store: Path, out: Path) -> tuple[Any, str]:
    """Two steps and an export; the first batch, and how its documents were kept apart."""
    seen, plain = [], Stepper.step

    def noting(self: Any, batch: Any, step: int, **rates: Any) -> None:
        seen.append((batch, self.apart))
        plain(self, batch, step, **rates)

    Stepper.step = noting  # type: ignore[method-assign]
    try:
        train_model(folder, [StoreShare(store, 1, "text")], out, TrainSettings(**SETTINGS), progress=lambda *_: None)
    finally:
        Stepper.step = plain  # type: ignore[method-assign]
    return seen[0]


def check_trained(swapped: Any, out: Path, batch: Any) -> None:
    """The first loss, the exported model and its bits per byte are what transformers alone makes of them."""
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text("utf-8").splitlines()]
    found = next(line["loss"] for line in lines if "loss" in line)
    expected = loss_alone(swapped, batch)
    if not math.isclose(found, expected, abs_tol=NOISE):
        raise Wrong(f"the first loss is {found:.4f}, that of transformers {expected:.4f}")
    check_folder(out / "final")
    model, tokenizer = load_model(out / "final", dtype=torch.float32), Tokenizer.from_pretrained(out / "final")
    bits = measure_bits_per_byte(model.eval(), tokenizer, [TEXTS[1]]).bits_per_byte
    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    ids = torch.tensor([[start, *tokenizer.encode(TEXTS[1]).tolist()]])
    with torch.no_grad():
        logits = model(input_ids=ids, use_cache=False).logits[0, :-1].float()
    nats = torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum").item()
    alone = nats / math.log(2) / len(TEXTS[1].encode())
    if not math.isclose(bits, alone, rel_tol=NOISE):
        raise Wrong(f"{bits:.4f} bits per byte, transformers alone {alone:.4f}")


def without_weights(row: Row, folder: Path) -> Row:
    """What is said of a configuration of which transformers makes no model."""
    folder.mkdir(exist_ok=True)
    try:
        AutoConfig.for_model(row.kind, **SECTIONS.get(row.kind, {})).save_pretrained(folder)
        build_skeleton(folder)
    except LangadaptError as error:
        return replace(row, swap="refused", detail=one_line(error, folder))
    except Exception as error:
        return replace(row, detail=f"transformers has no valid configuration: {first_line(error)}")
    return row


def try_class(kind: str, work: Path) -> Row:
    """Build, swap, load, train, load; what is refused must be so in one line and before anything is written."""
    model, out = work / kind, work / f"{kind}-swapped"
    name, reason = build(kind, model)
    row = Row(kind, name, detail=reason)
    if reason:
        return without_weights(row, model)
    for seen in (work / "source", model):
        # Twice: for models of some types it is another one.
        AutoTokenizer.from_pretrained(seen).save_pretrained(model)
    store = work / "store-target"
    try:
        tables = read_model(model).tables
        row = replace(row, detail=", ".join(f"`{table}`" for table in tables.names))
        try:
            swap_folder(model, work / "target", out, method="mean")
        except LangadaptError as error:
            if "`like: source`" not in str(error):
                raise
            # The way out that it names is gone.
            row = replace(row, detail=f"{row.detail}; its tokenizer must be made like its own (`like: source`)")
            store = work / f"{kind}-store"
            train_bpe(texts=GERMAN, vocab_size=SIZE, like=model, accept_fewer=True).save_pretrained(
                work / f"{kind}-like"
            )
            tokenize_corpus(texts=TEXTS, tokenizer=work / f"{kind}-like", out=store)
            swap_folder(model, work / f"{kind}-like", out, method="mean")
        row = replace(row, swap="swapped")
    except LangadaptError as error:
        row = replace(row, swap="refused", detail=one_line(error, model))
        if out.exists():
            raise Wrong("refused, but something was written") from error
        store, out = work / "store-source", model
    try:
        before = check_folder(out)
    except (ValueError, Wrong):
        # transformers itself does not load some of the refused ones as it has saved them.
        if row.swap == "swapped":
            raise
        return row
    trained = work / f"{kind}-trained"
    try:
        # As before the first stage of a run: in fp32 a leak shows in a model that has learnt nothing, too.
        check_causal(before, torch.device("cpu"), False)
        batch, apart = train(out, store, trained)
    except LangadaptError as error:
        return replace(row, training="refused", detail=f"{row.detail}; training: {one_line(error, out)}")
    check_trained(before, trained, batch)
    return replace(row, training=apart)


def prepare(work: Path) -> None:
    """Tokenizers and stores for all."""
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(1)
    save(byte_level(ENGLISH, SIZE), work / "source", eos_token="<|endoftext|>", bos_token="<|endoftext|>")
    save(metaspace(GERMAN, 440), work / "target", bos_token="<s>", eos_token="</s>", pad_token="<pad>")
    for side in ("source", "target"):
        tokenize_corpus(texts=TEXTS, tokenizer=work / side, out=work / f"store-{side}")


def try_all(work: Path, kinds: Iterable[str] = ()) -> list[Row]:
    """All classes, or some; what should not happen at all is a row, too."""
    prepare(work)
    rows = []
    for kind in kinds or KINDS:
        try:
            rows.append(try_class(kind, work))
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{Path(where.filename).name}:{where.lineno}"
            text = f"{type(error).__name__} at {place}: {first_line(error)}"
            rows.append(Row(kind, str(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[kind]), "FAILED", "FAILED", text))
        sys.stderr.write(f"{line(rows[-1])}\n")
        for folder in work.glob(f"{kind}*"):
            shutil.rmtree(folder)
    return rows


def line(row: Row) -> str:
    """A row of the table."""
    detail = re.sub(r"\s+", " ", row.detail.replace("|", "/"))
    return f"| `{row.kind}` | {row.name} | {row.swap} | {row.training or '-'} | {detail} |"


def page(rows: list[Row]) -> str:
    """The table for people."""
    swaps, trainings = Counter(row.swap for row in rows), Counter(row.training for row in rows)
    both = sum(row.swap == "swapped" and row.training in ("packed", "rows") for row in rows)
    head = f"""# Models

Every causal class of transformers {transformers.__version__}, made tiny from its own configuration with random
weights, swapped to another tokenizer and trained for two steps. Swapped: the files load again, with nothing missing and
nothing left over, with the tokenizer that `AutoTokenizer` sees. Packed: documents of a window are kept apart by
position ids; rows: the class ignores them or has a recurrent state, and each document gets a row of its own. Either way
the first loss is that of each document alone, the export loads again, and its bits per byte are those that transformers
computes. Refused: one line, and nothing written. Made by `python tests/models_zoo.py`.

Of {len(rows)} classes {both} can be swapped and trained. Swap: {swaps["swapped"]} swapped, {swaps["refused"]} refused,
{swaps["not tried"]} not tried. Training: {trainings["packed"]} packed, {trainings["rows"]} rows, {trainings["refused"]}
refused.

| model type | class | swap | training | tables by token id, or why not |
|---|---|---|---|---|
"""
    return head + "\n".join(map(line, rows)) + "\n"


def with_others(rows: list[Row]) -> str:
    """The page with some rows anew and the others as they are in it."""
    found = {row.kind: row for row in map(parse, PAGE.read_text("utf-8").splitlines()) if row is not None}
    found |= {row.kind: row for row in rows}
    return page([found[kind] for kind in KINDS])


def parse(text: str) -> Row | None:
    """The row of a line, if it is one."""
    if not text.startswith("| `"):
        return None
    kind, name, swap, training, detail = text.strip().strip("| ").split(" | ", 4)
    return Row(kind.strip("`"), name, swap, training.replace("-", ""), detail)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        made = try_all(Path(folder), sys.argv[1:])
    PAGE.write_text(with_others(made) if sys.argv[1:] else page(made), encoding="utf-8")
