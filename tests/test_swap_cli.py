"""`langadapt vectors train` and `langadapt swap`, as typed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from sample_tokenizers import ENGLISH, GERMAN, byte_level, metaspace, save
from tiny import tiny_llama
from transformers import AutoModelForCausalLM, AutoTokenizer

from langadapt import Tokenizer, tokenize_corpus
from langadapt.cli.main import main
from langadapt.errors import ConfigError
from langadapt.swap.files import swap_folder
from langadapt.swap.loaded import swap_tokenizer


def run(*arguments: object) -> int:
    """Exit code of a command."""
    with pytest.raises(SystemExit) as raised:
        main([str(argument) for argument in arguments])
    return int(raised.value.code or 0)


def tiny_model(folder: Path, tokenizer: Path) -> Path:
    tiny_llama(vocab_size=420).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tokenizer).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("swap")
    save(byte_level(ENGLISH, 420), folder / "source", eos_token="<|endoftext|>", bos_token="<|endoftext|>")
    save(metaspace(GERMAN, 420), folder / "target", bos_token="<s>", eos_token="</s>", pad_token="<pad>")
    tiny_model(folder / "model", folder / "source")
    tokenize_corpus(iter(GERMAN * 20), Tokenizer.from_pretrained(folder / "target"), folder / "store")
    (folder / "de.txt").write_text("\n".join(GERMAN), encoding="utf-8")
    assert (
        run("vectors", "train", folder / "store", "--out", folder / "v.safetensors", "--dim", 16, "--threads", 1) == 0
    )
    return folder


def test_a_swap_from_vectors_to_from_pretrained(work, capsys) -> None:
    vectors, out = work / "v.safetensors", work / "out"
    command = ("swap", work / "model", "--tokenizer", work / "target", "--vectors", vectors)
    assert run(*command, "--out", out, "--text", work / "de.txt") == 0
    printed = capsys.readouterr().out
    assert "Prognosis good: " in printed
    assert "rows combined" in printed
    assert AutoModelForCausalLM.from_pretrained(out).config.vocab_size == 512
    assert AutoTokenizer.from_pretrained(out).eos_token == "</s>"


def test_a_dry_run_prints_json_and_writes_nothing(work, capsys) -> None:
    before = sorted(work.iterdir())
    assert run("swap", work / "model", "--tokenizer", work / "target", "--method", "mean", "--dry-run", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["rows_after"] == 512
    assert report["prognosis"].startswith("Prognosis open: ")
    command = ("swap", work / "model", "--tokenizer", work / "target", "--method", "mean", "--dry-run", "--json")
    texts = ("--text", work / "de.txt", "--source-text", work / "de.txt")
    assert run(*command, *texts) == 0
    told = json.loads(capsys.readouterr().out)
    # The model has learnt neither.
    assert told["known"]["target"] == told["known"]["source"] > 1 and "less to win" in told["prognosis"]
    assert run(*command, *texts, "--no-measure") == 0
    assert json.loads(capsys.readouterr().out)["known"] == {}
    assert sorted(work.iterdir()) == before


def test_methods_with_files_of_their_own(work) -> None:
    command = ("swap", work / "model", "--tokenizer", work / "target")
    helper = tiny_model(work / "helper", work / "target")
    assert run(*command, "--method", "clp", "--helper", helper, "--out", work / "clp") == 0
    words = {"en": [f"w{i}" for i in range(60)] + ["house"], "de": [f"w{i}" for i in range(60)] + ["Haus"]}
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(61, 8, generator=generator)
    for language, names in words.items():
        lines = (" ".join([name, *(f"{x:.4f}" for x in row)]) for name, row in zip(names, values.tolist(), strict=True))
        (work / f"{language}.vec").write_text("\n".join(lines))
    (work / "pairs.txt").write_text("\n".join(f"w{i} w{i}" for i in range(60)))
    files = (work / "en.vec", work / "de.vec", work / "pairs.txt")
    assert run(*command, "--method", "wechsel", "--words", *files, "--out", work / "wechsel") == 0


def test_errors_are_one_line(work, capsys) -> None:
    command = ("swap", work / "model", "--tokenizer", work / "target")
    assert run(*command, "--method", "mean") == 2
    assert "--dry-run" in capsys.readouterr().err
    assert run(*command, "--dry-run") == 2
    assert "langadapt vectors train" in capsys.readouterr().err
    assert run(*command, "--method", "fokus", "--dry-run") == 2
    assert (
        run("swap", work / "model", "--tokenizer", work / "source", "--vectors", work / "v.safetensors", "--dry-run")
        == 1
    )
    message = capsys.readouterr().err
    assert "of another tokenizer" in message
    assert "Traceback" not in message


def test_rows_without_a_source_are_a_note(work, capsys) -> None:
    for method, said in (("random", 1), ("subword_mean", 0)):
        command = ("swap", work / "model", "--tokenizer", work / "target", "--method", method, "--dry-run", "--json")
        assert run(*command) == 0
        notes = json.loads(capsys.readouterr().out)["notes"]
        assert sum("rows have no source" in note and "embeddings_first_steps" in note for note in notes) == said


def test_doubts_about_the_model_s_own_tokenizer_are_notes(work, capsys) -> None:
    """Nothing says for sure that a tokenizer is a model's own; rows that it never uses and other ids make one doubt."""
    command = ("swap", work / "model", "--tokenizer", work / "target", "--method", "mean", "--dry-run", "--json")
    assert run(*command) == 0
    notes = json.loads(capsys.readouterr().out)["notes"]
    assert [note for note in notes if "420 embedding rows but its tokenizer only 366 ids" in note] == notes
    assert run(*command, "--source-tokenizer", work / "target") == 0
    report = json.loads(capsys.readouterr().out)
    assert any("config.json has bos_token_id 0, the model's tokenizer 1" in note for note in report["notes"])
    assert report["copied"] == report["overlap"]["tokens"]


