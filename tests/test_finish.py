"""Chat back after the swap: exact at both ends of the scale, better than before and than any random step."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from finish_kit import (
    MARKERS,
    SPECIAL,
    TEMPLATE,
    conversations,
    fresh_base,
    in_format,
    perturbed,
    plain,
    save,
    tokenizer_of,
    train,
)
from safetensors.torch import load_file, save_file
from sample_tokenizers import ENGLISH, GERMAN
from test_swap_memory import peak_growth, sparse_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from langadapt.errors import ConfigError, DataError
from langadapt.finish import finish_folder
from langadapt.finish.replies import check_replies, replies
from langadapt.finish.sweep import best_scale
from langadapt.models.folder import load_model
from langadapt.pipeline.dry_run import stages
from langadapt.pipeline.generation import generate
from langadapt.recipe.recipe import Recipe
from langadapt.swap.files import swap_folder
from langadapt.swap.rows.kept import MOST_ENTRIES, read_plans, shortened
from langadapt.swap.rows.plan import RowPlan
from langadapt.tokenizer.encoder import Tokenizer


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def bits_of(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.view(torch.uint8)


@dataclass
class Family:
    base: Path
    instruct: Path
    adapted: Path
    swapped: Path


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Family:
    """Untrained: the instruct model is the base and noise, with a template; the adapted one has a German tokenizer."""
    folder = tmp_path_factory.mktemp("family")
    base = fresh_base(folder / "base", tokenizer_of(ENGLISH, 400), dtype="bfloat16")
    model = AutoModelForCausalLM.from_pretrained(base)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.01 * torch.randn(parameter.shape)
    model.generation_config.eos_token_id = Tokenizer.from_pretrained(base).token_to_id("<|im_end|>")
    instruct = save(model, Tokenizer.from_pretrained(base), folder / "instruct", TEMPLATE)
    config = json.loads((instruct / "tokenizer_config.json").read_text())
    (instruct / "tokenizer_config.json").write_text(json.dumps(config | {"eos_token": "<|im_end|>"}))
    tokenizer_of(GERMAN, 420).save_pretrained(folder / "german")
    swap_folder(base, folder / "german", folder / "swapped", method="subword_mean")
    return Family(base, instruct, folder / "swapped", folder / "swapped")


@pytest.mark.parametrize("method", ["residual", "lep", "elchat"])
def test_scale_0_is_the_adapted_model_bit_by_bit(family: Family, tmp_path: Path, method: Any) -> None:
    finish_folder(family.adapted, family.instruct, tmp_path / "out", base=family.base, method=method, scale=0)
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == (family.adapted / "model.safetensors").read_bytes()


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_the_same_tokenizer_and_scale_1_are_the_instruct_model_bit_by_bit(
    tmp_path: Path, tied: bool, dtype: torch.dtype
) -> None:
    tokenizer = tokenizer_of(ENGLISH, 400)
    base = fresh_base(tmp_path / "base", tokenizer, tie_word_embeddings=tied)
    model = load_model(base, dtype=dtype)
    save(model, tokenizer, base)
    with torch.no_grad():
        for parameter in model.parameters():
            # Differences of all sizes, signs of zero, and steps that float32 alone would round.
            parameter += torch.randn(parameter.shape).to(dtype) * 10.0 ** torch.randint(-6, 1, parameter.shape)
            parameter.view(-1)[:3] = torch.tensor([-0.0, 1e-30, 3e4])
    instruct = save(model, tokenizer, tmp_path / "instruct", TEMPLATE)
    swap_folder(base, base, tmp_path / "swapped", method="mean", pad_to_multiple_of=1)
    monkeyed = pytest.MonkeyPatch()
    monkeyed.setattr("langadapt.finish.job.check_kin", lambda *_: None)
    finish_folder(tmp_path / "swapped", instruct, tmp_path / "out", base=base, scale=1)
    monkeyed.undo()
    made, wanted = tensors(tmp_path / "out"), tensors(instruct)
    assert made.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert torch.equal(bits_of(made[name]), bits_of(tensor)), name


def test_rows_get_the_difference_of_what_they_were_made_of(family: Family, tmp_path: Path) -> None:
    report = finish_folder(family.adapted, family.instruct, tmp_path / "out", base=family.base, scale=0.5)
    base, instruct, adapted, out = (
        {name: tensor.double() for name, tensor in tensors(folder).items()}
        for folder in (family.base, family.instruct, family.adapted, tmp_path / "out")
    )
    plans = read_plans(family.swapped)
    assert plans is not None
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        weights = np.zeros((len(adapted[name]), len(base[name])))
        for row in range(len(plans.input)):
            span = slice(plans.input.starts[row], plans.input.starts[row + 1])
            # A piece may be there twice.
            np.add.at(weights[row], plans.input.ids[span], plans.input.weights[span])
        wanted = adapted[name] + 0.5 * torch.from_numpy(weights) @ (instruct[name] - base[name])
        assert torch.allclose(out[name], wanted, rtol=2**-8, atol=1e-6)
    assert report.rows["combined"] > 50
    assert report.rows["own"] > 250
    body = "model.layers.0.mlp.up_proj.weight"
    assert torch.allclose(out[body], adapted[body] + 0.5 * (instruct[body] - base[body]), rtol=2**-8, atol=1e-6)


def test_body_of_the_methods_that_go_towards_the_instruct_model(family: Family, tmp_path: Path) -> None:
    body, rows = "model.layers.1.self_attn.q_proj.weight", "model.embed_tokens.weight"
    residual = finish_folder(family.adapted, family.instruct, tmp_path / "r", base=family.base, scale=1)
    finish_folder(family.adapted, family.instruct, tmp_path / "l", base=family.base, method="lep", scale=1)
    finish_folder(family.adapted, family.instruct, tmp_path / "e", method="elchat", scale=1)
    instruct, adapted = tensors(family.instruct), tensors(family.adapted)
    lep, elchat = tensors(tmp_path / "l"), tensors(tmp_path / "e")
    assert torch.equal(lep[body], instruct[body])
    assert torch.equal(elchat[body], instruct[body])
    assert torch.equal(lep[rows], tensors(tmp_path / "r")[rows])
    source, target = (Tokenizer.from_pretrained(folder) for folder in (family.instruct, family.adapted))
    marker = target.token_to_id(MARKERS[1])
    assert torch.equal(elchat[rows][marker], instruct[rows][source.token_to_id(MARKERS[1])])
    ordinary = target.token_to_id("e")
    assert torch.equal(elchat[rows][ordinary], adapted[rows][ordinary])
    assert residual.notes == []


def test_template_end_tokens_and_generation_come_from_the_instruct_model(family: Family, tmp_path: Path) -> None:
    finish_folder(family.adapted, family.instruct, tmp_path / "out", base=family.base, scale=1)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert tokenizer.eos_token == "<|im_end|>"
    assert tokenizer.bos_token == SPECIAL["bos_token"]
    assert json.loads((tmp_path / "out" / "generation_config.json").read_text())["eos_token_id"] == end
    assert json.loads((tmp_path / "out" / "config.json").read_text())["eos_token_id"] == end
    messages = [{"role": "user", "content": "Das Haus"}]
    theirs = AutoTokenizer.from_pretrained(family.instruct).apply_chat_template(messages, tokenize=False)
    assert tokenizer.apply_chat_template(messages, tokenize=False) == theirs
    assert load_model(tmp_path / "out").config.vocab_size == len(tensors(tmp_path / "out")["lm_head.weight"])


@pytest.mark.parametrize("own", [None, [0, 1]], ids=str)
def test_replies_end_whatever_the_instruct_model_says_of_it(family: Family, tmp_path: Path, own: Any) -> None:
    """Without a generation config of its own the adapted model's would end them where documents do."""
    instruct, adapted = tmp_path / "instruct", tmp_path / "adapted"
    shutil.copytree(family.instruct, instruct)
    shutil.copytree(family.adapted, adapted)
    document_end = Tokenizer.from_pretrained(adapted).eos_token_id
    (adapted / "generation_config.json").write_text(json.dumps({"eos_token_id": document_end, "top_k": 7}))
    if own is None:
        (instruct / "generation_config.json").unlink()
    else:
        (instruct / "generation_config.json").write_text(json.dumps({"eos_token_id": own}))
    finish_folder(adapted, instruct, tmp_path / "out", base=family.base, scale=1)
    end = AutoTokenizer.from_pretrained(tmp_path / "out").convert_tokens_to_ids("<|im_end|>")
    content = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    if own is None:
        assert (content["eos_token_id"], content["top_k"]) == (end, 7)
    else:
        assert content["eos_token_id"][0] == end and document_end in content["eos_token_id"]


