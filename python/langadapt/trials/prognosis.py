"""Whether a recipe's swap may pay, said before anything is spent: what it saves, and what the model can do already."""

from __future__ import annotations

from pathlib import Path

from langadapt.corpus.documents import read_documents
from langadapt.evaluation.knowledge import affordable_bytes, measure_knowledge
from langadapt.progress import Progress
from langadapt.recipe.recipe import Recipe
from langadapt.swap.report import prognosis
from langadapt.trials.cutting import MODELS_OWN, Trial

ABOUT = " (of a small vocabulary from a sample, so at least about so)"


def prognosis_of(recipe: Recipe, trials: list[Trial], *, progress: Progress | None = None) -> str | None:
    """A sentence on a recipe that trains a tokenizer, for a model that lies in a folder; none for others.

    The model is run on both languages where that takes no more than half a minute; where it takes longer, the sentence
    ends with how to have it done.
    """
    own = next((one for one in trials if one.name == MODELS_OWN), None)
    new = next((one for one in trials if one.is_chosen), None)
    if own is None or new is None:
        return None
    gains = {
        language: 1 - after / before
        for language, before in own.tokens_per_word.items()
        if before and (after := new.tokens_per_word[language])
    }
    if "target" not in gains:
        return None
    most = affordable_bytes(Path(recipe.model))
    known = {}
    if most:
        texts = {side: recipe.corpus.paths_of(side) for side in ("target", "source")}
        documents = {
            name: read_documents(inputs, text_field=recipe.corpus.text_field)
            for name, inputs in texts.items()
            if inputs
        }
        known = measure_knowledge(recipe.model, recipe.model, documents, most_bytes=most, progress=progress)
    cost = -gains["source"] if "source" in gains else None
    text = prognosis(gains["target"], cost, known, about=ABOUT)
    if not most:
        text += f" What {recipe.model} can do already is not weighed: running it here takes too long."
    elif "source" not in known:
        text += " With text of the source language (corpus.source), what the model can do already would be weighed."
    return text
