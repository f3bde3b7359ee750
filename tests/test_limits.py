"""What a system may refuse and what a file may name: the work goes on with what there is, or ends with one line."""

import json
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow
import pytest
from sample_tokenizers import byte_level

from langadapt import Tokenizer, build_corpus, measure_fertility
from langadapt.errors import DataError
from langadapt.tokenizer.package import package_errors

AS_NOBODY = """
import os, resource, sys
from langadapt import Tokenizer, build_corpus, train_bpe, tokenize_corpus
folder, spare = sys.argv[1], int(sys.argv[2])
os.chdir(folder)
tokenizer = Tokenizer.from_pretrained("tokenizer.json")
tasks = len(os.listdir("/proc/self/task")) + spare
resource.setrlimit(resource.RLIMIT_NPROC, (tasks, tasks))
os.setuid(65534)
build_corpus("a.jsonl", "corpus", threads=40)
tokenize_corpus("a.jsonl", tokenizer, "store", threads=40)
train_bpe("a.jsonl", vocab_size=300, threads=40)
tokenizer.encode_batch(["Wort"] * 1000, threads=40)
"""


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder in which anybody may write."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="the limit of processes counts those of a user that has no others")
@pytest.mark.parametrize("spare", [2, 6])
def test_refused_threads_cost_only_time(open_folder: Path, spare: int) -> None:
    texts = [f"Satz {n} über Brücken und Häuser" for n in range(30_000)]
    (open_folder / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    byte_level(texts[:100], 300).save(str(open_folder / "tokenizer.json"))
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-c", AS_NOBODY, str(open_folder), str(spare)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode == 0, done.stderr
    build_corpus(open_folder / "a.jsonl", open_folder / "usual")
    for name in ("train.jsonl.zst", "validation.jsonl.zst"):
        assert (open_folder / "corpus" / name).read_bytes() == (open_folder / "usual" / name).read_bytes()


WITH_LITTLE_MEMORY = """
import resource, sys
from langadapt import read_documents
now = 1024 * int(open("/proc/self/status").read().split("VmSize:")[1].split()[0])
resource.setrlimit(resource.RLIMIT_AS, (now + (700 << 20),) * 2)
print(list(read_documents(sys.argv[1])))
"""


def test_a_line_larger_than_the_memory_is_skipped(tmp_path: Path) -> None:
    def packed(data: bytes) -> bytes:
        return pyarrow.compress(data, codec="zstd", asbytes=True)

    path = tmp_path / "a.jsonl.zst"
    middle = packed(b"x" * (8 << 20)) * 192
    path.write_bytes(packed(b'{"text": "first"}\n{"text": "') + middle + packed(b'"}\n{"text": "last"}\n'))
    command = [sys.executable, "-c", WITH_LITTLE_MEMORY, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout.strip()) == (0, "['first', 'last']"), done.stderr


WORDS_IN_LITTLE_MEMORY = """
import resource, sys
from langadapt import train_bpe
now = 1024 * int(open("/proc/self/status").read().split("VmSize:")[1].split()[0])
resource.setrlimit(resource.RLIMIT_AS, (now + (60 << 20),) * 2)
letters = str.maketrans("0123456789", "ghijklmnop")
word = lambda n: f"{n * 2654435761 % 2**40:x}".translate(letters)
train_bpe(texts=(" ".join(map(word, range(n, n + 1000))) for n in range(0, 1_500_000, 1000)), vocab_size=300, threads=1)
"""


def test_refused_memory_is_one_line_and_no_abort() -> None:
    command = [sys.executable, "-c", WORDS_IN_LITTLE_MEMORY]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, env={**os.environ, "RUST_BACKTRACE": "0"}
    )
    assert done.returncode == 1
    assert re.fullmatch(r"error: out of memory: the system refused \d+ bytes more; .*\n", done.stderr)


def test_an_id_without_pieces_below_it_is_refused() -> None:
    definition = json.loads(byte_level(["ein Text"], 300).to_str())
    definition["model"]["vocab"]["zz"] = 2**32 - 1
    with pytest.raises(DataError, match="id of 4294967295 in a vocabulary of"):
        Tokenizer(json.dumps(definition).encode())


def test_a_panic_of_the_package_is_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # An earlier command may have left a handler whose stream is closed by now, and `--debug`.
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    definition = json.loads(byte_level(["ein Text"], 300).to_str())
    added = {"single_word": False, "normalized": False, "special": False}
    definition["added_tokens"] += [
        {"id": 9000, "content": "<m>", "lstrip": False, "rstrip": True, **added},
        {"id": 9001, "content": "  ", "lstrip": True, "rstrip": False, **added},
    ]
    definition["normalizer"] = {"type": "Lowercase"}
    tokenizer = Tokenizer(json.dumps(definition).encode())
    assert tokenizer.backend == "tokenizers"
    texts = tmp_path / "a.txt"
    texts.write_text("<m>   x\n" * 300)
    for work in (
        lambda: tokenizer.encode("<m>   x"),
        lambda: tokenizer.encode_batch(["<m>   x"] * 300),
        lambda: measure_fertility({"its": tokenizer}, {"a": texts}),
    ):
        with pytest.raises(DataError, match=r"cannot encode this text: .*bad split"):
            work()
    definition["normalizer"] = {"type": "Precompiled", "precompiled_charsmap": "AAAA"}
    with pytest.raises(DataError, match=r"cannot read it: .*precompiled_charsmap"):
        Tokenizer(json.dumps(definition).encode())
    assert capfd.readouterr().err == ""


def test_what_is_said_while_a_package_works_is_kept(capfd: pytest.CaptureFixture[str]) -> None:
    with package_errors("outer"):
        os.write(2, b"first, ")
        with package_errors("inner"):
            os.write(2, b"second, ")
    os.write(2, b"third")
    assert capfd.readouterr().err == "first, second, third"


def test_many_added_tokens_and_long_ones_take_linear_time() -> None:
    definition = json.loads(byte_level(["ein Text"], 300).to_str())
    rest = {"lstrip": False, "rstrip": False, "single_word": False, "special": False}
    many = [{"id": 400 + n, "content": f"<{n}>", "normalized": n % 2 == 0, **rest} for n in range(60_000)]
    long = {"id": 70_000, "content": "ab" * 300_000, "normalized": False, **rest}
    definition["added_tokens"] += [*many, long]
    tokenizer = Tokenizer(json.dumps(definition).encode())
    assert tokenizer.backend == "native"
    ids = tokenizer.encode("<7>" * 50_000 + "ab" * 299_999)
    assert len(ids) > 50_000
    assert [tokenizer.token_to_id(f"<{n}>") for n in range(0, 60_000, 7)].count(None) == 0
