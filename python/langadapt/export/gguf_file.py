"""A model folder as one GGUF file for llama.cpp, Ollama and their kin; tensors are streamed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from langadapt.artefacts.folders import whole_file, write_atomically
from langadapt.artefacts.places import begins, check_file, check_space, check_text
from langadapt.errors import ConfigError, LangadaptError
from langadapt.export.modelfile import modelfile
from langadapt.export.proof import need_llama, prove
from langadapt.export.shapes import Shape, describe_shape, rotary_factors, shape_of, transformed
from langadapt.export.vocabulary import GgufVocabulary, describe_vocabulary, gguf_vocabulary
from langadapt.models.skeleton import model_names
from langadapt.models.weights import Entry, read_tensor
from langadapt.progress import Progress
from langadapt.swap.files import StoredModel, read_model
from langadapt.tokenizer.encoder import Tokenizer

TYPES = ("f16", "bf16", "q8_0")
"""How matrices are stored; vectors are float32 always."""
BLOCK_BYTES = 64 << 20
"""Float32 of a matrix that is converted at once."""


@dataclass
class GgufReport:
    """What was written, and what was proven of it."""

    file: str
    type: str
    architecture: str
    tokenizer: str
    """How llama.cpp is told of the tokenizer."""
    tensors: int
    bytes: int
    proof: dict[str, Any] | None = None
    """See :class:`langadapt.export.proof.Proof`; none where none was asked for."""
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


@dataclass(frozen=True)
class Export:
    """Everything about a file before it is written."""

    stored: StoredModel
    shape: Shape
    vocabulary: GgufVocabulary
    type: str
    gguf: Any
    """The ``gguf`` package."""

    @property
    def config(self) -> Any:
        """The text configuration."""
        return self.stored.config.get_text_config()

    def tensors(self) -> Iterator[tuple[str, str, Entry]]:
        """Name in GGUF, name in the model, and where it lies.

        Raises:
            ConfigError: a tensor that the architecture has no name for.
        """
        stored, gguf = self.stored, self.gguf
        arch = next(arch for arch, name in gguf.MODEL_ARCH_NAMES.items() if name == self.shape.name)
        names = gguf.get_tensor_name_map(arch, self.config.num_hidden_layers)
        known, seen = model_names(stored.skeleton, stored.entries), set()
        for key, entry in stored.entries.items():
            name = stored.names.get(key) or known.get(key)
            # Buffers that transformers does not load, and tied matrices that are stored twice.
            if name is None or name in seen:
                continue
            seen.add(name)
            found = names.get_name(name, try_suffixes=(".weight", ".bias"))
            if found is None:
                raise ConfigError(f"{stored.folder}: GGUF's `{self.shape.name}` has no tensor like `{name}`")
            yield found, name, entry

    def kind_of(self, entry: Entry) -> Any:
        """The GGUF type of a tensor.

        Raises:
            ConfigError: rows that cannot be cut into blocks.
        """
        types = self.gguf.GGMLQuantizationType
        if len(entry.shape) < 2:
            return types.F32
        if self.type == "q8_0" and entry.shape[-1] % 32:
            raise ConfigError(f"q8_0 needs rows of a multiple of 32, but there is {list(entry.shape)}; write f16")
        return types[self.type.upper()]


def open_export(folder: Path, type: str) -> Export:
    """Read what a file is made from, and refuse what cannot be one.

    Raises:
        LangadaptError: the package ``gguf`` is not installed.
        ConfigError: an unknown type, or an architecture or tokenizer that llama.cpp does not have.
    """
    if type not in TYPES:
        raise ConfigError(f"type: {type!r}; there are {', '.join(TYPES)}")
    try:
        import gguf
    except ImportError:
        raise LangadaptError("GGUF needs the package gguf; install it: pip install 'langadapt[gguf]'") from None
    stored = read_model(folder)
    vocabulary = gguf_vocabulary(Tokenizer.from_pretrained(folder), stored.tables.rows)
    return Export(stored, shape_of(stored.skeleton), vocabulary, type, gguf)


def export_gguf(
    folder: str | Path,
    out: str | Path,
    *,
    type: str = "bf16",
    lines: Iterable[str] = (),
    proof: bool = True,
    progress: Progress | None = None,
) -> GgufReport:
    """Write a model folder as GGUF, with an Ollama Modelfile beside it, and prove that it speaks the same.

    Args:
        folder: of the model, with its tokenizer.
        out: the file, replaced when it is GGUF already; the Modelfile is ``out`` with ``.Modelfile`` behind it.
        type: of matrices: ``f16``, ``bf16`` or ``q8_0``.
        lines: text to prove it on, besides a few sentences in several scripts.
        proof: load the file with llama-cpp-python and compare ids and logits.
        progress: called as ``(phase, done, total, unit)``.

    Raises:
        ConfigError: an architecture, tokenizer or type that cannot be.
        MismatchError: llama.cpp reads or computes something else; names the first line and the cause. The file stays.
        LangadaptError: a package is not installed.
        OSError: something else lies at ``out``, or there is no room.
    """
    out, recipe = Path(out), Path(f"{out}.Modelfile")
    check_text(out)
    check_file(out, lambda there: begins(there, b"GGUF"))
    check_file(recipe, lambda there: begins(there, b"FROM "))
    job = open_export(Path(folder), type)
    if proof:
        need_llama()
    kinds = {name: job.kind_of(entry) for name, _, entry in job.tensors()}
    check_space(out, sum(2 * entry.size for _, _, entry in job.tensors()))
    with whole_file(out) as file:
        write_file(job, file, kinds, progress)
    write_atomically(recipe, modelfile(out.name, job.vocabulary, job.stored.folder))
    report = GgufReport(
        str(out), type, job.shape.name, str(job.vocabulary.form), len(kinds), out.stat().st_size, notes=[]
    )
    if proof:
        report.proof = asdict(prove(out, job.stored.folder, lines, type=type, progress=progress))
    return report


def write_file(job: Export, out: Path, kinds: dict[str, Any], progress: Progress | None) -> None:
    """All entries, then all tensors, one in memory at a time."""
    with closing(job.gguf.GGUFWriter(out, job.shape.name)) as writer:
        factors = rotary_factors(job.config)
        describe_file(job, writer)
        announce_tensors(job, writer, kinds, factors)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        if factors is not None:
            writer.write_tensor_data(factors.numpy())
        total, done = sum(entry.size for _, _, entry in job.tensors()), 0
        for name, known, entry in job.tensors():
            tensor = transformed(read_tensor(entry), known, job.shape, job.config)
            writer.write_tensor_data(converted(tensor, kinds[name], job.gguf, name))
            done += entry.size
            if progress is not None:
                progress("write tensors", done, total, "elements")


def describe_file(job: Export, writer: Any) -> None:
    """All entries but the tensors'."""
    writer.add_name(job.stored.folder.resolve().name)
    writer.add_file_type({"f16": 1, "q8_0": 7, "bf16": 32}[job.type])
    writer.add_quantization_version(job.gguf.GGML_QUANT_VERSION)
    describe_shape(writer, job.shape, job.config)
    writer.add_vocab_size(len(job.vocabulary.tokens))
    describe_vocabulary(writer, job.vocabulary)