def test_weights_that_are_no_numbers_are_named(family: Family, tmp_path: Path) -> None:
    instruct = tmp_path / "instruct"
    shutil.copytree(family.instruct, instruct)
    broken = {name: tensor * float("nan") for name, tensor in load_file(instruct / "model.safetensors").items()}
    save_file(broken, instruct / "model.safetensors", {"format": "pt"})
    with pytest.raises(DataError, match="holds numbers that are not finite"):
        finish_folder(family.adapted, instruct, tmp_path / "out", base=family.base, scale=1)
    with pytest.raises(DataError, match="no numbers; its weights are damaged"):
        generate(instruct, "x", max_tokens=2)


@pytest.mark.parametrize("rows", [1, 128])
def test_markers_that_the_new_vocabulary_lacks_are_added(family: Family, tmp_path: Path, rows: int) -> None:
    """Into padding rows, or, where there are none, behind the table."""
    tokenizer_of(GERMAN, 420, markers=False).save_pretrained(tmp_path / "german")
    swap_folder(family.base, tmp_path / "german", tmp_path / "swapped", method="subword_mean", pad_to_multiple_of=rows)
    report = finish_folder(tmp_path / "swapped", family.instruct, tmp_path / "out", base=family.base, scale=0.5)
    assert report.rows["added"] == 2
    tokenizer = Tokenizer.from_pretrained(tmp_path / "out")
    source = Tokenizer.from_pretrained(family.instruct)
    made, instruct = tensors(tmp_path / "out"), tensors(family.instruct)
    for marker in MARKERS:
        id = tokenizer.token_to_id(marker)
        assert tokenizer.encode(f"a{marker}b").tolist().count(id) == 1
        for name in ("model.embed_tokens.weight", "lm_head.weight"):
            assert torch.equal(made[name][id], instruct[name][source.token_to_id(marker)])
    assert (
        tokenizer.encode("Das Haus").tolist()
        == Tokenizer.from_pretrained(tmp_path / "german").encode("Das Haus").tolist()
    )
    assert load_model(tmp_path / "out").get_input_embeddings().weight.shape[0] % 128 == 0
    assert AutoTokenizer.from_pretrained(tmp_path / "out").convert_tokens_to_ids(MARKERS[0]) == tokenizer.token_to_id(
        MARKERS[0]
    )


