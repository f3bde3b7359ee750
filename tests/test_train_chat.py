"""Training on conversations: what is the assistant's is learnt, nothing else, and the template is the model's own."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny import byte_tokenizer, tiny_llama

from langadapt.cli import main
from langadapt.errors import ConfigError, DataError
from langadapt.evaluation.replies import reply_bits
from langadapt.models.folder import load_model
from langadapt.recipe.recipe import Recipe
from langadapt.tokenizer.conversations import ConversationEncoder, read_conversations
from langadapt.tokenizer.encoder import Tokenizer
from langadapt.tokenizer.templates import DEFAULT_FILE
from langadapt.training import StoreShare, TrainSettings, train_model
from langadapt.training.data.batches import IGNORE, Windows
from langadapt.training.data.conversations import split_conversations, store_conversations

SPECIAL = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "pad_token": "<p>",
    "a_token": "<|im_start|>",
    "b_token": "<|im_end|>",
}
CHATML = (
    "{{ bos_token }}{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MARKED = (
    "{{ bos_token }}{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}{% generation %}"
    "{{ m.content }}<|im_end|>{% endgeneration %}{% else %}{{ m.content }}<|im_end|>{% endif %}\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
FORGETS = CHATML.replace("{{ m.content }}", "{{ m.content if loop.last else m.content.split('</think>')[-1] }}")
TALK = [
    {"role": "user", "content": "Wie heißt du?"},
    {"role": "assistant", "content": "Ich heiße Öl."},
    {"role": "user", "content": "Und wo?"},
    {"role": "assistant", "content": "Hier. "},
]


def tokenizer_with(template: str | None, folder: Path) -> Tokenizer:
    byte_tokenizer(**SPECIAL).save_pretrained(folder)
    if template is not None:
        (folder / DEFAULT_FILE).write_text(template)
    return Tokenizer.from_pretrained(folder)


def write(file: Path, conversations: list[list[dict[str, str]]]) -> Path:
    lines = "".join(json.dumps({"messages": one}) + "\n" for one in conversations)
    file.write_bytes(gzip.compress(lines.encode()) if file.suffix == ".gz" else lines.encode())
    return file


def learnt_texts(tokenizer: Tokenizer, example: Any) -> list[str]:
    """Runs of learnt tokens, as text."""
    bounds = np.flatnonzero(np.diff(np.concatenate([[0], example.learnt.astype(int), [0]])))
    return [tokenizer.decode(example.ids[a:b].tolist()) for a, b in bounds.reshape(-1, 2)]


@pytest.mark.parametrize("template", [CHATML, MARKED])
def test_the_replies_and_what_ends_them_are_learnt(template: str, tmp_path: Path) -> None:
    tokenizer = tokenizer_with(template, tmp_path)
    [example] = ConversationEncoder(tokenizer).encode(TALK)
    whole = tokenizer.to_transformers().apply_chat_template(TALK, tokenize=True, return_dict=False)
    assert example.ids.tolist() == whole
    # Of a template that says nothing of training, white space between the reply and its end is part of neither.
    assert learnt_texts(tokenizer, example) == ["Ich heiße Öl.<|im_end|>", "Hier. <|im_end|>"]


def test_the_template_of_a_processor_is_the_tokenizers_too(tmp_path: Path) -> None:
    own = tokenizer_with(CHATML, tmp_path)
    definition = {"chat_template.json": json.dumps({"chat_template": CHATML}).encode()}
    kept = {name: content for name, content in own.companions.items() if not name.startswith("chat_template")}
    config = json.loads(kept["tokenizer_config.json"])
    config.pop("chat_template", None)
    kept["tokenizer_config.json"] = json.dumps(config).encode()
    tokenizer = Tokenizer(own.definition, kept | definition)
    assert tokenizer.files()["chat_template.jinja"] == CHATML.encode()
    [example] = ConversationEncoder(tokenizer).encode(TALK)
    assert example.ids.tolist() == ConversationEncoder(own).encode(TALK)[0].ids.tolist()


def test_a_template_that_rewrites_earlier_turns_gives_a_document_for_each_reply(tmp_path: Path) -> None:
    tokenizer = tokenizer_with(FORGETS, tmp_path)
    talk = [
        {**one, "content": f"<think>hm</think>{one['content']}"} if one["role"] == "assistant" else one for one in TALK
    ]
    first, second = ConversationEncoder(tokenizer).encode(talk)
    assert learnt_texts(tokenizer, first) == ["<think>hm</think>Ich heiße Öl.<|im_end|>"]
    assert learnt_texts(tokenizer, second) == ["<think>hm</think>Hier. <|im_end|>"]
    assert "<think>" not in tokenizer.decode(second.ids.tolist()).split("Und wo?")[0]


def test_an_end_after_the_last_turn_alone_takes_no_turn_apart(shared: Path) -> None:
    tokenizer = Tokenizer.from_pretrained(shared / "tokenizers/phi-3-mini")
    [example] = ConversationEncoder(tokenizer).encode([*TALK[:3], {"role": "assistant", "content": "  Hier 世界"}])
    assert tokenizer.decode(example.ids.tolist()).count("<|endoftext|>") == 1
    # Its `<|assistant|>` takes the white space after it along, and is not learnt all the same.
    assert learnt_texts(tokenizer, example) == ["Ich heiße Öl.<|end|>", "Hier 世界<|end|><|endoftext|>"]


def test_labels_are_the_replies_alone_in_windows_of_any_length(tmp_path: Path) -> None:
    tokenizer = tokenizer_with(CHATML, tmp_path / "t")
    talks = [[{**one, "content": f"{one['content']}{number}"} for one in TALK] for number in range(9)]
    file = write(tmp_path / "talks.jsonl.gz", talks)
    store = store_conversations([file], tokenizer, tmp_path / "store", held_out=set())
    assert store.learnt is not None and int(store.learnt.sum()) == store.manifest["summary"]["learnt_tokens"]
    for length in (7, 40, 512):
        windows = Windows(store, "chat", length, start=None, end=None, seed=0)
        labels, wanted = [], []
        for window in range(len(windows)):
            ids, targets, positions = (np.empty(length, np.int64) for _ in range(3))
            windows.fill(window, ids, targets, positions)
            found = targets[targets != IGNORE]
            assert len(found) == windows.learnt_per_window[window]
            labels += found.tolist()
        for document in range(len(store)):
            begin, end = store.offsets[document : document + 2].astype(int)
            wanted += store.tokens[begin + 1 : end][store.learnt[begin + 1 : end]].tolist()
        assert sorted(labels) == sorted(wanted)


def test_what_is_not_learnt_gives_no_gradient(tmp_path: Path) -> None:
    tokenizer = tokenizer_with(CHATML, tmp_path / "t")
    after: dict[str, Any] = {}
    for name, reply, farewell in (("a", "eins", "gut"), ("b", "eins", "ach"), ("c", "zwei", "gut")):
        talks = [[{"role": "user", "content": f"{n}?"}, {"role": "assistant", "content": reply}] for n in range(8)]
        # Nothing that is learnt comes after the farewell: it can matter by its own gradient alone.
        file = write(tmp_path / f"{name}.jsonl", [[*talk, {"role": "user", "content": farewell}] for talk in talks])
        store = store_conversations([file], tokenizer, tmp_path / f"store-{name}", held_out=set())
        settings = TrainSettings(
            steps=2, sequence_length=64, batch_sequences=2, micro_batch=1, device="cpu", warmup=0, learning_rate=1e-2
        )
        model = tiny_llama(vocab_size=261, max_position_embeddings=64, initializer_range=0.02)
        out = tmp_path / f"run-{name}"
        train_model(
            model, [StoreShare(store, 1.0, "chat")], out, settings, tokenizer=tokenizer, progress=lambda *_: None
        )
        after[name] = load_file(out / "final" / "model.safetensors")
    # Weight decay and rounding touch rows of tokens that differ in neither run.
    assert all(torch.equal(after["a"][key], after["b"][key]) for key in after["a"])
    assert any(not torch.equal(after["a"][key], after["c"][key]) for key in after["a"])


def test_bits_of_replies_are_those_of_the_learnt_tokens_alone(tmp_path: Path) -> None:
    tokenizer = tokenizer_with(CHATML, tmp_path)
    model = tiny_llama(vocab_size=261, max_position_embeddings=256)
    examples = ConversationEncoder(tokenizer).encode(TALK)
    ids = torch.from_numpy(examples[0].ids.astype("int64"))
    with torch.no_grad():
        nats = torch.nn.functional.cross_entropy(model(ids[None]).logits[0, :-1], ids[1:], reduction="none")
    wanted = float(nats[torch.from_numpy(examples[0].learnt[1:])].double().sum()) / np.log(2) / examples[0].text_bytes
    assert examples[0].text_bytes == len("Ich heiße Öl.<|im_end|>Hier. <|im_end|>".encode())
    assert reply_bits(model, examples, 256) == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("[1]", ":2: no conversation: .*messages"),
        ('{"conversations": [{"from": "human", "value": "x"}]}', "rename `conversations`"),
        ('{"messages": [{"content": "x"}]}', "message 0 has no `role`"),
        ('{"messages": [{"role": "assistant"}]}', "message 0 has no `content`"),
        ('{"messages": [{"role": "user", "content": "x"}]}', "nothing to learn"),
        ("{", ":2: no conversation"),
    ],
)
def test_a_line_that_is_no_conversation_is_named(line: str, said: str, tmp_path: Path) -> None:
    file = write(tmp_path / "talks.jsonl", [TALK])
    file.write_text(file.read_text() + line + "\n")
    with pytest.raises(DataError, match=said):
        split_conversations([file], 0.5, 10)


def test_what_cannot_be_trained_on_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no chat template; `langadapt finish`"):
        ConversationEncoder(tokenizer_with(None, tmp_path / "t"))
    with pytest.raises(ConfigError, match=r"talks.csv: conversations are read from"):
        list(read_conversations(tmp_path / "talks.csv"))
    (tmp_path / "cut.jsonl.gz").write_bytes(write(tmp_path / "w.jsonl.gz", [TALK] * 50).read_bytes()[:-9])
    with pytest.raises(DataError, match=r"cut.jsonl.gz: damaged or truncated"):
        list(read_conversations(tmp_path / "cut.jsonl.gz"))
    with pytest.raises(DataError, match="1 different conversations"):
        split_conversations([write(tmp_path / "same.jsonl", [TALK] * 3)], 0.5, 10)
    refuses = tokenizer_with("{{ raise_exception('roles must alternate') }}", tmp_path / "r")
    with pytest.raises(DataError, match=r"same.jsonl:1: the chat template refuses it: roles must alternate"):
        store_conversations([tmp_path / "same.jsonl"], refuses, tmp_path / "store", held_out=set())
    with pytest.raises(ConfigError, match="`compare` and `finish` are for text"):
        Recipe.from_dict({**recipe_of(tmp_path), "compare": ["random"]})


def langadapt_ends(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main([*arguments])
    return int(ended.value.code or 0)


def recipe_of(folder: Path) -> dict[str, Any]:
    return {
        "name": "chat",
        "model": str(folder / "model"),
        "out": str(folder / "run"),
        "corpus": {"target": [str(folder / "talks.jsonl")], "validation_share": 0.2},
        "train": {
            "data": "chat",
            "steps": 30,
            "sequence_length": 64,
            "batch_sequences": 4,
            "micro_batch": 4,
            "learning_rate": 5e-3,
            "device": "cpu",
        },
    }


def test_a_recipe_trains_on_conversations(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    tokenizer_with(CHATML, tmp_path / "model")
    tiny_llama(vocab_size=261, max_position_embeddings=128, initializer_range=0.05).save_pretrained(tmp_path / "model")
    write(
        tmp_path / "talks.jsonl",
        [[{"role": "user", "content": f"{n} und?"}, {"role": "assistant", "content": f"ja, {n}"}] for n in range(60)],
    )
    (tmp_path / "chat.yaml").write_text(Recipe.from_dict(recipe_of(tmp_path)).to_yaml())
    assert langadapt_ends("adapt", str(tmp_path / "chat.yaml")) == 2
    assert "is for `langadapt train RECIPE`" in capfd.readouterr().err
    assert langadapt_ends("train", str(tmp_path / "chat.yaml")) == 0
    assert f"Next: langadapt generate {tmp_path / 'run'}" in capfd.readouterr().err
    assert langadapt_ends("generate", str(tmp_path / "run"), "--prompt", "ja", "--max-tokens", "2") == 0
    log = [json.loads(line) for line in (tmp_path / "run/trained/chat/log.jsonl").read_text().splitlines()]
    seen = [line["validation"]["bits_per_byte_target"] for line in log if "validation" in line]
    assert seen[-1] < 0.7 * seen[0]
    model = load_model(tmp_path / "run/trained/chat/final", dtype=torch.float32)
    assert model is not None and (tmp_path / "run/trained/chat/final" / DEFAULT_FILE).read_text() == CHATML
