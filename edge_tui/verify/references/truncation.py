"""Computes the filters beyond the digit keys in float64: those that remove candidates and change none."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, log

import numpy as np

from edge_tui.verify.outcome import EDGE_ULPS, ULP, Context, Float64, Outcome, outcome
from edge_tui.verify.references.filters import call_warper, least, near, softmax, surprise
from edge_tui.verify.references.kinds import StageReference, Values

_BY_ORDER = "Of tokens that tie at the edge transformers keeps some, by the order of a sort; here all stay."
_LOGSUMEXP = (
    "transformers takes log p from logits less their logsumexp, which is coarse where logits are large."
)
TOP_H_MOST = 100
"""Likeliest tokens that transformers' top-H looks at."""


def entropy(p: Float64) -> float:
    """Computes the entropy of probabilities float64 `[V]` in nats."""
    some = p[p > 0]
    return float(-(some * np.log(some)).sum())


def size(z: Float64) -> float:
    """Returns the largest logit that weighs anything, at least 1: what rounding is relative to."""
    return max(1.0, float(np.abs(z[softmax(z) > 0]).max()))


def _top_a(z: Float64, v: Values, context: Context) -> Sequence[Outcome]:
    a = v["top_a"]
    return least(z, log(a) - 2 * float(surprise(z).min()) if a > 0 else -inf, 1.0)


def _epsilon(z: Float64, v: Values, context: Context) -> Sequence[Outcome]:
    cut = v["epsilon_cutoff"]
    return least(z, log(cut) if cut > 0 else -inf, 1.0)


def _eta(z: Float64, v: Values, context: Context) -> Sequence[Outcome]:
    cut = v["eta_cutoff"]
    if cut <= 0:
        return least(z, -inf, 1.0)
    return least(z, min(log(cut), log(cut) / 2 - entropy(softmax(z))), size(z))


def _p_less(z: Float64, v: Values, context: Context) -> Sequence[Outcome]:
    return least(z, log((softmax(z) ** 2).sum()), 1.0)


def _top_n_sigma(z: Float64, v: Values, context: Context) -> Sequence[Outcome]:
    n, left = v["top_n_sigma"], z[z > -inf]
    if n == 0:
        return [outcome(z, z > -inf)]
    bound = left.max() - n * np.sqrt(((left - left.mean()) ** 2).mean())
    scale = n * float(np.abs(left - left.mean()).max()) + float(np.abs(left).max())
    top = z == z.max()
    return [outcome(z, (z >= bound) | top, near(z, bound, max(1.0, scale)) & ~top)]


def first(z: Float64, count: int, fewest: int, most: int) -> Sequence[Outcome]:
    """Keeps the `count` likeliest tokens and what ties with the last; rounding decides within the others."""
    falling = np.sort(z)[::-1]
    last = falling[max(count, 1) - 1]
    low, high = falling[max(most, 1) - 1], falling[max(fewest, 1) - 1]
    doubt = (z >= low) & (z < high)
    equal = z == last
    return [outcome(z, (z >= last) & (z > -inf), doubt, equal if equal.sum() > 1 else None)]


def _top_h(z: Float64, v: Values, context: Context) -> Sequence[Outcome]:
    h = v["top_h"]
    if h >= 1:
        return [outcome(z, z > -inf)]
    p = softmax(np.sort(z)[::-1][:TOP_H_MOST])
    terms = np.where(p > 0, -p * np.log(np.where(p > 0, p, 1.0)), 0.0)
    rest = h * terms.sum() - terms.cumsum()
    # A probability below 2⁻¹⁴⁹ is none in float32, where transformers stops.
    held, slack = p > 2.0**-149, EDGE_ULPS * ULP * size(z)
    fewest, most = (int(((rest >= edge) & held).sum()) for edge in (slack, -slack))
    return first(z, int(((rest >= 0) & held).sum()), fewest, most)


def _tail_free(z: Float64, v: Values, context: Context) -> Sequence[Outcome]:
    share = v["tfs"]
    if share >= 1:
        return [outcome(z, z > -inf)]
    falling = np.sort(softmax(z))[::-1]
    bends = np.abs(np.diff(falling, 2))
    # Probabilities are rounded, so a bend is wrong by a part of them, which is much where they hardly bend.
    wrong = 4 * ULP * falling[: len(bends)]
    at, error, total = bends.cumsum(), wrong.cumsum(), share * bends.sum()
    slack = error + share * wrong.sum() + (EDGE_ULPS + len(z) / 1000) * ULP * bends.sum()
    flat = not bends.sum()  # also in float32: what is equal there is equal here
    fewest, most = (1 + int((at <= total + (0.0 if flat else side)).sum()) for side in (-slack, slack))
    return first(z, 1 + int((at <= total).sum()), fewest, most)


TRUNCATION = {
    "top_n_sigma": StageReference(_top_n_sigma),
    "top_h": StageReference(_top_h, call_warper("TopHLogitsWarper", "top_h", 1), (_BY_ORDER, _LOGSUMEXP)),
    "top_a": StageReference(_top_a),
    "epsilon": StageReference(_epsilon, call_warper("EpsilonLogitsWarper", "epsilon_cutoff", 0, 1)),
    "eta": StageReference(_eta, call_warper("EtaLogitsWarper", "eta_cutoff", 0, 1), (_LOGSUMEXP,)),
    "p_less": StageReference(_p_less),
    "tfs": StageReference(
        _tail_free, None, ("koboldcpp keeps one token less than textgen, whose rule this is.",)
    ),
}
