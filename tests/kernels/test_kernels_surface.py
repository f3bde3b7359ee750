"""The package as seen from outside: it imports without Triton, and its public names work on a CPU."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import langadapt_kernels
from langadapt_kernels import FusedAdamW, adamw_step, focus_combine, sparsemax


def test_imports_and_works_without_triton():
    code = (
        "import sys; sys.modules['triton'] = None\n"
        "import torch, langadapt_kernels as k\n"
        "p = torch.nn.Parameter(torch.ones(5, dtype=torch.bfloat16)); p.grad = torch.ones_like(p)\n"
        "k.FusedAdamW([p], 0.1).step(); assert p[0] < 1\n"
        "assert k.sparsemax(torch.tensor([0.0, 9.0])).tolist() == [0.0, 1.0]\n"
        "k.focus_combine(torch.ones(2, 3), torch.ones(1, 3), torch.ones(1, 4))\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, env=_environment())


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": ":".join(p for p in sys.path if p)}


def test_the_readme_runs():
    readme = (Path(__file__).resolve().parents[2] / "kernels" / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", readme, flags=re.DOTALL)
    assert blocks
    for block in blocks:
        names: dict = {}
        exec(block, names)
        assert names["embeddings"].shape == (5, 512) and torch.allclose(names["weights"].sum(-1), torch.ones(4))


def test_public_names():
    assert set(langadapt_kernels.__all__) == {
        "FusedAdamW",
        "adamw_step",
        "cross_entropy_",
        "focus_combine",
        "sparsemax",
    }


def test_a_backend_that_cannot_run_is_an_error(monkeypatch):
    x = torch.zeros(3)
    with pytest.raises(ValueError, match="unknown backend: 'cuda'"):
        sparsemax(x, backend="cuda")
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    with pytest.raises(ValueError, match="needs CUDA tensors"):
        sparsemax(x, backend="triton")
    monkeypatch.setattr("langadapt_kernels.backend.has_triton", lambda: False)
    with pytest.raises(RuntimeError, match="not installed"):
        focus_combine(x[None], x[None], x[None], backend="triton")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr": -1.0}, "`lr` must be finite"),
        ({"betas": (0.9, 1.0)}, "`betas`"),
        ({"eps": float("nan")}, "`eps`"),
        ({"weight_decay": -0.1}, "`weight_decay`"),
        ({"rounding": "up"}, "unknown rounding: 'up'"),
        ({"state_dtype": torch.float16}, "`state_dtype`"),
        ({"max_grad_norm": 0.0}, "`max_grad_norm`"),
        ({"max_grad_norm": 1.0, "gradient_release": True}, "excludes"),
        ({"backend": "cuda"}, "unknown backend"),
        ({"seed": -1}, "`seed`"),
    ],
)
def test_optimizer_settings_are_checked(settings, message):
    with pytest.raises(ValueError, match=message):
        FusedAdamW([torch.nn.Parameter(torch.zeros(3))], **settings)


def test_adamw_step_arguments_are_checked():
    p = torch.zeros(4, dtype=torch.bfloat16)
    with pytest.raises(ValueError, match="`grads` has 0 tensors for 1 parameters"):
        adamw_step([p], [], [p], [p], step=1, lr=0.1)
    with pytest.raises(ValueError, match=r"`exp_avgs\[0\]` is \(5,\)"):
        adamw_step([p], [p], [torch.zeros(5)], [p], step=1, lr=0.1)
    with pytest.raises(ValueError, match="needs `low_bits`"):
        adamw_step([p], [p], [p], [p], step=1, lr=0.1, rounding="split")
    with pytest.raises(ValueError, match="unknown rounding"):
        adamw_step([p], [p], [p], [p], step=1, lr=0.1, rounding="down")
    with pytest.raises(ValueError, match="float16"):
        adamw_step([p.half()], [p.half()], [p], [p], step=1, lr=0.1)


def test_focus_and_sparsemax_arguments_are_checked():
    with pytest.raises(ValueError, match="one width"):
        focus_combine(torch.ones(2, 3), torch.ones(2, 4), torch.ones(2, 5))
    with pytest.raises(ValueError, match="at least one anchor"):
        focus_combine(torch.ones(2, 3), torch.ones(0, 3), torch.ones(0, 5))
    with pytest.raises(ValueError, match=r"`anchor_rows\[0\]` must be \[2, d\]"):
        focus_combine(torch.ones(2, 3), torch.ones(2, 3), torch.ones(3, 5))
    with pytest.raises(ValueError, match="first bad row: 1"):
        focus_combine(torch.tensor([[1.0], [float("nan")]]), torch.ones(2, 1), torch.ones(2, 5))
    with pytest.raises(ValueError, match="at least one entry"):
        sparsemax(torch.ones(3, 0))
    with pytest.raises(IndexError, match="no dimension 2"):
        sparsemax(torch.ones(3, 4), 2)
    with pytest.raises(ValueError, match="must be one of"):
        sparsemax(torch.ones(3, dtype=torch.int64))