def test_without_kept_weights_pieces_carry_the_difference(family: Family, tmp_path: Path) -> None:
    (tmp_path / "adapted").mkdir()
    for file in family.adapted.iterdir():
        if file.name != "swap_rows.npz":
            (tmp_path / "adapted" / file.name).write_bytes(file.read_bytes())
    report = finish_folder(tmp_path / "adapted", family.instruct, tmp_path / "out", base=family.base, scale=1)
    finish_folder(family.adapted, family.instruct, tmp_path / "kept", base=family.base, scale=1)
    assert "keeps no weights" in report.notes[0]
    # The swap was by the mean of pieces, so that both come to the same.
    name = "model.embed_tokens.weight"
    assert torch.equal(tensors(tmp_path / "out")[name], tensors(tmp_path / "kept")[name])


def test_an_instruct_model_of_another_base_is_refused_by_its_tensors(family: Family, tmp_path: Path) -> None:
    tokenizer = tokenizer_of(ENGLISH, 400)
    other = fresh_base(tmp_path / "other", tokenizer, intermediate_size=96)
    (other / "chat_template.jinja").write_text(TEMPLATE)
    with pytest.raises(ConfigError, match=r"`model.layers.0.mlp.down_proj.weight` is \[64, 128\]"):
        finish_folder(family.adapted, other, tmp_path / "out", base=family.base, scale=1)
    model = load_model(family.base)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.06)
    unrelated = save(model, tokenizer, tmp_path / "unrelated", TEMPLATE)
    with pytest.raises(ConfigError, match=r"weights point elsewhere, least alike \(cosine\): `model.layers"):
        finish_folder(family.adapted, unrelated, tmp_path / "out", base=family.base, scale=1)
    assert not (tmp_path / "out").exists()


