"""The code that launches kernels, as on a GPU, where there is none: what it asks the compiler for can be compiled."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
KERNELS = {
    "adamw_kernel",
    "bounds_kernel",
    "candidates_kernel",
    "cross_entropy_kernel",
    "gather_kernel",
    "sparsemax_backward_kernel",
    "sparsemax_resident_kernel",
    "sparsemax_stream_kernel",
    "square_sum_kernel",
    "tensor_square_sum_kernel",
    "weights_kernel",
}


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")
def test_every_launch_compiles_without_spills(request):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    environment["TRITON_INTERPRET"] = "0"
    environment["TRITON_CACHE_DIR"] = str(request.config.cache.mkdir("triton-launches"))
    command = [sys.executable, str(HERE / "launch_kernels.py")]
    run = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-4000:]
    launched = json.loads(run.stdout)["launched"]
    assert {launch["kernel"] for launch in launched} == KERNELS
    assert not [launch for launch in launched if launch["stack"] or launch["local"]]
