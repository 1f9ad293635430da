"""Computes probabilities of logits and numbers of whole rows, fast on every device.

`V` is the last axis, and the others are rows. A removed candidate has the logit −inf and the probability 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_tui.decoders.core.kernels import for_rows

if TYPE_CHECKING:
    from torch import Tensor


def softmax(z: Tensor) -> Tensor:
    """Computes the probabilities of logits float32 `[…, V]`; NaN in a row without a candidate."""
    kernels = for_rows(z)
    return z.softmax(-1) if kernels is None else kernels.softmax(z, False)


def log_softmax(z: Tensor) -> Tensor:
    """Computes the log-probabilities of logits float32 `[…, V]` (nats)."""
    kernels = for_rows(z)
    return z.log_softmax(-1) if kernels is None else kernels.softmax(z, True)


def log_sum_exp(z: Tensor) -> Tensor:
    """Computes `log Σ exp z` of logits float32 `[…, V]`, which their log-probabilities fall short of them."""
    kernels = for_rows(z)
    return z.logsumexp(-1, keepdim=True) if kernels is None else kernels.statistic(z, "log_sum_exp")


def greatest(x: Tensor) -> Tensor:
    """Finds the greatest number of each row, float32 `[…, 1]`; NaN where one is NaN."""
    kernels = for_rows(x)
    return x.amax(-1, keepdim=True) if kernels is None else kernels.statistic(x, "greatest")


def least(x: Tensor) -> Tensor:
    """Finds the least number of each row, float32 `[…, 1]`; NaN where one is NaN."""
    return x.amin(-1, keepdim=True) if for_rows(x) is None else -greatest(-x)


def total(x: Tensor) -> Tensor:
    """Adds up each row, float32 `[…, 1]`."""
    kernels = for_rows(x)
    return x.sum(-1, keepdim=True) if kernels is None else kernels.statistic(x, "total")


def count(z: Tensor) -> Tensor:
    """Counts the candidates that are left of logits `[…, V]`, float32 `[…, 1]`."""
    import torch

    kernels = for_rows(z)
    if kernels is not None:
        return kernels.statistic(z, "count")
    return (z > -torch.inf).sum(-1, keepdim=True).float()


def entropy(prob: Tensor) -> Tensor:
    """Computes the entropy of probabilities `[…, V]`, `−Σ p log p`, float32 `[…, 1]` (nats)."""
    import torch

    kernels = for_rows(prob)
    if kernels is not None:
        return kernels.statistic(prob, "entropy")
    # Not torch.special.entr, which a GPU compiles at its first use.
    return 0.0 - torch.xlogy(prob, prob).sum(-1, keepdim=True)


def evenness(z: Tensor) -> Tensor:
    """Computes the entropy of logits `[…, V]` over the logarithm of their candidates' number, `[…, 1]`.

    It is 1 where all candidates are equally likely, 0 where there is one or none (Pielou, 1966).
    """
    kernels = for_rows(z)
    if kernels is not None:
        return kernels.statistic(z, "evenness")
    number = count(z)
    return (entropy(z.softmax(-1)) / number.log()).masked_fill(number <= 1, 0.0)


def spread(z: Tensor) -> Tensor:
    """Computes the standard deviation of the logits that are left, by their number, float32 `[…, 1]`."""
    kernels = for_rows(z)
    if kernels is not None:
        return kernels.statistic(z, "spread")
    left, number = z > -float("inf"), count(z)
    mean = z.where(left, 0.0).sum(-1, keepdim=True) / number
    sigma: Tensor = (z - mean).where(left, 0.0).norm(dim=-1, keepdim=True) / number.sqrt()
    return sigma


def reach(weight: Tensor, share: Tensor) -> Tensor:
    """Counts the leading entries whose running sum is at most a share of the whole sum.

    Args:
        weight: float32 `[R, V]`, at least 0.
        share: float32 `[R, 1]`.

    Returns:
        int64 `[R, 1]`, 0 to `V`.
    """
    kernels = for_rows(weight)
    if kernels is not None:
        return kernels.reach(weight, share)
    return (weight.cumsum(-1) <= share * weight.sum(-1, keepdim=True)).sum(-1, keepdim=True)