def test_buffers_that_older_releases_stored_are_no_difference(family: Family, tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(family.base, base)
    tensors = load_file(base / "model.safetensors")
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(8)
    save_file(tensors, base / "model.safetensors", {"format": "pt"})
    for folder, out in ((family.base, "expected"), (base, "out")):
        finish_folder(family.adapted, family.instruct, tmp_path / out, base=folder, scale=1)
    found, expected = (load_file(tmp_path / out / "model.safetensors") for out in ("out", "expected"))
    assert found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in found)


def test_other_mistakes_are_said_in_words(family: Family, tmp_path: Path) -> None:
    arguments = {"base": family.base, "scale": 1}
    with pytest.raises(ConfigError, match="no chat template beside this tokenizer"):
        finish_folder(family.adapted, family.base, tmp_path / "out", **arguments)
    shutil.copytree(family.instruct, tmp_path / "torn")
    (tmp_path / "torn" / "chat_template.jinja").write_text("{% for one in messages %}\n{{ one.content }")
    with pytest.raises(ConfigError, match=r"its chat template `default` is no Jinja \(line 2: unexpected '}'\)"):
        finish_folder(family.adapted, tmp_path / "torn", tmp_path / "out", **arguments)
    with pytest.raises(ConfigError, match="needs the model that the adapted"):
        finish_folder(family.adapted, family.instruct, tmp_path / "out", scale=1)
    with pytest.raises(ConfigError, match="scale: -1"):
        finish_folder(family.adapted, family.instruct, tmp_path / "out", base=family.base, scale=-1)
    with pytest.raises(ConfigError, match="held-out text"):
        finish_folder(family.adapted, family.instruct, tmp_path / "out", base=family.base)
    with pytest.raises(ConfigError, match="would replace"):
        finish_folder(family.adapted, family.instruct, family.base, **arguments)


def test_dense_rows_keep_their_largest_weights_and_their_sum() -> None:
    generator = np.random.default_rng(0)
    lengths = np.array([3, 1000, 0, 1])
    starts = np.concatenate([[0], np.cumsum(lengths)])
    weights = generator.random(starts[-1]).astype(np.float32)
    plan = RowPlan(starts, np.arange(starts[-1]), weights)
    short = shortened(plan)
    assert np.diff(short.starts).tolist() == [3, MOST_ENTRIES, 0, 1]
    kept = short.ids[short.starts[1] : short.starts[2]]
    assert set(kept) == set(3 + np.argsort(-weights[3:1003])[:MOST_ENTRIES])
    assert np.isclose(short.weights[3 : 3 + MOST_ENTRIES].sum(), weights[3:1003].sum(), rtol=1e-5)
    assert np.array_equal(short.weights[:3], weights[:3])


