"""Models without weights, on the meta device: what a configuration makes of classes, names and shapes."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from langadapt.errors import DataError
from langadapt.models.folder import check_whole, readable


def build_skeleton(folder: Path, *, trust_remote_code: bool = False) -> tuple[Any, Any]:
    """The configuration in a folder, and its causal LM on the meta device: classes and names, no weights.

    Raises:
        DataError: there is no configuration, or transformers cannot make a model of it.
    """
    if not (folder / "config.json").is_file():
        raise DataError(f"{folder}: no config.json; this is no model folder")
    check_whole(folder)
    with readable(folder), torch.device("meta"):
        config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
        # In bfloat16: grouped products of experts have no other meta kernel.
        options = {"dtype": torch.bfloat16, "trust_remote_code": trust_remote_code}
        return config, AutoModelForCausalLM.from_config(config, **options)


@dataclass(frozen=True)
class LoadedNames:
    """What transformers' loading makes of names in the files: prefixes of base models and of text towers, renamings of
    single architectures."""

    same: dict[str, str]
    """Names in the files to names in the model, of tensors that are loaded as they are."""
    computed: frozenset[str]
    """Names in the files that loading computes with, such as experts that it joins."""
    complete: bool
    """Whether ``same`` alone is all that a whole model needs."""


def loaded_names(skeleton: Any, stored: Iterable[str]) -> LoadedNames:
    """What becomes of tensors; those that loading skips are in neither part.

    Args:
        skeleton: the model, weights not needed.
        stored: names of tensors in its files.
    """
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter, WeightRenaming, dot_natural_key, rename_source_key

    transforms = get_model_conversion_mapping(skeleton)
    renamings = [transform for transform in transforms if isinstance(transform, WeightRenaming)]
    converters = [transform for transform in transforms if isinstance(transform, WeightConverter)]
    prefix, state = skeleton.base_model_prefix, skeleton.state_dict()
    names, computed = {}, set()
    # Some renamings keep a state and count on this order.
    for key in sorted(stored, key=dot_natural_key):
        name, converter = rename_source_key(key, renamings, converters, prefix, state)
        if name not in state and key in state:
            name, converter = rename_source_key(key, [], [], prefix, state)
        if converter is not None:
            computed.add(key)
        elif name in state:
            names[key] = name
    return LoadedNames(names, frozenset(computed), not converters)


def model_names(skeleton: Any, stored: Iterable[str]) -> dict[str, str]:
    """Names in the files to names in the model, without tensors that loading computes with or skips."""
    return loaded_names(skeleton, stored).same


def skeleton_of(model: Any) -> Any:
    """A model of the same class and configuration without weights, on the meta device.

    In bfloat16, for which grouped products of experts have a meta kernel, and with the attention that transformers
    chooses: what the model was loaded with may need a GPU.
    """
    config = type(model.config).from_dict(copy.deepcopy(model.config.to_dict()))
    with torch.device("meta"):
        return type(model)._from_config(config, dtype=torch.bfloat16)
