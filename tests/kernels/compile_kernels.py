"""Compile every kernel for one GPU architecture, without a GPU, and print what came out as JSON.

Run as a script with the compute capability (80, 90, 100): in a process of its own, since Triton's interpreter, which
the other tests use, replaces the compiler.
"""

import importlib
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

adamw = importlib.import_module("langadapt_kernels.adamw.kernel")
sparsemax = importlib.import_module("langadapt_kernels.sparsemax.kernel")
cross_entropy = importlib.import_module("langadapt_kernels.cross_entropy.kernel")
focus = importlib.import_module("langadapt_kernels.focus.kernel")
focus_run = importlib.import_module("langadapt_kernels.focus.run")

MODES = ("nearest", "stochastic", "kahan", "split", "split8")


def adamw_spec(
    rounding: str, warps: int = 4, **flags: bool
) -> tuple[Any, dict[str, str], dict[str, Any], dict[str, Any]]:
    signature = {"entries_ptr": "*i64", "chunks_ptr": "*i64", "scalars_ptr": "*fp32", "grad_scale_ptr": "*fp32"}
    names = (
        "WEIGHT_WIDE",
        "GRAD_WIDE",
        "STATE_WIDE",
        "STATE_CODED",
        "STOCHASTIC_VARIANCE",
        "FROZEN",
        "CLIP",
        "COUNT_STALE",
        "EXACT",
        "RAGGED",
        "SHIFTED",
    )
    constants: dict[str, Any] = {**dict.fromkeys(names, False), "CLIP": True, **flags}
    constants.update(MODE=MODES.index(rounding), BLOCK=1024)
    return adamw.adamw_kernel, {**signature, "stale_ptr": "*i32"}, constants, {"num_warps": warps}


def row_spec(
    kernel: Any, pointers: str, warps: int, **constants: Any
) -> tuple[Any, dict[str, str], dict[str, Any], dict]:
    signature = dict.fromkeys(pointers.split(), "*fp32") | {"n": "i32"}
    return kernel, signature, {"WIDE": tl.float32, **constants}, {"num_warps": warps}


