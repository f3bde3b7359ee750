"""The house's budgets: lengths of functions and files, parameters by position, lazy imports."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Container, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTHON = ROOT / "python"
FILES = sorted([*PYTHON.rglob("*.py"), *(ROOT / "kernels" / "src").rglob("*.py")])
TREES = {file: ast.parse(file.read_text(encoding="utf-8")) for file in FILES}

REASON = "Long: "
"""Begins the sentence why something is over its budget: in a function's comments, in a file's docstring."""
FILE_BUDGET, FUNCTION_BUDGET, FUNCTION_LIMIT, KERNEL_BUDGET = 400, 50, 60, 80
BY_POSITION = 4
PROTOCOLS = {"forward", "backward"}
"""torch and transformers call these, by position."""
NAMED_BY_OTHERS = "# By position: "
"""Begins the comment that says whose order of parameters a function has to keep."""
HEAVY = ("jinja2", "numpy", "huggingface_hub", "torch", "langadapt_kernels", "transformers")
"""What a light module does not wait for, lightest first."""
REQUIRED = {*HEAVY, "jinja2", "langadapt", "rich", "safetensors", "tokenizers", "typer", "yaml"}
SELDOM = {"torch.distributed.fsdp", "torch.utils.tensorboard", "transformers.conversion_mapping"}
SELDOM |= {"transformers.core_model_loading"}
"""Half a second that only several GPUs want; an optional package; torch's sharded tensors, which no text wants."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


def name_of(file: Path) -> str:
    return str(file.relative_to(ROOT))


def functions(tree: ast.AST) -> Iterator[Function]:
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def is_kernel(function: Function) -> bool:
    return any("triton.jit" in ast.unparse(decorator) for decorator in function.decorator_list)


def lines_of(function: Function) -> int:
    """From `def` to the end, docstring included."""
    return (function.end_lineno or function.lineno) - function.lineno + 1


def test_lengths_of_functions() -> None:
    too_long = []
    for file, tree in TREES.items():
        lines = file.read_text(encoding="utf-8").splitlines()
        for function in functions(tree):
            length = lines_of(function)
            budget = KERNEL_BUDGET if is_kernel(function) else FUNCTION_BUDGET
            explained = any(REASON in line for line in lines[function.lineno - 1 : function.end_lineno])
            if length > budget and not (explained and (is_kernel(function) or length <= FUNCTION_LIMIT)):
                too_long.append((f"{name_of(file)} {function.name}", length))
    assert too_long == []


def test_lengths_of_files() -> None:
    too_long = [
        (name_of(file), length)
        for file, tree in TREES.items()
        if (length := len(file.read_text(encoding="utf-8").splitlines())) > FILE_BUDGET
        and REASON not in (ast.get_docstring(tree) or "")
    ]
    assert too_long == []


def is_command(file: Path, function: Function) -> bool:
    """A command's parameters are flags: each has its line, and a name where it is given."""
    decorated = any(".command" in ast.unparse(decorator) for decorator in function.decorator_list)
    return file.parent.name == "cli" and (decorated or function.name == "command")


def test_parameters_by_position() -> None:
    trains = []
    for file, tree in TREES.items():
        text = file.read_text(encoding="utf-8")
        for function in functions(tree):
            arguments = [*function.args.posonlyargs, *function.args.args]
            count = len([argument for argument in arguments if argument.arg not in ("self", "cls", "ctx")])
            exempt = function.name in PROTOCOLS or is_kernel(function) or is_command(file, function)
            if (
                count > BY_POSITION
                and not exempt
                and NAMED_BY_OTHERS not in (ast.get_source_segment(text, function) or "")
            ):
                trains.append((f"{name_of(file)} {function.name}", count))
    assert trains == []


WEIGH = """
import importlib, json, sys

class Waited(BaseException):
    pass

class Scales:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in barred:
            raise Waited

sys.meta_path.insert(0, Scales())
barred, modules = sys.argv[1:], sys.stdin.read().split()
weights = {}
while barred:
    for name in modules:
        try:
            module, _, attribute = name.partition(":")
            module = importlib.import_module(module)
            if attribute:
                getattr(module, attribute)
        except Waited:
            continue
        weights.setdefault(name, len(sys.argv[1:]) - len(barred))
    barred.pop(0)
print(json.dumps(weights))
"""


def weights_of(modules: list[str]) -> dict[str, int]:
    """For each of ``modules``, which of `HEAVY` its import waits for: none (0), the first, the first two, more."""
    command = [sys.executable, "-c", WEIGH, *HEAVY]
    done = subprocess.run(command, input="\n".join(modules), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return {module: len(HEAVY) for module in modules} | json.loads(done.stdout)


def is_required(module: str) -> bool:
    """Whether it comes with Python, this project or what this project requires; all else is optional."""
    package = re.split("[.:]", module)[0]
    return (package in REQUIRED or package in sys.stdlib_module_names) and module.partition(":")[0] not in SELDOM


def module_of(file: Path) -> str:
    parts = file.relative_to(PYTHON).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def lazy_imports(tree: ast.AST, modules: Container[str]) -> Iterator[tuple[int, str]]:
    """Line and target, `module` or `module:name`, of the imports within functions."""
    for function in functions(tree):
        for node in ast.walk(function):
            if isinstance(node, ast.Import):
                yield from ((node.lineno, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                for name in (alias.name for alias in node.names):
                    submodule = f"{node.module}.{name}"
                    yield node.lineno, submodule if submodule in modules else f"{node.module}:{name}"


def test_lazy_imports_spare_something_heavy() -> None:
    """Each hides an arrow of the graph: only where the module would else wait for something heavy or optional."""
    trees = {
        module_of(file): tree for file, tree in TREES.items() if file.is_relative_to(PYTHON) and file.stem != "__main__"
    }
    lazy = {module: sorted(set(lazy_imports(tree, trees))) for module, tree in trees.items()}
    weighed = sorted({*trees, *(target for imports in lazy.values() for _, target in imports if is_required(target))})
    weights = weights_of(weighed)
    needless = [
        f"{module}:{line} imports {target}"
        for module, imports in lazy.items()
        for line, target in imports
        if is_required(target) and weights[target] <= weights[module]
    ]
    assert needless == []
