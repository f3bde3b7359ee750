"""The acceptance test of tokenizers: good ones pass, and every defect is found by its check."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from tokenizers import AddedToken, models, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as Reference
from tokenizers import decoders as reference_decoders

from langadapt import ConfigError, Tokenizer
from langadapt.tokenizer.check import Finding, check_tokenizer
from langadapt.tokenizer.samples import CODE, PROSE

CONFIG = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}


def build(config: dict[str, object] | None = None, **changes: object) -> Tokenizer:
    """A byte-level tokenizer with nothing wrong, but for ``changes`` to its file."""
    reference = Reference(models.BPE())
    digits, spaces = pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)
    reference.pre_tokenizer = pre_tokenizers.Sequence([digits, spaces])
    reference.decoder = reference_decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=["<s>", "</s>", "<pad>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    reference.train_from_iterator([*PROSE, *CODE] * 2 + ["    a\n        b\n"] * 5, trainer)
    plain = json.loads(reference.to_str()) | changes
    return Tokenizer(
        json.dumps(plain).encode(), {"tokenizer_config.json": json.dumps(CONFIG | (config or {})).encode()}, "made"
    )


def found(tokenizer: Tokenizer, check: str, **arguments: object) -> Finding:
    findings = {finding.check: finding for finding in check_tokenizer(tokenizer, **arguments)}  # type: ignore[arg-type]
    return findings[check]


def test_nothing_wrong() -> None:
    for finding in check_tokenizer(build()):
        assert finding.status in {"ok", "skipped"}, finding


def test_ids_of_transformers() -> None:
    assert found(build(), "transformers").status == "ok"
    flags = dict.fromkeys(("lstrip", "rstrip", "single_word", "special"), False)
    twins = [{"id": 420 + n, "content": text, "normalized": True, **flags} for n, text in enumerate(("Foo", "foo"))]
    finding = found(build(added_tokens=twins, normalizer={"type": "Lowercase"}), "transformers")
    assert finding.status == "failed" and "'Foo' and 'foo' are the same to its normalizer" in finding.detail
    drawn = build()
    model = {**json.loads(drawn.definition)["model"], "dropout": 0.5}
    drawn = build(model=model)
    assert "`dropout`" in found(drawn, "transformers").detail
    # Here nothing is drawn.
    assert len({tuple(drawn.encode("and the house of the river")) for _ in range(10)}) == 1
    other = found(build({"tokenizer_class": "GemmaTokenizer"}), "transformers")
    assert other.status == "failed" and other.detail.startswith("transformers cannot encode with it: ")


def test_words_without_digits_and_pieces() -> None:
    reference = Reference(models.WordLevel({"<unk>": 0, "a": 1}, unk_token="<unk>"))
    assert found(Tokenizer(reference.to_str().encode()), "digits").status == "warning"


def test_a_normalizer_loses_text() -> None:
    finding = found(build(normalizer={"type": "NFKC"}), "round trip")
    assert finding.status == "failed"
    assert "comes back as" in finding.detail
    assert found(build(), "round trip", lines=["any line"]).status == "ok"


def test_special_tokens_must_be_there_and_be_found() -> None:
    assert found(build({"eos_token": None}), "special tokens").status == "failed"
    assert found(build({"eos_token": "</end>"}), "special tokens").status == "failed"
    assert found(build({"pad_token": "</s>"}), "special tokens").status == "warning"
    assert found(build({"bos_token": "a"}), "special tokens").status == "warning"
    token = {"id": 0, "content": "<s>", "single_word": True, "lstrip": False, "rstrip": False}
    finding = found(build(added_tokens=[token | {"normalized": False, "special": True}]), "special tokens in text")
    assert finding.status == "failed"
    assert "'<s>'" in finding.detail


def test_template_and_setting_disagree() -> None:
    assert found(build({"add_bos_token": True}), "BOS and EOS").status == "warning"
    template = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]}},
    }
    finding = found(build({"add_bos_token": True}, post_processor=template), "BOS and EOS")
    assert finding.status == "ok"
    assert "before a text <s>" in finding.detail


def test_unreachable_tokens() -> None:
    plain = json.loads(build().definition)
    plain["model"]["vocab"]["zzzz"] = 420
    finding = found(build(model=plain["model"]), "unreachable tokens")
    assert finding.status == "warning"
    assert "'zzzz'" in finding.detail
    plain["model"]["vocab"] |= {f"zzzz{n}": 421 + n for n in range(20)}
    assert found(build(model=plain["model"]), "unreachable tokens").status == "failed"


def test_digits_white_space_and_ascii() -> None:
    reference = Reference(models.BPE(unk_token="<unk>"))
    reference.normalizer = normalizers.Replace(" ", "▁")
    reference.decoder = reference_decoders.Replace("▁", " ")
    trainer = trainers.BpeTrainer(vocab_size=60, special_tokens=["<unk>"], show_progress=False)
    reference.train_from_iterator(["2019 2020 2019 2020 abc def"] * 5, trainer)
    reference.add_special_tokens([AddedToken("</s>", special=True, normalized=False)])
    tokenizer = Tokenizer(reference.to_str().encode())
    findings = {finding.check: finding for finding in check_tokenizer(tokenizer)}
    assert findings["digits"].status == "warning"
    assert findings["code white space"].status == "warning"
    assert findings["printable ASCII"].status == "warning"
    assert "<" in findings["printable ASCII"].detail
    assert findings["round trip"].status == "failed"


def model_folder(folder: Path, tokenizer: Tokenizer, rows: int, **config: object) -> Path:
    tokenizer.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps({"vocab_size": rows, **config}))
    save_file({"model.embed_tokens.weight": np.zeros((rows, 2), np.float16)}, folder / "model.safetensors")
    return folder


def test_against_a_model(tmp_path: Path) -> None:
    tokenizer = build()
    size = tokenizer.vocab_size
    fits = model_folder(tmp_path / "fits", tokenizer, size + 4, bos_token_id=0, eos_token_id=[1, 7])
    assert "4 spare" in found(tokenizer, "model rows", against=fits).detail
    assert found(tokenizer, "model's special tokens", against=fits).status == "ok"
    small = model_folder(tmp_path / "small", tokenizer, size - 1, eos_token_id=5)
    assert found(tokenizer, "model rows", against=small).status == "failed"
    assert found(tokenizer, "model's special tokens", against=small).status == "failed"
    (small / "config.json").write_text(json.dumps({"vocab_size": size}))
    assert found(tokenizer, "model rows", against=small).status == "failed"
    with pytest.raises(FileNotFoundError):
        check_tokenizer(tokenizer, against=tmp_path / "absent")
    (fits / "other.safetensors").write_bytes(b"no part of the model")
    (fits / "config.json").write_text(json.dumps({"vocab_size": "many", "text_config": None}))
    assert "4 spare" in found(tokenizer, "model rows", against=fits).detail
    (fits / "model.safetensors").write_bytes(b"cut")
    assert "model.safetensors: not a safetensors file" in found(tokenizer, "model rows", against=fits).detail


def test_chat_template(tmp_path: Path) -> None:
    loop = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}{% endfor %}"
    with_template = build({"chat_template": loop.replace("<|im_start|>", "<s>")})
    assert found(with_template, "chat template").status == "ok"
    assert found(build({"chat_template": loop}), "chat template").status == "failed"
    assert found(build({"chat_template": "{{ broken"}), "chat template").status == "failed"
    assert found(build({"chat_template": "silent"}), "chat template").status == "failed"
    model = model_folder(tmp_path, with_template, 420)
    lost = found(build(), "chat template", against=model)
    assert lost.status == "failed"
    assert "lost" in lost.detail


def test_gaps_in_the_numbering() -> None:
    plain = json.loads(build().definition)
    plain["model"]["vocab"]["zzzz"] = 1000
    assert found(build(model=plain["model"]), "numbering").status == "warning"


def test_the_defects_of_the_papers_tokenizers(shared: Path) -> None:
    pytest.importorskip("sentencepiece")
    for name, normalized in (("paper-de", True), ("paper-ar", False)):
        tokenizer = Tokenizer.from_pretrained(shared / "tokenizers" / name)
        language = name[-2:]
        lines = (shared / "parallel" / "ntrex" / f"{language}.txt").read_text(encoding="utf-8").splitlines()
        findings = {finding.check: finding for finding in check_tokenizer(tokenizer, lines=lines)}
        assert findings["round trip"].status == "ok"
        parity = findings["SentencePiece parity"]
        assert parity.status == "failed"
        assert "of 1997 texts of given text" in parity.detail
        assert "6 of 6 texts of white space" in parity.detail
        assert findings["special tokens in text"].status == ("failed" if normalized else "ok")
        assert "4 spaces: 4" in findings["code white space"].detail
        assert "<" in findings["printable ASCII"].detail
        assert findings["digits"].status == "ok"


def test_command(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from langadapt.cli.tokenizer import app

    build().save_pretrained(tmp_path / "good")
    build({"eos_token": None}).save_pretrained(tmp_path / "bad")
    build({"pad_token": "</s>"}).save_pretrained(tmp_path / "fair")
    run = CliRunner()
    outcome = run.invoke(app, ["check", str(tmp_path / "good"), "--json"])
    assert outcome.exit_code == 0, outcome.output
    assert json.loads(outcome.stdout)["passed"]
    assert "round trip" in run.invoke(app, ["check", str(tmp_path / "good")]).stdout
    assert run.invoke(app, ["check", str(tmp_path / "bad")]).exit_code == 1
    assert run.invoke(app, ["check", str(tmp_path / "fair")]).exit_code == 0
    assert run.invoke(app, ["check", str(tmp_path / "fair"), "--warnings-fail"]).exit_code == 1
    old = run.invoke(app, ["check", str(tmp_path / "fair"), "--strict"])
    assert old.exit_code == 1 and "`--strict` is called `--warnings-fail` now" in old.output
    (tmp_path / "good" / "config.json").write_text("{}")
    refused = run.invoke(app, ["train", "no.txt", "--vocab-size", "300", "--out", str(tmp_path / "good")])
    assert isinstance(refused.exception, ConfigError) and "holds a model" in str(refused.exception)