def test_a_model_on_disk_is_never_in_memory(tmp_path: Path) -> None:
    """Three models of 0.4 GB whose tensors are holes in their files."""
    tokenizer_of(ENGLISH, 420).save_pretrained(tmp_path / "source")
    tokenizer_of(GERMAN, 440).save_pretrained(tmp_path / "target")
    for name in ("base", "instruct"):
        (tmp_path / name).mkdir()
        matrix = sparse_model(tmp_path / name, 8192)
        Tokenizer.from_pretrained(tmp_path / "source").save_pretrained(tmp_path / name)
    (tmp_path / "instruct" / "chat_template.jinja").write_text(TEMPLATE)
    swap_folder(tmp_path / "base", tmp_path / "target", tmp_path / "swapped", method="subword_mean")
    grown = peak_growth(
        lambda: finish_folder(
            tmp_path / "swapped", tmp_path / "instruct", tmp_path / "out", base=tmp_path / "base", scale=0.5
        )
    )
    # A tensor, float32 blocks of three.
    assert grown < 4 * matrix + 300e6
    assert (tmp_path / "out" / "model.safetensors").stat().st_size > 300e6


def row(scale: float, good: float, **bits: float) -> dict[str, Any]:
    return {"scale": scale, "bits_per_byte": bits, "replies": {"good": good}}


def test_the_rule_of_the_sweep() -> None:
    start = row(0, 1.0, target=1.0, source=2.0)
    half, whole = row(0.5, 0.9, target=1.1, source=1.8), row(1.0, 0.93, target=1.3, source=1.7)
    assert best_scale([start, half, whole]) == 0.5  # alike in replies, cheaper in bits
    assert best_scale([start, row(0.5, 0.5, target=1.0, source=1.0), whole]) == 1.0
    assert best_scale([start, row(0.5, 0.9, target=float("nan"), source=1.0), whole]) == 1.0


@pytest.mark.slow
def test_a_format_learnt_by_instruction_survives_swap_and_training(tmp_path: Path) -> None:
    """Base -> instruct by a format task; base -> German with another tokenizer; then the two together."""
    base = fresh_base(tmp_path / "start", tokenizer_of(ENGLISH + GERMAN[:4], 400))
    base = train(base, tmp_path / "base", plain(ENGLISH) + plain(GERMAN[:2]), steps=150, rate=3e-3)
    instruct = train(base, tmp_path / "instruct", conversations(), steps=250, rate=2e-3, template=TEMPLATE)
    set_end(instruct)
    tokenizer_of(GERMAN, 460).save_pretrained(tmp_path / "german")
    swap_folder(base, tmp_path / "german", tmp_path / "swapped", method="subword_mean")
    adapted = train(tmp_path / "swapped", tmp_path / "adapted", plain(GERMAN), steps=60, rate=1e-3)
    random = perturbed(base, instruct, tmp_path / "random")
    (random / "chat_template.jinja").write_text(TEMPLATE)
    set_end(random)
    accuracies = {}
    for name, tuned, scale in (("before", instruct, 0), ("finished", instruct, 1), ("random", random, 1)):
        out = tmp_path / f"out-{name}"
        finish_folder(adapted, tuned, out, base=base, swapped=tmp_path / "swapped", scale=scale)
        accuracies[name] = format_accuracy(out)
    assert format_accuracy(instruct) > 0.7
    assert accuracies["finished"] > 0.5
    assert accuracies["before"] == 0
    assert accuracies["random"] == 0
    report = finish_folder(
        adapted,
        instruct,
        tmp_path / "auto",
        base=base,
        swapped=tmp_path / "swapped",
        texts={"target": GERMAN, "source": ENGLISH},
        device="cpu",
    )
    good = {one["scale"]: one["replies"]["good"] for one in report.sweep}
    assert good[report.scale] > good[0.0] + 0.2
    assert format_accuracy(tmp_path / "auto") > 0.4


def set_end(folder: Path) -> None:
    """The turn's end is the end token, as instruct models have it."""
    for name, key, value in (
        ("tokenizer_config.json", "eos_token", "<|im_end|>"),
        ("generation_config.json", "eos_token_id", Tokenizer.from_pretrained(folder).token_to_id("<|im_end|>")),
    ):
        content = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(content | {key: value}))


