"""A tokenizer's folder: the view of it is that of `AutoTokenizer`, and no file of it is lost on any path."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from sample_tokenizers import ENGLISH, GERMAN, byte_level, save
from typer.testing import CliRunner

from langadapt import Tokenizer, build_corpus, extend_tokenizer, train_bpe
from langadapt.cli.main import app
from langadapt.errors import ConfigError, DataError
from langadapt.tokenizer.files import TOKENIZER_FILES, read_files
from langadapt.tokenizer.templates import chat_templates
from langadapt.tokenizer.vocabulary import read_vocabulary

CHAT = [{"role": "user", "content": "x"}]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save(byte_level(ENGLISH, 300, ("<s>", "</s>")), tmp_path / "t", bos_token="<s>", eos_token="</s>")


def change(folder: Path, name: str = "tokenizer_config.json", **fields: Any) -> None:
    file = folder / name
    content = json.loads(file.read_text()) if file.is_file() else {}
    file.write_text(json.dumps({key: value for key, value in {**content, **fields}.items() if value is not None}))


def flags(content: str, **changed: bool) -> dict[str, Any]:
    kept = dict.fromkeys(("lstrip", "rstrip", "normalized", "single_word"), False)
    return {"content": content, **kept, "special": True, **changed}


def in_decoder(folder: Path) -> None:
    change(folder, added_tokens_decoder={"300": flags("<|im_end|>"), "301": flags("<|im_start|>")})
    change(folder, eos_token="<|im_end|>")


def in_added_tokens_alone(folder: Path) -> None:
    change(folder, "added_tokens.json", **{"<|im_end|>": 300, "<tool>": 301})


def in_a_list(folder: Path) -> None:
    change(folder, extra_special_tokens=["<|im_end|>", "<image>"])


def in_the_old_list(folder: Path) -> None:
    change(folder, "special_tokens_map.json", additional_special_tokens=["<|im_end|>"])


def in_the_map(folder: Path) -> None:
    change(folder, "added_tokens.json", **{"<|im_end|>": 300})
    change(folder, "special_tokens_map.json", eos_token="<|im_end|>")


def ignored_map(folder: Path) -> None:
    entries = json.loads((folder / "tokenizer.json").read_text())["added_tokens"]
    change(folder, added_tokens_decoder={str(entry.pop("id")): entry for entry in entries})
    change(folder, "special_tokens_map.json", eos_token="<s>")


def of_a_piece(folder: Path) -> None:
    change(folder, eos_token="Ġthe")


def with_other_flags(folder: Path) -> None:
    change(folder, added_tokens_decoder={"0": flags("<s>", lstrip=True), "1": flags("</s>")})


@pytest.mark.parametrize(
    "name_tokens",
    [
        in_decoder,
        in_added_tokens_alone,
        in_a_list,
        in_the_old_list,
        in_the_map,
        ignored_map,
        of_a_piece,
        with_other_flags,
    ],
)
def test_ids_specials_and_length_are_those_of_transformers(folder: Path, tmp_path: Path, name_tokens: Any) -> None:
    from transformers import AutoTokenizer

    name_tokens(folder)
    theirs = AutoTokenizer.from_pretrained(folder)
    ours = Tokenizer.from_pretrained(folder)
    ours.save_pretrained(tmp_path / "copy")
    text = "the house<s> by <|im_end|> the <tool>river</s>"
    for one in (ours, Tokenizer.from_pretrained(tmp_path / "copy")):
        assert len(one) == len(theirs)
        assert (one.bos_token_id, one.eos_token_id) == (theirs.bos_token_id, theirs.eos_token_id)
        added = theirs.added_tokens_decoder
        assert one.special_token_ids == {id for id, token in added.items() if token.special}
        assert one.encode(text).tolist() == theirs(text, add_special_tokens=False)["input_ids"]
    assert AutoTokenizer.from_pretrained(tmp_path / "copy").get_vocab() == theirs.get_vocab()
    assert read_vocabulary(folder).ids == theirs.get_vocab()


def test_a_whole_file_is_taken_to_the_byte(folder: Path) -> None:
    assert Tokenizer.from_pretrained(folder).definition == (folder / "tokenizer.json").read_bytes()


@pytest.mark.parametrize("name", ["tokenizer_config.json", "special_tokens_map.json"])
def test_a_special_token_that_does_not_exist_is_an_error(folder: Path, name: str) -> None:
    change(folder, name, eos_token="<|nowhere|>")
    with pytest.raises(DataError, match=r"eos_token is '<\|nowhere\|>', which is no token") as caught:
        Tokenizer.from_pretrained(folder)
    assert str(folder) in str(caught.value)


def fill(folder: Path) -> set[str]:
    """All files that a tokenizer may have."""
    extra = {"tokenizer.model": b"m", "spiece.model": b"s", "vocab.txt": b"v", "vocab.json": b"{}", "merges.txt": b"#"}
    extra |= {"chat_template.jinja": b"{{ messages[0].content }}", "chat_template.json": b"{}"}
    extra |= {"additional_chat_templates/tool_use.jinja": b"TOOLS", "added_tokens.json": b"{}"}
    extra |= {"special_tokens_map.json": b'{"bos_token": "<s>"}'}
    (folder / "additional_chat_templates").mkdir()
    for name, content in extra.items():
        (folder / name).write_bytes(content)
    return {"tokenizer.json", "tokenizer_config.json", *extra}


def names(folder: Path) -> set[str]:
    return {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}


def test_every_file_survives_a_copy_and_none_of_another_tokenizer_stays(folder: Path, tmp_path: Path) -> None:
    known = fill(folder)
    assert {name.split("/")[0] for name in known} == set(TOKENIZER_FILES)
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "model.safetensors").write_bytes(b"other")
    Tokenizer.from_pretrained(folder).save_pretrained(tmp_path / "copy")
    assert names(tmp_path / "copy") == known | {"model.safetensors"}
    for name, content in read_files(folder).items():
        assert (tmp_path / "copy" / name).read_bytes() == content
    train_bpe(iter(GERMAN), 300, accept_fewer=True).save_pretrained(tmp_path / "copy")
    assert names(tmp_path / "copy") == {"tokenizer.json", "tokenizer_config.json", "model.safetensors"}


def test_a_tokenizer_is_replaced_as_a_whole(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new, out = byte_level(["alt"], 260), Tokenizer.from_pretrained(folder), tmp_path / "out"
    Tokenizer(old.to_str().encode()).save_pretrained(out)
    (out / "id_map.json").write_text("[]")
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    write = Path.write_bytes

    def interrupted(path: Path, data: bytes) -> int:
        if path.name == "tokenizer_config.json":
            raise KeyboardInterrupt
        return write(path, data)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", interrupted)
        with pytest.raises(KeyboardInterrupt):
            new.save_pretrained(out)
        assert {path.name: path.read_bytes() for path in out.iterdir()} == before
        # Beside somebody's files there is no tokenizer until the new one is whole.
        (out / "notes.txt").write_text("mine")
        with pytest.raises(KeyboardInterrupt):
            new.save_pretrained(out)
        assert not (out / "tokenizer.json").exists() and (out / "notes.txt").read_text() == "mine"
    new.save_pretrained(out)
    assert Tokenizer.from_pretrained(out).fingerprint == new.fingerprint and not (out / "id_map.json").exists()


@pytest.mark.parametrize("change", [["trim"], ["extend", "--new-tokens", "5"], ["train", "--vocab-size", "280"]])
def test_no_command_replaces_what_it_reads_or_another_thing(folder: Path, tmp_path: Path, change: list[str]) -> None:
    text, corpus = tmp_path / "text.jsonl", tmp_path / "corpus"
    text.write_text("".join(json.dumps({"text": line}) + "\n" for line in ENGLISH), encoding="utf-8")
    build_corpus([str(text)], corpus)
    verb, *options = change
    before, manifest = read_files(folder), (corpus / "manifest.json").read_bytes()
    for out, problem in ((folder, "would replace"), (corpus, "holds what `corpus` made")):
        inputs = ["--like", str(folder), str(text)] if verb == "train" else [str(folder), str(text)]
        result = CliRunner().invoke(app, ["tokenizer", verb, *inputs, *options, "--out", str(out)])
        assert isinstance(result.exception, ConfigError) and problem in str(result.exception), result.output
    assert read_files(folder) == before and (corpus / "manifest.json").read_bytes() == manifest
    result = CliRunner().invoke(app, ["tokenizer", verb, *inputs, *options, "--out", str(tmp_path / "new")])
    assert result.exit_code == 0, result.exception


def test_every_file_survives_a_swap_and_a_training(folder: Path, tmp_path: Path) -> None:
    import torch
    from tiny import tiny_llama

    from langadapt.swap import swap_folder
    from langadapt.training.model import export

    target = save(byte_level(GERMAN, 320, ("<s>", "</s>")), tmp_path / "target", bos_token="<s>", eos_token="</s>")
    known = fill(target)
    model = tiny_llama(vocab_size=300)
    model.to(torch.bfloat16).save_pretrained(tmp_path / "model")
    Tokenizer.from_pretrained(folder).save_pretrained(tmp_path / "model")
    swap_folder(tmp_path / "model", target, tmp_path / "swapped", method="mean")
    assert known <= names(tmp_path / "swapped")
    state = {name: value.detach() for name, value in model.named_parameters()}
    export(model, state, tmp_path / "by_files", target, tokenizer=None)
    export(model, state, tmp_path / "by_object", None, tokenizer=Tokenizer.from_pretrained(target))
    assert known <= names(tmp_path / "by_files") and known <= names(tmp_path / "by_object")


def list_in_config(folder: Path) -> None:
    entries = [{"name": "default", "template": "OWN {{ messages[0].content }}"}, {"name": "tools", "template": "T"}]
    change(folder, chat_template=entries)


def text_in_config(folder: Path) -> None:
    change(folder, chat_template="OWN {{ messages[0].content }}")


def jinja_file(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("OWN {{ messages[0].content }}")
    change(folder, chat_template="hidden by the file")


def jinja_folder(folder: Path) -> None:
    jinja_file(folder)
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tools.jinja").write_text("T")


FORMS = [list_in_config, text_in_config, jinja_file, jinja_folder]


@pytest.mark.parametrize("form", FORMS)
def test_templates_of_every_form(folder: Path, tmp_path: Path, form: Any) -> None:
    from transformers import AutoTokenizer

    form(folder)
    theirs = AutoTokenizer.from_pretrained(folder).chat_template
    own = Tokenizer.from_pretrained(folder)
    assert chat_templates(own.companions) == ({"default": theirs} if isinstance(theirs, str) else theirs)
    bare = Tokenizer(own.definition)
    carried, notes = bare.with_templates_of(own)
    assert all("was kept" in note for note in notes) and len(notes) == len(chat_templates(own.companions))
    for tokenizer in (carried, train_bpe(iter(GERMAN), 280, like=own), extend_tokenizer(own, iter(GERMAN), 3)):
        tokenizer.save_pretrained(tmp_path / "out")
        assert AutoTokenizer.from_pretrained(tmp_path / "out").chat_template == theirs
    # A target that has some keeps its own alone.
    kept, notes = own.with_templates_of(Tokenizer(own.definition, {"chat_template.jinja": b"OTHER"}))
    assert kept.companions == own.companions and not notes


WRONG: dict[str, Any] = {
    "eos_token": 2,
    "bos_token": ["<s>"],
    "extra_special_tokens": 5,
    "additional_special_tokens": {"a": 5},
    "added_tokens_decoder": [1],
    "tokenizer_class": 5,
    "model_max_length": "512",
    "chat_template": 5,
}


@pytest.mark.parametrize("name", WRONG)
def test_fields_that_transformers_does_not_read_are_named(folder: Path, name: str) -> None:
    change(folder, **{name: WRONG[name]})
    with pytest.raises(DataError, match=name) as caught:
        Tokenizer.from_pretrained(folder)
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "entry", [["a"], [{"name": "default"}], [{"name": 5, "template": "x"}], {"default": "x"}], ids=str
)
@pytest.mark.parametrize("name", ["tokenizer_config.json", "chat_template.json"])
def test_what_is_no_template_is_named(folder: Path, name: str, entry: Any) -> None:
    change(folder, name, chat_template=entry)
    with pytest.raises(DataError, match=f"the chat_template in the {name} beside it is no template"):
        Tokenizer.from_pretrained(folder)


def test_a_template_that_is_no_text_is_named(folder: Path) -> None:
    (folder / "chat_template.jinja").write_bytes(b"\xff\xfe{")
    with pytest.raises(DataError, match=r"the chat_template\.jinja beside it is no text in UTF-8"):
        Tokenizer.from_pretrained(folder)


def test_words_and_merges_alone_are_a_tokenizer_for_every_command(folder: Path, tmp_path: Path) -> None:
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    (tmp_path / "old").mkdir()
    change(tmp_path / "old", tokenizer_class="GPT2Tokenizer", eos_token="</s>", bos_token="<s>", unk_token="<s>")
    (tmp_path / "old" / "vocab.json").write_text(json.dumps(model["vocab"]))
    (tmp_path / "old" / "merges.txt").write_text("\n".join(" ".join(pair) for pair in model["merges"]))
    (tmp_path / "text.txt").write_text("\n".join(ENGLISH))
    run = [str(tmp_path / "old"), str(tmp_path / "text.txt"), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, ["tokenizer", "trim", *run])
    assert result.exit_code == 0, result.exception
    assert len(Tokenizer.from_pretrained(tmp_path / "out")) <= len(model["vocab"])


def test_an_added_token_without_a_text_goes(folder: Path) -> None:
    definition = json.loads((folder / "tokenizer.json").read_text())
    definition["added_tokens"].append({**definition["added_tokens"][0], "id": 300, "content": ""})
    (folder / "tokenizer.json").write_text(json.dumps(definition))
    extended = extend_tokenizer(Tokenizer.from_pretrained(folder), iter(GERMAN), 3)
    assert [token for _, token, _, _ in extended.added_tokens()] == ["<s>", "</s>"]


def test_a_template_that_needs_lacking_tokens_is_left_out_by_name(folder: Path) -> None:
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tools.jinja").write_text("</s> {{ messages }}")
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    target = Tokenizer(byte_level(GERMAN, 280, ("<s>",)).to_str().encode())
    carried, notes = target.with_templates_of(Tokenizer.from_pretrained(folder))
    assert list(chat_templates(carried.companions)) == ["default"]
    assert notes[1] == "the chat template `tools` was left out: the new tokenizer lacks </s>"
