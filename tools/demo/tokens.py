"""Trains the tokenizer of a text, and turns the text into arrays of tokens."""

from __future__ import annotations

from pathlib import Path

import torch

from tools.demo.texts import EOS, Split, TrainingText

_SAMPLE = 40_000
"""Texts that the tokenizer is made from at most; more change no merge that matters."""
_AT_ONCE = 10_000


def prepare(text: TrainingText, folder: Path, work: Path) -> None:
    """Trains the tokenizer, and writes it and the token arrays into ``work``."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    work.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(text.pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=text.shapes["expert"].vocab_size,
        special_tokens=[EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = list(text.read(folder, "train"))
    tokenizer.train_from_iterator(texts[:_SAMPLE], trainer)
    # Pretty-printing would double the size of a file that ships twice.
    (work / "tokenizer.json").write_text(tokenizer.to_str(pretty=False), encoding="utf-8")
    splits: tuple[Split, ...] = ("train", "validation")
    eos = tokenizer.token_to_id(EOS)
    for split in splits:
        texts = list(text.read(folder, split))
        size = sum(len(one.encode()) for one in texts)
        pieces = []
        for at in range(0, len(texts), _AT_ONCE):
            encoded = tokenizer.encode_batch(texts[at : at + _AT_ONCE], add_special_tokens=False)
            pieces.append(torch.tensor([i for e in encoded for i in (*e.ids, eos)], dtype=torch.int16))
        ids = torch.cat(pieces)
        torch.save({"ids": ids, "bytes": size}, work / f"{split}.tokens.pt")
        print(f"{split}: {len(texts):,} texts, {size:,} bytes, {len(ids):,} tokens", flush=True)
