"""What the CPU benches share: contenders in processes of their own, in turns; one that fails costs its own rows."""

import ast
import importlib
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

BENCHES = Path(__file__).resolve().parent.parent / "benches"
SCRIPT = """
import sys
if sys.argv[1] == "broken":
    raise SystemExit("out of luck")
print("imports say things")
print('{"name": "%s"}' % sys.argv[1])
"""


@pytest.fixture
def contenders(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHES))
    return importlib.import_module("contenders")


def test_a_contender_that_fails_costs_its_own_rows(contenders, tmp_path, capsys):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    found = contenders.rounds_of(["ours", "broken"], 2, lambda name: contenders.answer(str(script), name))
    assert found == {"ours": [{"round": 0, "name": "ours"}, {"round": 1, "name": "ours"}], "broken": []}
    assert capsys.readouterr().err == "broken: out of luck\n" * 2


def test_turns_are_interleaved_and_drawn_alike(contenders):
    assert list(contenders.turns("ab", 2)) == [(0, "a"), (0, "b"), (1, "a"), (1, "b")]
    drawn = list(contenders.turns("abcde", 3, seed="style"))
    assert drawn == list(contenders.turns("abcde", 3, seed="style")) != list(contenders.turns("abcde", 3))
    assert [sorted(name for at, name in drawn if at == number) for number in range(3)] == [list("abcde")] * 3


def test_children_count_where_asked(contenders):
    spin = "import time\nwhile time.process_time() < 0.3: pass"

    def work() -> int:
        return subprocess.run([sys.executable, "-c", spin]).returncode

    result, alone = contenders.timed(work)
    _, whole = contenders.timed(work, children=True)
    assert result == 0 and alone["cpu_s"] < 0.2 < whole["cpu_s"] and alone["wall_s"] > 0.3


@pytest.fixture
def threads(contenders):
    return importlib.import_module("threads")


def test_every_job_gives_the_same_at_any_number_of_threads(threads, tmp_path, monkeypatch):
    monkeypatch.setattr(threads, "VOCAB_SIZE", 400)
    text = BENCHES.parent / "tests" / "texts" / "german.jsonl"
    assert threads.prepare(text, 0.3, tmp_path) >= 300_000
    digests = {job: {threads.once(job, count, tmp_path)["digest"] for count in (1, 2, 3)} for job in threads.JOBS}
    assert all(len(found) == 1 for found in digests.values()), digests
    # A store holds what encoding gives.
    assert len(set().union(*digests.values())) == 4


def test_results_that_differ_are_not_reported(threads, tmp_path, monkeypatch):
    monkeypatch.setattr(threads, "answer", lambda *given: {"wall_s": 2.0 / int(given[3]), "cpu_s": 2.0, "digest": "d"})
    rows = threads.measure("train, byte_level", [1, 2], 3, tmp_path, 8_000_000)
    assert [row["times_the_first"] for row in rows] == [1.0, 2.0] and [row["mb_per_s"] for row in rows] == [4.0, 8.0]
    assert "| train, byte_level | 2 | 1.00 (1.00 - 1.00) | 8.0 | 2.00 | 2.00 |" in threads.table(rows)
    monkeypatch.setattr(threads, "answer", lambda *given: {"wall_s": 1.0, "cpu_s": 1.0, "digest": given[3]})
    with pytest.raises(SystemExit, match="not the same result for all of 1, 2 threads"):
        threads.measure("train, byte_level", [1, 2], 1, tmp_path, 1)


def imports_of_ours(path: Path) -> set[tuple[str, str]]:
    """Module and name of every import from this project, those inside functions included."""
    nodes = [node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.ImportFrom)]
    ours = [node for node in nodes if node.module and node.module.split(".")[0] in {"langadapt", "langadapt_kernels"}]
    return {(node.module or "", name.name) for node in ours for name in node.names}


def test_what_the_runners_import_is_there():
    found = {path: imports_of_ours(path) for path in BENCHES.rglob("*.py")}
    assert sum(map(len, found.values())) > 60
    for path, imports in found.items():
        for module, name in imports:
            holder = importlib.import_module(module)
            assert hasattr(holder, name) or importlib.util.find_spec(f"{module}.{name}"), f"{path}: {module}.{name}"


@pytest.mark.usefixtures("contenders")
def test_the_adamw_bench_steps_what_it_says_and_divides_by_the_right_rival():
    bench = importlib.import_module("adamw_cpu")
    assert all(bench.same_bits(name) for name in bench.BYTES)
    names = ["memory", "torch fused", "split8", "torch fused + clipping", "nearest + clipping"]
    rounds = {name: [bench.one(name, 2400, 3, 1) | {"round": 0}] for name in names}
    assert all(row["wall_s"] > 0 for found in rounds.values() for row in found)
    for seconds, name in enumerate(names, start=1):
        rounds[name][0] |= {"wall_s": float(seconds), "cpu_s": 2.0 * seconds}
    rows, table = bench.summary(rounds, 2400)
    known = {row["contender"]: row for row in rows}
    assert known["split8"]["of_rival"] == {"wall_s": 2 / 3, "cpu_s": 2 / 3}
    assert known["nearest + clipping"]["of_rival"]["cpu_s"] == 4 / 5
    # 16 bytes of a parameter and step in 6 s, where memory moves 12 bytes of each element in 2 s.
    assert known["split8"]["of_memory"] == pytest.approx(16 / 6 / (12 / 2))
    assert table.count("\n| ") == 4
