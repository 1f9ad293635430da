"""A watermark (Kirchenbauer et al., arXiv 2301.10226) favours a set of tokens that the one before chooses.

`z += δ` for green tokens, a share γ of the vocabulary. Whether a token is green is a hash of it and of the
token before, so a text of T such pairs has γT green ones by chance, and `z_score` tells how many more it has.
Defaults γ = 0.25, δ = 2; δ = 0 is neutral. Reference: closed form. transformers' `WatermarkLogitsProcessor`
permutes the vocabulary with a generator seeded by the token before, which takes a sort and a wait; its green
tokens are others, so neither detects the other's texts. The hash has no secret: anybody can detect and remove
it.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

from edge_tui.decoders.base import Env, Filter, Needs, Param, Params, Rng, State, Tensor

KEY = -0x61C8864680B583EB
"""Odd, 2⁶⁴ over the golden ratio."""


class Watermark(Filter):
    """Raises the logits of green tokens."""

    name = "watermark"
    title = "watermark"
    summary = "Draws with a preference by which the text can be recognised."
    rank = 53
    reshapes = True
    params = (
        Param.share("watermark_share", 0.25, "γ: share of the vocabulary that is green."),
        Param("watermark_bias", 2.0, 0.0, 20.0, "δ: higher is easier to detect; 0 is off.", 0.1, neutral=0.0),
    )
    needs = Needs(history=1)

    def constants(self, env: Env) -> State:
        """Hashes every token."""
        import torch

        return {"words": words(torch.arange(env.vocab, device=env.device))}

    def apply(self, z: Tensor, p: Params, s: State, rng: Rng) -> Tensor:
        """Adds the bias to the tokens that are green after the last one."""
        before = s["words"][s["ids"][:, -1:].clamp(0, z.shape[-1] - 1)]
        green = is_green(before, s["words"], p["watermark_share"])
        return z + p["watermark_bias"] * green


def words(ids: Tensor) -> Tensor:
    """Hashes ids to 64 bits: the number of each in a sequence that looks random; int64."""
    import torch

    key = torch.full_like(ids.view(-1)[:1], KEY)
    rng = Rng(key, torch.zeros_like(key))
    twice = 2 * ids.view(1, -1)
    return ((rng.bits(twice) << 32) | rng.bits(twice + 1)).view(ids.shape)


def is_green(before: Tensor, words: Tensor, share: Tensor | float) -> Tensor:
    """Tells which tokens are green.

    Args:
        before: int64, words of the tokens before.
        words: int64, those of the tokens themselves.
        share: γ.
    """
    return (((before ^ KEY) | 1) * words >> 40) < (share - 0.5) * 2.0**24  # float32 holds 24 bits


def z_score(ids: Sequence[int], share: float = 0.25) -> float:
    """Computes by how many standard deviations a text has more green tokens than chance; 0 without a pair."""
    import torch

    if len(ids) < 2:
        return 0.0
    hashes, pairs = words(torch.tensor(ids)), len(ids) - 1
    green = int(is_green(hashes[:-1], hashes[1:], share).sum())
    return (green - share * pairs) / sqrt(pairs * share * (1 - share))
