"""The finished model's tokenizer: the adapted one, with the instruct model's template, end tokens and markers."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateSyntaxError

from langadapt.errors import ConfigError
from langadapt.tokenizer.blueprint import added_token
from langadapt.tokenizer.encoder import Tokenizer
from langadapt.tokenizer.files import CONFIG_FILE, TEMPLATE_FILES, TOKENIZER_FILE, json_bytes
from langadapt.tokenizer.roles import tokenizer_config
from langadapt.tokenizer.templates import chat_templates, template_files

logger = logging.getLogger(__name__)

ROLES = ("bos_token", "eos_token", "pad_token")
"""What the instruct model decides; how unknown text is written is the tokenizer's own matter."""


@dataclass(frozen=True)
class FinishedTokens:
    """A tokenizer that can speak in an instruct model's template."""

    tokenizer: Tokenizer
    added: dict[str, int]
    """Tokens that the adapted tokenizer lacked, and their ids behind its own."""
    notes: list[str]
    """What a user should know."""


def finished_tokens(adapted: Tokenizer, instruct: Tokenizer, base: Tokenizer | None) -> FinishedTokens:
    """The adapted tokenizer with template, roles and markers of the instruct model.

    Args:
        adapted: the adapted model's.
        instruct: the instruct model's.
        base: the base model's: a role that the instruct model has left as it was stays the adapted tokenizer's too.

    Raises:
        ConfigError: the instruct model has no chat template.
    """
    templates = templates_of(instruct)
    text = "\n".join(templates.values())
    needed = [token for _, token, _, _ in instruct.added_tokens() if token and token in text]
    roles: dict[str, str] = {}
    for role in ROLES:
        wanted, own = instruct.special_token(role), adapted.special_token(role)
        if wanted is None:
            continue
        unchanged = base is not None and base.special_token(role) == wanted
        keeps_own = own is not None and unchanged and adapted.token_to_id(wanted) is None and wanted not in needed
        roles[role] = own if keeps_own and own is not None else wanted
    lacking = dict.fromkeys(
        token for token in (*needed, *roles.values()) if adapted.token_to_id(token) is None and token is not None
    )
    added = {token: adapted.vocab_size + at for at, token in enumerate(lacking)}
    notes = [f"{len(added)} tokens of the template were added to the vocabulary: {', '.join(added)}"] if added else []
    files = {**without_templates(adapted, roles, instruct, added), **template_files(templates)}
    return FinishedTokens(Tokenizer(with_added(adapted, instruct, added), files, adapted.name), added, notes)


def templates_of(instruct: Tokenizer) -> dict[str, str]:
    """Chat templates by name.

    Raises:
        ConfigError: there are none, or one is no Jinja.
    """
    templates = chat_templates(instruct.companions)
    if not templates:
        raise ConfigError(
            f"{instruct.name}: no chat template beside this tokenizer; name an instruct model that has one "
            "(chat_template.jinja, or `chat_template` in tokenizer_config.json)"
        )
    writer = instruct.to_transformers()
    for name, template in templates.items():
        try:
            writer.apply_chat_template([{"role": "user", "content": "?"}], chat_template=template, tokenize=False)
        except TemplateSyntaxError as error:
            raise ConfigError(
                f"{instruct.name}: its chat template `{name}` is no Jinja (line {error.lineno}: {error.message})"
            ) from None
        except Exception as error:
            # A template may refuse this turn and take others.
            logger.debug("%s: %s", instruct.name, error)
    return templates


def with_added(adapted: Tokenizer, instruct: Tokenizer, added: Mapping[str, int]) -> bytes:
    """The adapted ``tokenizer.json`` with more added tokens, flagged as in the instruct model's.

    They stand in the vocabulary too: otherwise readers number them behind it, whatever the file says.
    """
    if not added:
        return adapted.definition
    definition = json.loads(adapted.definition)
    flags = {entry["content"]: entry for entry in json.loads(instruct.definition).get("added_tokens") or ()}
    for token, id in added.items():
        entry = {key: value for key, value in flags.get(token, added_token(token)).items() if key != "id"}
        definition["added_tokens"].append({"id": id, **entry, "normalized": False})
        vocabulary = definition["model"]["vocab"]
        if isinstance(vocabulary, dict):
            vocabulary[token] = id
        else:
            vocabulary.append([token, 0.0])
    return json.dumps(definition, ensure_ascii=False).encode()


def without_templates(
    adapted: Tokenizer, roles: Mapping[str, str], instruct: Tokenizer, added: Mapping[str, int]
) -> dict[str, bytes]:
    """The adapted tokenizer's other files with new roles, without templates of its own."""
    config: dict[str, Any] = {**tokenizer_config(adapted.companions, adapted.name), **roles}
    config.pop("chat_template", None)
    listed = config.get("added_tokens_decoder")
    if isinstance(listed, dict):
        special = {token: special for _, token, special, _ in instruct.added_tokens()}
        for token, id in added.items():
            listed[str(id)] = {**added_token(token, special=special.get(token, True))}
    stale = (TOKENIZER_FILE, CONFIG_FILE, "special_tokens_map.json", "added_tokens.json")
    kept = {
        name: content
        for name, content in adapted.companions.items()
        if name not in stale and not name.startswith(TEMPLATE_FILES)
    }
    return {**kept, CONFIG_FILE: json_bytes(config)}


def counterpart_ids(base: Mapping[str, int], instruct: Mapping[str, int]) -> dict[int, int]:
    """The instruct model's id of each of the base's: of the same name, else the same id where both names are alone.

    Reserved tokens get a name and a use in instruct models, and keep their place.
    """
    by_id = {id: name for name, id in instruct.items()}
    found: dict[int, int] = {}
    for name, id in base.items():
        if name in instruct:
            found[id] = instruct[name]
        elif id in by_id and by_id[id] not in base:
            found[id] = id
    return found
