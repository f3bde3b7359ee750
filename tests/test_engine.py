"""Shards as tasks of Ray: on three nodes, one of which is killed on the way, the bytes are those of one machine."""

from __future__ import annotations

import importlib.util
import json
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from langadapt import build_corpus, read_documents, train_bpe
from langadapt.artefacts.engine import Engine
from langadapt.artefacts.shards import find_parts
from langadapt.cli.main import main
from langadapt.corpus.parts import make_corpus_part, merge_corpus
from langadapt.errors import ConfigError
from langadapt.store import make_store
from langadapt.tokenizer.counting import make_counts
from langadapt.tokenizer.counts import merge_counts

TEXTS = Path(__file__).parent / "texts"


def test_one_shard_or_an_engine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = [str(TEXTS / "german.jsonl"), "--out", str(tmp_path / "out"), "--engine", "ray", "--shard", "0/2"]
    for command in (["corpus", "build"], ["tokenizer", "count"], ["tokenize", "--tokenizer", "none"]):
        with pytest.raises(SystemExit) as stop:
            main([*command, *common])
        assert stop.value.code == 2 and "name one of them" in capsys.readouterr().err


def test_an_address_where_nobody_answers_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
    begun = time.monotonic()
    # Bound, but nobody listens there. Where Ray is not installed, that is said first.
    with pytest.raises(SystemExit) as stop:
        main(["corpus", "build", str(TEXTS), "--out", str(tmp_path / "out"), "--engine", "ray", "--address", address])
    assert stop.value.code == 2 and time.monotonic() - begun < 15
    said = capsys.readouterr().err.strip()
    assert "\n" not in said and ("no Ray answers there" in said or "install `langadapt[ray]`" in said)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"langadapt\[ray\]"):
        Engine(2).run(make_corpus_part, tmp_path, {}, title="corpus")


def test_a_step_of_datatrove(tmp_path: Path) -> None:
    pytest.importorskip("datatrove", reason="`datatrove` is not installed (.ci/requirements-dev.txt)")
    from datatrove.executor import LocalPipelineExecutor

    from langadapt.artefacts.datatrove_step import ShardStep

    lines = (TEXTS / "german.jsonl").read_text("utf-8").splitlines(keepends=True)
    (tmp_path / "in").mkdir()
    for number in range(5):
        (tmp_path / "in" / f"{number}.jsonl").write_text("".join(lines[number * 9 : number * 9 + 12]), "utf-8")
    step = ShardStep(make_counts, tmp_path / "parts", inputs=str(tmp_path / "in"))
    LocalPipelineExecutor(pipeline=[step], tasks=3, logging_dir=str(tmp_path / "logs"), skip_completed=False).run()
    merge_counts(find_parts([tmp_path / "parts"]), tmp_path / "merged")
    make_counts(str(tmp_path / "in"), tmp_path / "plain")
    for name in ("words.bin", "manifest.json"):
        assert (tmp_path / "merged" / name).read_bytes() == (tmp_path / "plain" / name).read_bytes()


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.filterwarnings("ignore")
def test_a_node_dies_and_the_bytes_stay(tmp_path: Path) -> None:
    ray = pytest.importorskip("ray", reason="`ray` is not installed (the extra `langadapt[ray]`)")
    from ray.cluster_utils import Cluster

    (tmp_path / "in").mkdir()
    texts = list(read_documents(TEXTS / "german.jsonl"))
    for number in range(12):
        own = [*texts[number * 9 : number * 9 + 12], *texts[:2]] * 40
        lines = [json.dumps({"text": f"{text} {at // 20}"}) + "\n" for at, text in enumerate(own)]
        (tmp_path / "in" / f"{number:02}.jsonl").write_text("".join(lines), "utf-8")
    options: dict[str, Any] = {"exact_duplicates": True, "near_duplicates": True, "block_bytes": 1}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
        ray.init(address=cluster.address, log_to_driver=False)
        seen: list[int] = []

        def progress(phase: str, done: int, total: int | None, unit: str) -> None:
            seen.append(done)
            if done >= 3 and nodes:
                cluster.remove_node(nodes.pop(), allow_graceful=False)

        arguments = {"inputs": str(tmp_path / "in"), **options}
        engine = Engine(12, cluster.address)
        engine.run(make_corpus_part, tmp_path / "parts", arguments, title="corpus", progress=progress)
        assert seen[-1] == 12 and len(nodes) == 0
        read = {"arrow_open_stream_args": {"compression": "zstd"}}
        rows = ray.data.read_json(str(tmp_path / "parts" / "00000-of-00012" / "train.jsonl.zst"), **read)
        again = build_corpus(texts=rows, out=tmp_path / "again")
        assert again.documents == rows.count() > 0
        kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "parts").glob("*/manifest.json")}
        engine.run(make_corpus_part, tmp_path / "parts", arguments, title="corpus")
        assert {path: path.stat().st_mtime_ns for path in kept} == kept and len(kept) == 12
        train_bpe(str(tmp_path / "in"), vocab_size=400).save_pretrained(tmp_path / "tokenizer")
        for folder in ("by ray", "here"):
            on = engine if folder == "by ray" else None
            make_store(str(tmp_path / "in"), str(tmp_path / "tokenizer"), tmp_path / folder / "store", engine=on)
            make_counts(str(tmp_path / "in"), tmp_path / folder / "counts", engine=on)
    finally:
        ray.shutdown()
        cluster.shutdown()
    merge_corpus(find_parts([tmp_path / "parts"]), tmp_path / "merged")
    report = build_corpus(str(tmp_path / "in"), tmp_path / "plain", **options)
    assert report.dropped["exact_duplicate"] > 100
    for name in (
        "store/tokens.bin",
        "store/offsets.bin",
        "store/manifest.json",
        "counts/words.bin",
        "counts/manifest.json",
    ):
        assert (tmp_path / "by ray" / name).read_bytes() == (tmp_path / "here" / name).read_bytes()
    for name in ("train.jsonl.zst", "validation.jsonl.zst", "manifest.json"):
        assert (tmp_path / "merged" / name).read_bytes() == (tmp_path / "plain" / name).read_bytes()
