"""README and docs: their code runs, their site builds, their links lead somewhere."""

from __future__ import annotations

import importlib.util
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from tiny import byte_tokenizer, tiny_llama
from typer.testing import CliRunner

from langadapt.cli.main import app
from langadapt.recipe.plain_values import build
from langadapt.recipe.recipe import Recipe

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "kernels" / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]
BLOCK = re.compile(r"(?:<!-- (?P<mark>[^>]*?) -->\n)?^```(?P<kind>\w*)\n(?P<code>.*?)^```$", re.M | re.S)
NOT_RUN = "not run: "
"""Then the reason."""
STAND_INS = "stand-ins: "
"""Then what is exchanged before the block is run: ``32768 = 400, ...``."""
MODEL = "mistralai/Mistral-7B-v0.1"
"""The model of the pages; a small one lies under its name beside the texts."""


@dataclass(frozen=True)
class Block:
    """Code of a page, with what stands about it in a comment before it."""

    kind: str
    code: str
    mark: str
    line: int

    @property
    def runs(self) -> bool:
        """Whether no comment says why not."""
        return not self.mark.startswith(NOT_RUN)


def blocks(page: Path) -> list[Block]:
    """All fenced blocks of a page."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(found["kind"], found["code"], found["mark"] or "", text[: found.start()].count("\n") + 1)
        for found in BLOCK.finditer(text)
    ]


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_block_says_what_it_is(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert text.count("\n```") == 2 * len(blocks(page)), "a fence that does not close"
    for block in blocks(page):
        assert block.kind in ("sh", "python", "yaml", "text"), f"{page}:{block.line}: {block.kind or 'no language'}"
        assert block.runs or len(block.mark) > len(NOT_RUN) + 10, f"{page}:{block.line}: a reason, please"


@pytest.fixture(scope="module")
def stand_ins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the pages name: texts, a model, recipes."""
    folder = tmp_path_factory.mktemp("reader")
    texts = Path(__file__).parent / "texts"
    for language, file in (("german", "german"), ("spanish", "german"), ("english", "english")):
        (folder / "data" / language).mkdir(parents=True)
        lines = (texts / f"{file}.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
        (folder / "data" / language / "text.jsonl").write_text("".join(lines), encoding="utf-8")
    model = folder / MODEL
    tiny_llama(vocab_size=260, max_position_embeddings=256).save_pretrained(model)
    byte_tokenizer(bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="<pad>").save_pretrained(model)
    (folder / "examples").mkdir()
    recipe = {
        "name": "german",
        "model": MODEL,
        "out": "runs/german",
        "target_language": "German",
        "source_language": "English",
        "corpus": {"target": ["data/german"], "source": ["data/english"], "validation_bytes": 5000},
        "tokenizer": {"style": "sentencepiece", "vocab_size": 600},
        "swap": {"method": "subword_mean"},
        "train": {"steps": 2, "sequence_length": 64, "batch_sequences": 2, "micro_batch": 2, "device": "cpu"},
    }
    for name in ("recipe.yaml", "examples/german-mistral-7b.yaml"):
        (folder / name).write_text(yaml.safe_dump(recipe), encoding="utf-8")
    # The fixture's recipe holds as the reader's would.
    assert Recipe.from_yaml(folder / "recipe.yaml")
    return folder


def run(block: Block, reader: dict[str, object]) -> None:
    """In this process, where everything is imported already; ``reader``: the names of a page's Python."""
    code = block.code
    for stand_in in block.mark.removeprefix(STAND_INS).split(", ") if block.mark.startswith(STAND_INS) else ():
        theirs, _, ours = stand_in.partition(" = ")
        assert theirs in code, f"{theirs} is not in the block"
        code = code.replace(theirs, ours)
    if block.kind == "python":
        exec(compile(code, "block", "exec"), reader)
        return
    for line in code.replace("\\\n", " ").splitlines():
        command = shlex.split(line, comments=True)
        if command:
            assert command[0] == "langadapt", f"{command[0]}: say why it is not run"
            done = CliRunner().invoke(app, command[1:])
            assert done.exit_code == 0, f"{line}\n{done.output[-2000:]}\n{done.exception!r}"


RUNNING = [page for page in PAGES if any(block.runs and block.kind in ("sh", "python") for block in blocks(page))]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("page", RUNNING, ids=name_of)
def test_the_code_of_a_page_runs_from_top_to_bottom(
    page: Path, stand_ins: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(stand_ins, tmp_path / "reader")
    monkeypatch.chdir(tmp_path / "reader")
    names: dict[str, object] = {"__name__": "reader"}
    for block in blocks(page):
        if block.runs and block.kind in ("sh", "python"):
            run(block, names)


@pytest.mark.parametrize("page", [page for page in PAGES if any(b.kind == "yaml" for b in blocks(page))], ids=name_of)
def test_recipes_of_a_page_are_recipes(page: Path) -> None:
    for block in blocks(page):
        if block.kind == "yaml" and block.runs:
            values = yaml.safe_load(block.code)
            whole = {"name": "reader", "model": "model", **values}
            whole["corpus"] = {"target": ["text"], **whole.get("corpus", {})}
            assert build(Recipe, whole, "")


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        made = page.parent == ROOT / "docs" and target in ("commands.md", "api.md")
        assert made or (page.parent / target).exists(), f"{page}: {target}"


def test_every_initialiser_has_its_page() -> None:
    from langadapt.swap.rows.names import METHODS

    for method in METHODS:
        text = (ROOT / "docs" / "initialisers" / f"{method}.md").read_text(encoding="utf-8")
        for part in ("**Source.**", "**Rows.**", "**Needs.**", "**Cost.**", "**When.**"):
            assert part in text, f"{method}: {part}"


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("mkdocs") is None, reason="mkdocs is not installed")
def test_the_site_builds_and_asks_nobody(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    pages = list((tmp_path / "site").glob("**/*.html"))
    assert {"commands.html", "api.html"} <= {page.name for page in pages}
    for page in pages:
        text = page.read_text(encoding="utf-8")
        asked = re.findall(r"<(?:script|img|iframe)[^>]+src=\"(https?:[^\"]+)", text)
        asked += re.findall(r"<link[^>]+rel=\"(?:stylesheet|preconnect)\"[^>]+href=\"(https?:[^\"]+)", text)
        assert not asked, f"{page}: {asked}"
        assert ":func:" not in text and ":class:" not in text
    assert "langadapt corpus build" in (tmp_path / "site" / "commands.html").read_text(encoding="utf-8")