def format_accuracy(folder: Path) -> float:
    """Of replies to words that no conversation of the training had in this order."""
    model, tokenizer = load_model(folder, dtype=torch.float32), Tokenizer.from_pretrained(folder)
    turns = [line.split("user\n")[1].split("<|im_end|>")[0] for line in conversations(seed=7, count=24)]
    said = [tokenizer.decode(one, skip_special_tokens=True) for one in replies(model, tokenizer, turns, 48)]
    assert check_replies(model, tokenizer, turns[:4], new_tokens=48).count == 4
    return sum(map(in_format, said)) / len(said)


def test_damaged_weights_of_a_swap_are_named(family: Family, tmp_path: Path) -> None:
    (tmp_path / "swap_rows.npz").write_bytes((family.swapped / "swap_rows.npz").read_bytes()[:40])
    with pytest.raises(DataError, match=r"swap_rows.npz: damaged"):
        read_plans(tmp_path)


@pytest.mark.slow
def test_a_recipe_ends_in_chat_and_a_wrong_instruct_model_is_refused_first(family: Family, tmp_path: Path) -> None:
    from langadapt.pipeline.run import adapt
    from langadapt.recipe.plain_values import build
    from langadapt.recipe.recipe import Recipe

    texts = Path(__file__).parent / "texts"
    recipe = {
        "name": "chat",
        "model": str(family.base),
        "out": str(tmp_path / "run"),
        "corpus": {
            "target": [str(texts / "german.jsonl")],
            "source": [str(texts / "english.jsonl")],
            "validation_bytes": 4000,
        },
        "tokenizer": {"vocab_size": 420},
        "swap": {"method": "subword_mean"},
        "train": {"steps": 2, "sequence_length": 64, "batch_sequences": 2, "micro_batch": 2, "device": "cpu"},
        "evaluate": {"bytes_while_training": 500},
        "finish": {"instruct": str(family.instruct), "scale": 0.5},
    }
    found = adapt(build(Recipe, recipe, ""))
    assert [row["phase"] for row in found["rows"]] == ["source", "swapped", "trained", "finished"]
    chat = tmp_path / "run" / "finished"
    assert json.loads((chat / "finish.json").read_text())["scale"] == 0.5
    assert AutoTokenizer.from_pretrained(chat).eos_token == "<|im_end|>"
    # The vocabulary was trained by a style of its own, without the markers of the template.
    assert json.loads((chat / "finish.json").read_text())["rows"]["added"] == 2
    other = fresh_base(tmp_path / "other", tokenizer_of(ENGLISH, 400), intermediate_size=96)
    (other / "chat_template.jinja").write_text(TEMPLATE)
    wrong = {**recipe, "out": str(tmp_path / "none"), "finish": {"instruct": str(other)}}
    with pytest.raises(ConfigError, match="not made from"):
        adapt(build(Recipe, wrong, ""))
    assert not (tmp_path / "none" / "corpus").exists()


def test_command(family: Family, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from langadapt.cli.main import app

    arguments = ["finish", str(family.adapted), "--base", str(family.base), "--instruct", str(family.instruct)]
    result = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "out"), "--scale", "0.5"])
    assert result.exit_code == 0, result.output
    assert "`residual` at scale 0.5" in result.output.replace("\n", " ")
    assert isinstance(CliRunner().invoke(app, arguments).exception, ConfigError)
    wrong = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "out"), "--scale", "much"])
    assert isinstance(wrong.exception, ConfigError)


def test_a_dry_run_names_the_stages_of_a_chat_for_the_recipes_own_method(tmp_path: Path) -> None:
    settings = {"name": "r", "out": str(tmp_path), "model": "m", "corpus": {"target": ["t"]}, "compare": ["random"]}
    recipe = Recipe.from_dict({**settings, "finish": {"instruct": "i"}})
    found = list(stages(recipe))
    assert [stage for stage in found if "finish" in stage] == ["finish", f"evaluate-{recipe.swap.method}-finished"]
    assert found.index("finish") == found.index(f"evaluate-{recipe.swap.method}-trained") + 1
