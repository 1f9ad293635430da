"""Finds the shortest prefix that weighs enough: the cut of top-k, top-p and typical sampling.

Order the candidates by some key, add up their weights, stop when a target is reached. With key = how far a
logit lies below the best one, weight 1 and target k this is top-k; with weight p it is top-p; with the
distance from the entropy as key it is typical sampling. Candidates whose keys are equal stay together, so the
answer never depends on the order in which a sort happens to leave ties.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

_DIGITS = ((20, 11), (10, 10), (0, 10))
"""A non-negative float's 31 bits as three digits, high to low: (shift, width)."""

_SMALL = 4096
"""Up to this vocabulary a sort is the faster way on a CPU too."""


def cutoff(key: Tensor, weight: Tensor, target: Tensor) -> Tensor:
    """Finds the key of the last candidate that is needed.

    Args:
        key: float32 `[R, V]`, at least 0; +inf for removed candidates. Small comes first.
        weight: float32 `[R, V]`, at least 0; 0 for removed candidates.
        target: float32 `[R, 1]`.

    Returns:
        float32 `[R, 1]`: the smallest key `c` with `Σ weight[key ≤ c] ≥ target`. Where the weights never
        reach the target, the largest key that carries any.
    """
    select = key.device.type == "cpu" and key.shape[-1] > _SMALL
    return by_radix(key, weight, target) if select else by_sort(key, weight, target)


def sort_descending(weight: Tensor) -> Tensor:
    """Sorts each row, the greatest first.

    A CPU sorts the bit patterns, which compare like the numbers: for whole numbers torch has a radix sort,
    1 ms for 152k candidates on a core, where floats take 15.

    Args:
        weight: float32 `[R, V]`, at least 0.

    Returns:
        float32 `[R, V]`.
    """
    import torch

    if weight.device.type != "cpu":
        return weight.sort(-1, descending=True).values
    rows = torch.view_copy(weight, torch.int32).unbind(0)
    return torch.view_copy(torch.stack([row.sort().values for row in rows]), torch.float32).flip(-1)


def by_sort(key: Tensor, weight: Tensor, target: Tensor) -> Tensor:
    """Finds it by a full sort; on accelerators always, since it needs no atomics, whose order would vary."""
    keys, order = key.sort(-1)
    mass = weight.gather(-1, order).cumsum(-1)
    # A rounded sum may fall short of a target that the exact one reaches.
    last = (mass < target.minimum(mass[..., -1:])).sum(-1, keepdim=True)
    return keys.gather(-1, last)


def by_radix(key: Tensor, weight: Tensor, target: Tensor) -> Tensor:
    """Finds it by radix selection, row by row: 1 ms for 152k candidates on a CPU core; a sort takes 11."""
    import torch

    # Copies, and rows taken apart by an operation, because a trace knows neither views nor loops.
    columns = torch.view_copy(key, torch.int32), weight.double(), target.double()[:, 0]
    rows = zip(*(column.unbind(0) for column in columns), strict=True)
    return torch.view_copy(torch.stack([_radix_row(*row) for row in rows]), torch.float32)[:, None]


def _radix_row(bits: Tensor, weight: Tensor, missing: Tensor) -> Tensor:
    """Finds the bit pattern of one row's cutoff, digit by digit.

    Non-negative floats compare like their patterns. A histogram of the weights over a digit tells which
    value of it the cutoff has, and so which few candidates the next digit has to look at.
    """
    import torch

    found = torch.zeros((), dtype=torch.int32)
    for shift, width in _DIGITS:
        digit = (bits >> shift) & ((1 << width) - 1)
        mass = torch.bincount(digit, weight, 1 << width).cumsum(0)
        # A rounded sum may fall short of a target that the exact one reaches.
        missing = missing.minimum(mass[-1])
        place = torch.searchsorted(mass, missing)
        missing = missing - torch.where(place > 0, mass[place - 1], 0.0)
        found = (found << width) | place.int()
        inside = (digit == place).nonzero()[:, 0]
        bits, weight = bits[inside], weight[inside]
    return found
