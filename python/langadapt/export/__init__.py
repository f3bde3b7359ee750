"""An adapted model in the forms that other runtimes read, with a proof that it speaks the same there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from langadapt.exports import on_first_use

if TYPE_CHECKING:
    from langadapt.export.gguf_file import export_gguf
    from langadapt.export.hub import push_to_hub
    from langadapt.export.vllm import check_vllm

__all__ = ["check_vllm", "export_gguf", "push_to_hub"]

_HOMES = {
    "langadapt.export.gguf_file": ("export_gguf",),
    "langadapt.export.hub": ("push_to_hub",),
    "langadapt.export.vllm": ("check_vllm",),
}
__getattr__, __dir__ = on_first_use(__name__, _HOMES)
