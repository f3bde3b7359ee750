"""``langadapt export``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from langadapt.cli.options import AsJson
from langadapt.cli.progress import progress
from langadapt.corpus.documents import read_documents
from langadapt.pipeline.finished import held_out, is_run
from langadapt.pipeline.finished import model_of as trained_model
from langadapt.terminal import Terminal, echo

app = typer.Typer(no_args_is_help=True)

Model = Annotated[
    str,
    typer.Argument(metavar="RUN|MODEL", help="A run's folder (its finished model, else its trained one), or a model."),
]


@app.command("gguf")
def gguf(
    model: Model,
    *,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="F.gguf", help="File to write.", show_default=False)],
    type: Annotated[str, typer.Option(help="Of matrices: f16, bf16 or q8_0.")] = "bf16",
    text: Annotated[
        list[str] | None, typer.Option("--text", help="Text to prove it on. Default: what the run has set aside.")
    ] = None,
    no_proof: Annotated[bool, typer.Option("--no-proof", help="Do not load the file and compare it.")] = False,
    as_json: AsJson = False,
) -> None:
    """One file for llama.cpp and Ollama, proven to give the same ids and logits."""
    from langadapt.export.gguf_file import export_gguf

    folder, texts = model_of(model), text or own_texts(model)
    lines = (line for document in (read_documents(texts) if texts else ()) for line in document.split("\n"))
    with progress("export") as report_progress:
        report = export_gguf(folder, out, type=type, lines=lines, proof=not no_proof, progress=report_progress)
    if as_json:
        echo(json.dumps(report.to_dict(), indent=2, ensure_ascii=False))
        return
    console = Terminal()
    console.print(
        f"{report.file}: {report.bytes / 1e6:,.1f} MB, {report.tensors} tensors of `{report.architecture}` as "
        f"{report.type}; {report.tokenizer}",
        highlight=False,
        soft_wrap=True,
    )
    if report.proof is not None:
        proof = report.proof
        left = f" ({proof['unnormalized']:,} lines in another Unicode form left out)" if proof["unnormalized"] else ""
        console.print(
            f"proven with llama.cpp: the same ids on {proof['lines']:,} lines{left}; on {proof['windows']} windows "
            f"logits within {proof['logit_error']:.2%}, the same choice at {proof['same_choice']:.1%} of positions",
            highlight=False,
            soft_wrap=True,
        )
    console.print(f"ollama create NAME -f {report.file}.Modelfile", highlight=False, soft_wrap=True)


@app.command("vllm")
def vllm(
    model: Model,
    *,
    gpus: Annotated[int, typer.Option(help="GPUs that share the model.", min=1)] = 1,
    as_json: AsJson = False,
) -> None:
    """Check what vLLM needs of a folder, without vLLM, and print the line that serves it."""
    from langadapt.export.vllm import check_vllm
    from langadapt.tokenizer.check import findings_table

    folder = model_of(model)
    findings, line = check_vllm(folder, gpus=gpus)
    if as_json:
        found = [{"check": one.check, "status": one.status, "detail": one.detail} for one in findings]
        echo(json.dumps({"findings": found, "line": line}, indent=2, ensure_ascii=False))
    else:
        console = Terminal()
        console.print(findings_table(findings))
        console.print(line, highlight=False, soft_wrap=True)
    if any(one.status == "failed" for one in findings):
        raise typer.Exit(1)


@app.command("hub")
def hub(
    model: Model,
    *,
    to: Annotated[str, typer.Option(metavar="OWNER/NAME", help="Repository; made if it is new.", show_default=False)],
    public: Annotated[bool, typer.Option("--public", help="Make a new repository for everybody to see.")] = False,
) -> None:
    """Upload a model with its card to the Hugging Face hub; private unless told otherwise."""
    from langadapt.export.hub import push_to_hub

    echo(push_to_hub(model_of(model), to, private=not public))


def model_of(name: str) -> Path:
    """The model that a run ends in, with chat where it was finished, or the model itself.

    Raises:
        ConfigError: no model, or a run whose training is not over.
    """
    chat = Path(name) / "finished"
    return chat if is_run(name) and (chat / "config.json").is_file() else trained_model(name)


def own_texts(name: str) -> list[str]:
    """What a run has set aside."""
    return [str(file) for file in held_out(Path(name)).values()] if is_run(name) else []
