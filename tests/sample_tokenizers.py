"""Small tokenizers of every family, trained on a few lines, for tests of vocabulary matching and the swap."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

ENGLISH = [
    "The house stands by the river and the old man walks to the house every day.",
    "In 2024 the new train goes from Berlin to Hamburg and back again, they say.",
    "She reads a book about the water, the mountains and the people of the city.",
] * 4
GERMAN = [
    "Das Haus steht am Fluss und der alte Mann geht jeden Tag zu dem Haus.",
    "Im Jahr 2024 fährt der neue Zug von Berlin nach Hamburg und wieder zurück.",
    "Sie liest ein Buch über das Wasser, die Berge und die Menschen der Stadt.",
] * 4


def byte_level(text: list[str], size: int, specials: tuple[str, ...] = ("<|endoftext|>",)) -> Tokenizer:
    """GPT-2 style."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=list(specials), initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(text, trainer)
    return tokenizer


def metaspace(text: list[str], size: int, specials: tuple[str, ...] = ("<unk>", "<s>", "</s>", "<pad>")) -> Tokenizer:
    """Llama-2 style: `▁` for spaces, byte fallback."""
    learnt = Tokenizer(models.BPE(unk_token="<unk>"))
    learnt.normalizer = normalizers.Replace(" ", "▁")
    learnt.pre_tokenizer = pre_tokenizers.Split(Regex("▁?[^▁]+"), "isolated")
    byte_tokens = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=[*specials, *byte_tokens], show_progress=False)
    learnt.train_from_iterator([f" {line}" for line in text], trainer)
    import json

    data = json.loads(learnt.to_str())
    model = models.BPE(
        vocab=data["model"]["vocab"],
        merges=[tuple(pair) for pair in data["model"]["merges"]],
        unk_token="<unk>",
        byte_fallback=True,
        fuse_unk=True,
    )
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens(list(specials))
    return tokenizer


def wordpiece(text: list[str], size: int) -> Tokenizer:
    """BERT style, lower case."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(vocab_size=size, special_tokens=specials, show_progress=False)
    tokenizer.train_from_iterator(text, trainer)
    return tokenizer


def save(tokenizer: Tokenizer, folder: Path, **roles: str) -> Path:
    """As `AutoTokenizer` loads it; `roles` such as `eos_token="</s>"`."""
    from transformers import PreTrainedTokenizerFast

    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **roles).save_pretrained(folder)
    return folder
