"""The few best of very many, at the same cost on every device."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

_SHARE = 1024
"""Candidates among which a first choice is made."""


def best(z: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The greatest entries of each row and where they are, best first.

    To select from one long row keeps a corner of a GPU busy for as long as a sort. So the best of each of
    many short shares are taken first, which occupies all of it, and the best of those after.

    Args:
        z: float `[R, V]`; −inf means removed.
        count: How many; no more than `V`.

    Returns:
        values float `[R, count]` and ids int64 `[R, count]`. Where too few are left, the values of the rest
        are −inf and their ids are any.
    """
    if z.device.type == "cpu" or z.shape[-1] < 4 * _SHARE or count > _SHARE // 8:
        values, ids = z.topk(count, -1)
        return values, ids
    return _in_shares(z, count)


def _in_shares(z: Tensor, count: int) -> tuple[Tensor, Tensor]:
    import torch

    width = z.shape[-1]
    padded = torch.nn.functional.pad(z, (0, -width % _SHARE), value=-torch.inf)
    shares = padded.view(len(z), -1, _SHARE)
    values, places = shares.topk(count, -1, sorted=False)
    start = torch.arange(0, shares.shape[1] * _SHARE, _SHARE, device=z.device)
    ids = (places + start[:, None]).clamp(max=width - 1)
    values, order = values.flatten(-2).topk(count, -1)
    return values, ids.flatten(-2).gather(-1, order)
