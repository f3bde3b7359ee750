"""Every kernel compiled ahead of time for three generations of GPUs: wide accesses, no spills, registers as recorded.

`golden_resources.json` holds the registers for each version of Triton that was looked at; with another one the test
allows for a compiler that allocates a little differently. The running version's are written anew by
`LANGADAPT_UPDATE_GOLDEN=1 pytest tests/kernels/test_kernels_compiled.py`.
"""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
GOLDEN = HERE / "golden_resources.json"
CAPABILITIES = (80, 90, 100)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed"),
]

# 16-byte accesses that the loop over memory must hold: weight, gradient and both moments are read, all but the gradient
# are written; a ninth stream of one byte per element (split8) moves eight bytes per thread.
STREAMS = {
    "adamw nearest": (4, 3),
    "adamw stochastic": (4, 3),
    "adamw stochastic, variance too": (4, 3),
    "adamw kahan": (5, 4),
    "adamw split": (5, 4),
    "adamw split8": (4, 3),
    "adamw nearest, stale meter": (4, 3),
    "adamw nearest, exact": (4, 3),
    # Codes move eight bytes per thread, too.
    "adamw nearest, int8 states": (2, 1),
    "adamw nearest, int8 states to nearest": (2, 1),
    "adamw stochastic, int8 states": (2, 1),
    "adamw split8, int8 states": (2, 1),
    # All but the gradient.
    "adamw nearest, shifted": (3, 3),
    # float32 takes two accesses for eight elements.
    "adamw nearest, float32 states": (6, 5),
    "adamw nearest, float32 all": (8, 6),
    "square sum": (1, 0),
    "square sum of one tensor": (1, 0),
    "sparsemax 4096": (4, 4),
    "sparsemax 32768": (16, 16),
    "sparsemax 32768, masked": (16, 16),
    "sparsemax stream": (2, 2),
    "sparsemax backward": (4, 2),
    # 16 entries per thread: read, read again, written.
    "cross-entropy": (4, 2),
    "cross-entropy, losses alone": (2, 0),
    # Five steps of vectors of 300.
    "focus bounds": (40, 0),
    "focus candidates": (40, 0),
    "focus bounds, long vectors": (1, 0),
    "focus candidates, long vectors": (1, 0),
    "focus weights": (1, 0),
    "focus gather bfloat16": (8, 1),
    "focus gather float32": (8, 1),
}


@pytest.fixture(scope="module")
def compiled(request) -> dict[int, dict]:
    """What `compile_kernels.py` found, per compute capability; the compilers run side by side."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    environment["TRITON_INTERPRET"] = "0"
    # Compiling takes a minute: it is done again only when a kernel or Triton changes.
    environment["TRITON_CACHE_DIR"] = str(request.config.cache.mkdir("triton-kernels"))
    runs = {
        capability: subprocess.Popen(
            [sys.executable, str(HERE / "compile_kernels.py"), str(capability)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for capability in CAPABILITIES
    }
    found = {}
    for capability, run in runs.items():
        output, errors = run.communicate()
        assert run.returncode == 0, errors[-4000:]
        found[capability] = json.loads(output)
    if os.environ.get("LANGADAPT_UPDATE_GOLDEN") == "1":
        record(found)
    return found


def record(found: dict[int, dict]) -> None:
    """Put the running version's registers into the table, a line per kernel."""
    table = json.loads(GOLDEN.read_text(encoding="utf-8"))["registers"] if GOLDEN.is_file() else {}
    version, names = found[CAPABILITIES[0]]["triton"], found[CAPABILITIES[0]]["kernels"]
    for name in names:
        mine = [found[capability]["kernels"][name]["registers"] for capability in CAPABILITIES]
        table[name] = {**table.get(name, {}), version: mine}
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(dict(sorted(table[name].items())))}" for name in names)
    text = f'{{"capabilities": {json.dumps(CAPABILITIES)}, "registers": {{\n{lines}\n}}}}\n'
    GOLDEN.write_text(text, encoding="utf-8")


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_no_kernel_spills(compiled, capability):
    kernels = compiled[capability]["kernels"]
    assert not {name: found for name, found in kernels.items() if found["stack"] or found["local"]}


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_memory_is_read_and_written_sixteen_bytes_at_a_time(compiled, capability):
    kernels = compiled[capability]["kernels"]
    narrow = {
        name: kernels[name]
        for name, (loads, stores) in STREAMS.items()
        # Blackwell has accesses of 32 bytes, which count for two.
        if kernels[name]["wide_loads"] < (loads if capability < 100 else loads // 2)
        or kernels[name]["wide_stores"] < (stores if capability < 100 else stores // 2)
    }
    assert not narrow


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_the_backward_of_sparsemax_moves_three_streams(compiled, capability):
    """A thread has 8 entries of a row: the output is read twice and the result written; gradients entry by entry."""
    kernel, entries = compiled[capability]["kernels"]["sparsemax backward"], 4096 // (16 * 32) * 4
    assert (kernel["wide_load_bytes"], kernel["wide_store_bytes"]) == (2 * entries, entries)


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_cross_entropy_moves_six_bytes_per_logit(compiled, capability):
    kernels, entries = compiled[capability]["kernels"], 4096 // (8 * 32) * 2
    found = [kernels[name] for name in ("cross-entropy", "cross-entropy, losses alone")]
    moved = [(kernel["wide_load_bytes"], kernel["wide_store_bytes"]) for kernel in found]
    assert moved == [(2 * entries, entries), (entries, 0)]


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_registers_are_as_recorded(compiled, capability):
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    column, version = golden["capabilities"].index(capability), compiled[capability]["triton"]
    found = {name: kernel["registers"] for name, kernel in compiled[capability]["kernels"].items()}
    assert found.keys() == golden["registers"].keys()
    for name, versions in golden["registers"].items():
        if version in versions:
            assert found[name] == versions[version][column], name
        else:
            most = max(registers[column] for registers in versions.values())
            # The kernel that is full of matrix products and bits differs most from compiler to compiler.
            assert found[name] <= min(most + (64 if name.startswith("focus candidates") else 16), 255), name


def test_the_streaming_step_leaves_room_for_enough_threads(compiled):
    """Half the threads of a multiprocessor or more, so that the latency of memory is hidden: at most 64 registers; with
    codes, of which a step moves 3.75 bytes less, 72."""
    for capability in CAPABILITIES:
        for name, kernel in compiled[capability]["kernels"].items():
            if name in STREAMS and name.startswith("adamw") and "meter" not in name:
                assert kernel["registers"] <= (72 if "int8" in name else 64), (name, capability)
