"""Computes stages that look at the text so far, and calls transformers' classes. Every byte is a token."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import TYPE_CHECKING

import numpy as np

from edge_tui.verify.outcome import Context, Float64, Outcome, outcome
from edge_tui.verify.references.kinds import Peer, Recording, StageReference, Values

if TYPE_CHECKING:
    import torch

_BREAKERS = frozenset(b'\n:"*')
_LONGEST = 50
_MASK = (1 << 64) - 1
_KEY = 0x9E3779B97F4A7C15


def _dry(z: Float64, v: Values, context: Context) -> Sequence[Outcome]:
    z, ids = z.copy(), (*context.prompt, *context.output)
    lengths: dict[int, int] = {}
    for place, token in enumerate(ids):
        length = 0
        while length < min(place, _LONGEST) and ids[place - 1 - length] == ids[-1 - length]:
            if ids[-1 - length] in _BREAKERS:
                break
            length += 1
        lengths[token] = max(length, lengths.get(token, 0))
    for token, length in lengths.items():
        if length >= v["dry_allowed_length"] and token not in _BREAKERS:
            z[token] -= v["dry_multiplier"] * v["dry_base"] ** (length - v["dry_allowed_length"])
    return [outcome(z, z > -inf)]


def _no_repeat_ngram(z: Float64, v: Values, context: Context) -> Sequence[Outcome]:
    ids, n = (*context.prompt, *context.output), int(v["no_repeat_ngram_size"])
    kept = z > -inf
    for place in range(len(ids) - n + 1) if n else ():
        *before, token = ids[place : place + n]
        if tuple(before) == ids[len(ids) - n + 1 :]:
            kept[token] = False
    return [outcome(z, kept)]


def _call_no_repeat_ngram(z: torch.Tensor, v: Values, context: Context) -> torch.Tensor | None:
    import torch
    from transformers import NoRepeatNGramLogitsProcessor

    if not v["no_repeat_ngram_size"]:
        return z
    processor = NoRepeatNGramLogitsProcessor(int(v["no_repeat_ngram_size"]))
    left: torch.Tensor = processor(torch.tensor([[*context.prompt, *context.output]]), z)
    return left if bool((left > -inf).any()) else None


def _min_new_tokens(z: Float64, v: Values, context: Context) -> Sequence[Outcome]:
    kept = z > -inf
    if context.step < v["min_new_tokens"]:
        kept[list(context.ends)] = False
    return [outcome(z, kept)]


def _call_min_new_tokens(z: torch.Tensor, v: Values, context: Context) -> torch.Tensor | None:
    import torch
    from transformers import MinNewTokensLengthLogitsProcessor

    if not context.ends:
        return z
    processor = MinNewTokensLengthLogitsProcessor(0, int(v["min_new_tokens"]), list(context.ends))
    left: torch.Tensor = processor(torch.zeros(1, context.step, dtype=torch.int64), z)
    return left if bool((left > -inf).any()) else None


def _watermark(z: Float64, v: Values, context: Context) -> Sequence[Outcome]:
    words = _words(len(z))
    last = (*context.prompt, *context.output)[-1]
    with np.errstate(over="ignore"):
        product = ((words[last] ^ np.uint64(_KEY)) | np.uint64(1)) * words
    green = (product.view(np.int64) >> 40) < (v["watermark_share"] - 0.5) * 2.0**24
    return [outcome(z + v["watermark_bias"] * green, z > -inf)]


def _words(count: int) -> np.ndarray:
    """Makes the words of ids 0 to `count` − 1 by Squares, uint64."""
    bits = _squares(np.arange(2 * count, dtype=np.uint64))
    return np.asarray((bits[::2] << np.uint64(32)) | bits[1::2])


def _squares(counter: np.ndarray) -> np.ndarray:
    """Computes the generator of Widynski (arXiv 2004.06278) for each counter, 32 bits."""
    half = np.uint64(32)
    with np.errstate(over="ignore"):
        x = y = counter * np.uint64(_KEY)
        z = y + np.uint64(_KEY)
        for add in (y, z, y):
            x = x * x + add
            x = (x >> half) | (x << half)
        return np.asarray((x * x + z) >> half)


WRITTEN = {
    "dry": StageReference(
        _dry,
        recording=Recording(
            "llama.cpp dry",
            "dry",
            lambda a: {
                "dry_multiplier": a["multiplier"],
                "dry_base": a["base"],
                "dry_allowed_length": a["allowed_length"],
            },
        ),
        disagreements=(
            "llama.cpp also finds breakers that are spread over several tokens, and counts repetitions of any"
            " length; here they count up to 50.",
        ),
        place="penalty",
    ),
    "no_repeat_ngram": StageReference(
        _no_repeat_ngram,
        Peer("transformers NoRepeatNGramLogitsProcessor", _call_no_repeat_ngram),
        disagreements=("transformers looks at the whole text, here at its last 1,024 tokens.",),
        place="penalty",
    ),
    "min_new_tokens": StageReference(
        _min_new_tokens,
        Peer("transformers MinNewTokensLengthLogitsProcessor", _call_min_new_tokens),
        place="penalty",
    ),
    "watermark": StageReference(
        _watermark,
        disagreements=("transformers permutes the vocabulary, so its green tokens are others.",),
    ),
}
"""Stages that look at the text so far."""
