"""The source model as the teacher of replayed text: what it expects of the next word, instead of the word that came.

Two tokenizers cut a text differently, so two distributions over the next token seldom speak of the same thing. They do
where both have cut at the same place before a word and the next token of the old one begins with the next token of the
new one. There the old distribution is carried over token by token, each to the new token that its text begins with, and
is learnt in place of the token by Kullback-Leibler divergence. All other places are learnt as ever.

Cost: a forward pass of the source model over replayed windows, which is held beside the trained one in its precision
(whole, on every GPU); memory for the two distributions of :data:`CHUNK` places at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from langadapt.errors import ConfigError
from langadapt.models.folder import load_model
from langadapt.tokenizer.alignment import Alignment
from langadapt.tokenizer.encoder import Tokenizer
from langadapt.tokenizer.vocabulary import Vocabulary, read_vocabulary
from langadapt.training.data.batches import IGNORE
from langadapt.training.data.mixture import load_tokenizer
from langadapt.training.data.rows import Part
from langadapt.training.job import OldModel, TrainingJob
from langadapt.training.model import no_bars
from langadapt.training.settings import TrainSettings

CHUNK = 256
"""Places whose distributions are held at once."""

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class SoftLabels:
    """What the teacher says of some places of a micro-batch."""

    places: Tensor
    """``[n]``: in the flattened micro-batch."""
    logits: Tensor
    """``[n, old vocabulary]``."""
    carry: Tensor
    """``[old vocabulary]``: the new token of each old one, -1 for none."""

    def loss(self, student: Callable[[Tensor], Tensor], vocabulary: int) -> Tensor:
        """Sum over places of the divergence from the teacher; ``student``: logits of places, ``[n, vocabulary]``."""
        total = torch.zeros((), device=self.logits.device)
        for places, logits in zip(self.places.split(CHUNK), self.logits.split(CHUNK), strict=True):
            total = total + checkpoint(self.divergence, student, places, logits, vocabulary, use_reentrant=False)
        return total

    def divergence(
        self, student: Callable[[Tensor], Tensor], places: Tensor, logits: Tensor, vocabulary: int
    ) -> Tensor:
        """Of a few places: KL(carried teacher | student), in nats."""
        known = self.carry >= 0
        old = torch.softmax(logits.float(), dim=1)[:, known]
        wanted = torch.zeros(len(places), vocabulary, device=old.device).index_add_(1, self.carry[known], old)
        wanted = wanted / wanted.sum(dim=1, keepdim=True)
        found = torch.log_softmax(student(places).float(), dim=1)
        return torch.nn.functional.kl_div(found, wanted, reduction="sum")


class Teacher:
    """The frozen source model, its tokenizer, and how its tokens are carried to the new ones."""

    def __init__(self, old: OldModel, tokenizer: Any, settings: TrainSettings, device: torch.device) -> None:
        """``tokenizer``: of the stores that are trained on."""
        dtype = torch.bfloat16 if settings.precision == "pure-bf16" else torch.float32
        with no_bars():
            self.model = load_model(old.folder, dtype=dtype).to(device).eval().requires_grad_(False)
        own, new = read_vocabulary(Tokenizer.from_pretrained(old.folder)), read_vocabulary(tokenizer)
        self.alignment, self.device, self.replayed = Alignment(own, new), device, old.replayed
        self.start = own.roles.get("bos", own.roles.get("eos"))
        self.carried = carried(own, new, self.model.get_output_embeddings().weight.shape[0])
        self.carry = torch.from_numpy(self.carried).to(device)

    @classmethod
    def wanted(cls, job: TrainingJob, tokenizer: Any, device: torch.device) -> Teacher | None:
        """The teacher that a job asks for, if it does."""
        if job.settings.replay_loss != "kl" or job.old is None:
            return None
        tokenizer = tokenizer if tokenizer is not None else load_tokenizer(None, job.model)
        if tokenizer is None:
            raise ConfigError("replay_loss: kl: nobody says what the stores' tokens spell; pass `tokenizer`")
        return cls(job.old, tokenizer, job.settings, device)

    @torch.no_grad()
    def teach(self, part: Part, names: Sequence[str]) -> tuple[SoftLabels | None, Part]:
        """As the function `teach`."""
        places, logits, labels = [], [], part.labels.copy()
        for row, source in enumerate(part.sources.tolist()):
            if names[source] not in self.replayed:
                continue
            for start, ids in pieces(part.input_ids[row], part.labels[row], part.positions[row]):
                shared = self.shared_words(ids)
                if shared is None or not len(shared[0]):
                    continue
                mine, theirs, text = shared
                places.append(row * labels.shape[1] + start + mine)
                at = torch.from_numpy(theirs).to(self.device)
                window = torch.from_numpy(text)[None].to(self.device)
                logits.append(self.model(window, use_cache=False, logits_to_keep=at).logits[0])
        if not places:
            return None, part
        flat = np.concatenate(places)
        labels.reshape(-1)[flat] = IGNORE
        soft = SoftLabels(torch.from_numpy(flat).to(self.device), torch.cat(logits), self.carry)
        return soft, replace(part, labels=labels)

    def shared_words(self, ids: Integers) -> tuple[Integers, Integers, Integers] | None:
        """Places in a piece of text after which both tokenizers begin a word alike: in ``ids``, in the old tokens with
        their start token, and these tokens. The piece's last token is a label alone."""
        cuts = self.alignment.cuts(ids)
        if cuts is None:
            return None
        keep = cuts.before_word & (cuts.new + 1 < len(ids)) & (cuts.old + 1 < len(cuts.tokens))
        new, old = cuts.new[keep], cuts.old[keep]
        alike = self.carried[cuts.tokens[old + 1]] == ids[new + 1]
        start = [] if self.start is None else [self.start]
        return new[alike], old[alike] + len(start), np.concatenate([np.array(start, np.int64), cuts.tokens])


def teach(teacher: Teacher | None, part: Part, names: Sequence[str]) -> tuple[SoftLabels | None, Part]:
    """What a teacher, if there is one, says of a pass, and the pass without the labels of these places.

    ``names``: of the mixture's sources.
    """
    return (None, part) if teacher is None else teacher.teach(part, names)


def carried(old: Vocabulary, new: Vocabulary, rows: int) -> Integers:
    """The new token that each old token's text begins with, -1 for special tokens and rows without a token."""
    found = np.full(rows, -1, np.int64)
    same = new.names == old.names
    for token, (text, kind) in enumerate(zip(old.texts, old.kinds, strict=True)):
        if same:
            found[token] = token
        elif kind != "special" and text:
            found[token] = next(iter(new.pieces(text)), -1)
    return found


def pieces(inputs: Integers, labels: Integers, positions: Integers) -> Iterator[tuple[int, Integers]]:
    """(place, tokens with the last label) of each piece of text in a window; padding is none."""
    starts = np.flatnonzero(positions == 0)
    for start, stop in zip(starts, [*starts[1:], len(positions)], strict=True):
        if labels[stop - 1] != IGNORE:
            yield int(start), np.append(inputs[start:stop], labels[stop - 1])