def announce_tensors(job: Export, writer: Any, kinds: dict[str, Any], factors: Tensor | None) -> None:
    """Names, shapes and types of all tensors, in the order in which they are written."""
    gguf, types = job.gguf, job.gguf.GGMLQuantizationType
    if factors is not None:
        writer.add_tensor_info("rope_freqs.weight", list(factors.shape), np.dtype(np.float32), 4 * len(factors))
    for name, _, entry in job.tensors():
        kind = kinds[name]
        shape = gguf.quant_shape_to_byte_shape(entry.shape, kind)
        dtype = {types.F32: np.float32, types.F16: np.float16}.get(kind, np.uint8)
        seen = shape if dtype is np.uint8 else entry.shape
        writer.add_tensor_info(name, seen, np.dtype(dtype), int(np.prod(shape)), raw_dtype=kind)


def converted(tensor: Tensor, kind: Any, gguf: Any, name: str) -> NDArray[Any]:
    """The bytes of a tensor in a GGUF type, a block of rows at a time.

    Raises:
        ConfigError: values that float16 does not reach.
    """
    rows = tensor.reshape(-1, tensor.shape[-1]) if tensor.dim() else tensor.reshape(1, 1)
    step = max(1, BLOCK_BYTES // (4 * rows.shape[-1]))
    parts: list[NDArray[Any]] = []
    for block in rows.split(step):
        values = block.float().numpy()
        if kind == gguf.GGMLQuantizationType.F16 and np.abs(values).max(initial=0) > np.finfo(np.float16).max:
            raise ConfigError(f"`{name}` holds {np.abs(values).max():g}, which f16 cannot; write bf16")
        parts.append(gguf.quants.quantize(values, kind))
    return concatenated(parts)


def concatenated(parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """The blocks in a row."""
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