def test_a_full_disk_is_told_before_the_work(work, capsys, monkeypatch) -> None:
    room = shutil.disk_usage(work)._replace(free=5000)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: room)
    before = sorted(work.iterdir())
    monkeypatch.setattr("langadapt.vectors.cbow._core.train_cbow", None)
    assert run("vectors", "train", work / "store", "--out", work / "w.safetensors", "--dim", 16) == 1
    assert "w.safetensors: no room: 0.0 MB are needed" in capsys.readouterr().err
    monkeypatch.setattr("langadapt.swap.files.new_folder", None)
    command = ("swap", work / "model", "--tokenizer", work / "target", "--method", "mean", "--out", work / "full")
    assert run(*command) == 1
    assert "full: no room: " in capsys.readouterr().err
    assert sorted(work.iterdir()) == before


def test_options_of_earlier_releases_are_taken_with_a_note(work, capsys) -> None:
    command = ("swap", work / "model", "--tokenizer", work / "target", "--method", "subword_mean", "--out")
    assert run(*command, work / "new", "--scale-rows") == 0
    assert "Note" not in capsys.readouterr().err
    assert run(*command, work / "old", "--calibrate") == 0
    assert "`--calibrate` is called `--scale-rows` now" in capsys.readouterr().err
    new, old = ((work / name / "model.safetensors").read_bytes() for name in ("new", "old"))
    assert new == old
    report = swap_folder(work / "model", work / "target", work / "same", method="subword_mean", calibrate=True)
    assert (work / "same" / "model.safetensors").read_bytes() == new
    assert report.rows_after == 512
    with pytest.raises(
        ConfigError, match="unknown option `pad_to_multiple` of a swap; did you mean `pad_to_multiple_of`"
    ):
        swap_folder(work / "model", work / "target", work / "none", pad_to_multiple=8)
    with pytest.raises(ConfigError, match="unknown option `quux` of a swap; there are method, output_method"):
        swap_tokenizer(None, None, None, quux=1)