def search_spec(
    kernel: Any, outputs: dict[str, str], capability: int, kept: bool, **constants: int
) -> tuple[Any, dict[str, str], dict[str, Any], dict]:
    signature = {"new_ptr": "*bf16", "anchor_ptr": "*bf16", **outputs, "n_new": "i32", "n_anchor": "i32"}
    tile = {"WIDTH": 320, "ROWS": 128, "COLUMNS": 64 if kept else 128, "STEP": 64, "KEPT": kept, **constants}
    stages = focus_run.Tile(kept=kept).stages(capability // 10)
    return kernel, signature, tile, {"num_warps": 8, "num_stages": stages}


def gather_spec(dtype: str) -> tuple[Any, dict[str, str], dict[str, Any], dict[str, Any]]:
    signature = {"candidate_ptr": "*i32", "size_ptr": "*i32", "weight_ptr": "*fp32"}
    signature |= {"rows_ptr": f"*{dtype}", "output_ptr": f"*{dtype}", "d": "i32"}
    constants = {"BF16": dtype == "u16", "CAPACITY": 256, "GROUP": 8, "BLOCK": 256 if dtype == "u16" else 128}
    return focus.gather_kernel, signature, constants, {"num_warps": 1}


def specs(capability: int) -> dict[str, tuple[Any, dict[str, str], dict[str, Any], dict[str, Any]]]:
    """Name to kernel, signature, constants and options: every kernel, in every mode that users meet."""
    found = {f"adamw {rounding}": adamw_spec(rounding) for rounding in MODES}
    found["adamw stochastic, variance too"] = adamw_spec("stochastic", STOCHASTIC_VARIANCE=True)
    found["adamw nearest, float32 states"] = adamw_spec("nearest", STATE_WIDE=True)
    found["adamw nearest, float32 all"] = adamw_spec("nearest", WEIGHT_WIDE=True, GRAD_WIDE=True, STATE_WIDE=True)
    found["adamw nearest, stale meter"] = adamw_spec("nearest", COUNT_STALE=True)
    found["adamw nearest, exact"] = adamw_spec("nearest", EXACT=True)
    found["adamw stochastic, ragged"] = adamw_spec("stochastic", RAGGED=True)
    found["adamw stochastic, frozen columns"] = adamw_spec("stochastic", FROZEN=True)
    for rounding in ("nearest", "stochastic", "split8"):
        found[f"adamw {rounding}, int8 states"] = adamw_spec(rounding, STATE_CODED=True, STOCHASTIC_VARIANCE=True)
    found["adamw nearest, int8 states to nearest"] = adamw_spec("nearest", STATE_CODED=True)
    found["adamw stochastic, int8 states, frozen columns"] = adamw_spec(
        "stochastic", STATE_CODED=True, STOCHASTIC_VARIANCE=True, FROZEN=True
    )
    found["adamw stochastic, int8 states, ragged"] = adamw_spec(
        "stochastic", STATE_CODED=True, STOCHASTIC_VARIANCE=True, RAGGED=True
    )
    found["adamw nearest, shifted"] = adamw_spec("nearest", SHIFTED=True)
    constants = {"GRAD_WIDE": False, "RAGGED": False, "SHIFTED": False, "CHUNK": 8192, "BLOCK": 1024}
    signature = {"entries_ptr": "*i64", "chunks_ptr": "*i64", "partial_ptr": "*fp64"}
    found["square sum"] = (adamw.square_sum_kernel, signature, constants, {"num_warps": 4})
    found["square sum, ragged"] = (adamw.square_sum_kernel, signature, {**constants, "RAGGED": True}, {"num_warps": 4})
    signature = {"grad_ptr": "*u16", "partial_ptr": "*fp64", "first": "i32", "numel": "i32"}
    constants = {"GRAD_WIDE": False, "CHUNK": 8192, "BLOCK": 1024}
    found["square sum of one tensor"] = (adamw.tensor_square_sum_kernel, signature, constants, {"num_warps": 4})
    for block, warps in ((4096, 8), (32768, 16)):
        row = {"BF16": False, "BLOCK": block, "LANES": 32 * warps, "WHOLE": True}
        found[f"sparsemax {block}"] = row_spec(sparsemax.sparsemax_resident_kernel, "x_ptr output_ptr", warps, **row)
    row["WHOLE"] = False
    found["sparsemax 32768, masked"] = row_spec(sparsemax.sparsemax_resident_kernel, "x_ptr output_ptr", warps, **row)
    found["sparsemax stream"] = row_spec(
        sparsemax.sparsemax_stream_kernel, "x_ptr output_ptr", 16, BF16=False, BLOCK=4096
    )
    pointers = "output_ptr grad_ptr grad_input_ptr"
    found["sparsemax backward"] = row_spec(
        sparsemax.sparsemax_backward_kernel, pointers, 16, OUTPUT_BF16=False, GRAD_BF16=False, BLOCK=4096
    )
    signature = {"logits_ptr": "*u16", "target_ptr": "*i64", "loss_ptr": "*fp32"}
    signature |= {"n": "i32", "scale": "fp32", "ignore_index": "i32"}
    for gradient, name in ((True, ""), (False, ", losses alone")):
        constants = {"BF16": True, "GRADIENT": gradient, "BLOCK": 4096}
        found[f"cross-entropy{name}"] = (cross_entropy.cross_entropy_kernel, signature, constants, {"num_warps": 8})
    words = {"bound_ptr": "*fp32", "word_ptr": "*i32", "index_ptr": "*i32", "count_ptr": "*i32"}
    for kept, name in ((True, ""), (False, ", long vectors")):
        found[f"focus bounds{name}"] = search_spec(focus.bounds_kernel, {"bound_ptr": "*fp32"}, capability, kept)
        found[f"focus candidates{name}"] = search_spec(focus.candidates_kernel, words, capability, kept, WORDS=256)
    signature = {
        "new_ptr": "*fp32",
        "anchor_ptr": "*fp32",
        "word_ptr": "*i32",
        "index_ptr": "*i32",
        "count_ptr": "*i32",
    }
    signature |= {"candidate_ptr": "*i32", "weight_ptr": "*fp32", "size_ptr": "*i32"}
    constants = {"WIDTH": 320, "CAPACITY": 256, "WORDS": 256, "GROUP": 16, "STEP": 64}
    found["focus weights"] = (focus.weights_kernel, signature, constants, {"num_warps": 2})
    return found | {"focus gather bfloat16": gather_spec("u16"), "focus gather float32": gather_spec("fp32")}


def compile_spec(spec: tuple[Any, dict[str, str], dict[str, Any], dict[str, Any]], capability: int) -> dict[str, int]:
    kernel, signature, constants, options = spec
    # As the launcher finds them: pointers and sizes that are multiples of 16, unless the kernel asks for no such thing.
    plain = set(kernel.do_not_specialize or ())
    attributes = {(i,): [["tt.divisibility", 16]] for i, name in enumerate(signature) if name not in plain}
    source = ASTSource(
        kernel, signature={**signature, **dict.fromkeys(constants, "constexpr")}, constexprs=constants, attrs=attributes
    )
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    accesses = re.findall(r"(ld|st)\.global[.\w:]*?((?:\.v\d)?)\.[bfu](\d+)\b", compiled.asm["ptx"])
    widths = [(kind, int(vector[2:] or 1) * int(bits) // 8) for kind, vector, bits in accesses]
    copies = re.findall(r"cp\.async\.\w+\.shared\.global \[.*?\], \[.*?\], (0x\w+|\d+)", compiled.asm["ptx"])
    widths += [("ld", int(size, 0)) for size in copies]
    return {
        "wide_loads": sum(kind == "ld" and width >= 16 for kind, width in widths),
        "wide_stores": sum(kind == "st" and width >= 16 for kind, width in widths),
        "wide_load_bytes": sum(width for kind, width in widths if kind == "ld" and width >= 16),
        "wide_store_bytes": sum(width for kind, width in widths if kind == "st" and width >= 16),
        "shared": compiled.metadata.shared,
        **resources(compiled.asm["cubin"]),
    }


def resources(cubin: bytes) -> dict[str, int]:
    """Registers, stack and local memory, as `cuobjdump -res-usage` reads them from the machine code."""
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        usage = subprocess.run([tool, "-res-usage", path], capture_output=True, text=True, check=True).stdout
    found = dict(re.findall(r"\b(REG|STACK|LOCAL):(\d+)", usage))
    return {"registers": int(found["REG"]), "stack": int(found["STACK"]), "local": int(found["LOCAL"])}


if __name__ == "__main__":
    assert os.environ.get("TRITON_INTERPRET", "0") == "0"
    target = int(sys.argv[1])
    kernels = {name: compile_spec(spec, target) for name, spec in specs(target).items()}
    print(json.dumps({"triton": triton.__version__, "kernels": kernels}))  # noqa: T201
