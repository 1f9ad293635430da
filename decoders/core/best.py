"""Selects the few greatest of very many logits, fast on every device."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_tui.decoders.core.kernels import for_rows

if TYPE_CHECKING:
    from torch import Tensor

_SHARE = 1024
"""Candidates of one share, from each of which a GPU first takes the best."""
_BLOCK = 128
"""Candidates of one block, of which a CPU first looks at the greatest alone."""


def best(z: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Selects the greatest entries of each row, best first.

    To select from one long row keeps a corner of a GPU busy for as long as a sort. So the best of each of
    many short shares are taken first, which occupies all of it, and the best of those after. A CPU finds the
    greatest of a block with vectors, but the best few one entry after another: it does so only in those
    blocks whose greatest are the best.

    Args:
        z: float `[R, V]`; −inf means removed.
        count: Their number, at most `V`.

    Returns:
        values float `[R, count]` and ids int64 `[R, count]`. Where too few are left, the values of the rest
        are −inf and their ids are any.
    """
    if (kernels := for_rows(z)) is not None:
        return kernels.best(z, count)
    if z.device.type == "cpu" and z.shape[-1] >= 4 * _BLOCK * count:
        return in_blocks(z, count)
    if z.device.type == "cpu" or z.shape[-1] < 4 * _SHARE or count > _SHARE // 8:
        values, ids = z.topk(count, -1)
        return values, ids
    return in_shares(z, count)


def argmax(z: Tensor) -> Tensor:
    """Finds the greatest entry of each row, the first of equals.

    Args:
        z: float `[R, V]`.

    Returns:
        int64 `[R, 1]`.
    """
    if (kernels := for_rows(z)) is not None:
        return kernels.argmax_and_lead(z)[0]
    if z.device.type != "cpu" or z.shape[-1] < 4 * _BLOCK:
        return z.argmax(-1, keepdim=True)
    ids, values = _blocks(z, _peaks(z).argmax(-1, keepdim=True))
    return ids.gather(-1, values.argmax(-1, keepdim=True))


def argmax_and_lead(z: Tensor) -> tuple[Tensor, Tensor]:
    """Finds the greatest entry of each row as `argmax` does, and by how much it exceeds the second.

    Args:
        z: float `[R, V]`.

    Returns:
        ids int64 `[R, 1]`, and the differences float `[R]`: +inf where no second is left.
    """
    import torch

    if (kernels := for_rows(z)) is not None:
        return kernels.argmax_and_lead(z)
    if z.device.type != "cpu" or z.shape[-1] < 4 * _BLOCK:
        ids = z.argmax(-1, keepdim=True)
        second = z.scatter(-1, ids, -float("inf")).amax(-1)
        return ids, z.gather(-1, ids)[:, 0] - second
    peaks = _peaks(z)
    ids, values = _blocks(z, peaks.argmax(-1, keepdim=True))
    # The greatest is among both, its block's entries and the peaks; the third of them is the second of all.
    greatest = torch.cat((values, peaks), -1).topk(3).values
    return ids.gather(-1, values.argmax(-1, keepdim=True)), greatest[:, 0] - greatest[:, 2]


def only(z: Tensor, ids: Tensor) -> Tensor:
    """Removes all candidates of logits `[R, V]` but `ids`, int64 `[R, N]`."""
    import torch

    return torch.full_like(z, -torch.inf).scatter_(-1, ids, z.gather(-1, ids))


def in_blocks(z: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Selects as `best` does, from those blocks whose greatest are the best; for a CPU."""
    ids, values = _blocks(z, _peaks(z).topk(count, -1, sorted=False).indices)
    values, order = values.topk(count, -1)
    return values, ids.gather(-1, order)


def _peaks(z: Tensor) -> Tensor:
    """Takes the greatest of each block, `[R, ⌈V / _BLOCK⌉]`."""
    import torch

    whole = z.shape[-1] - z.shape[-1] % _BLOCK
    peaks = z.narrow(-1, 0, whole).view(len(z), -1, _BLOCK).amax(-1)
    if whole == z.shape[-1]:
        return peaks
    return torch.cat((peaks, z.narrow(-1, whole, z.shape[-1] - whole).amax(-1, keepdim=True)), -1)


def _blocks(z: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
    """Gathers ids and values of some blocks, `[R, N · _BLOCK]`; −inf behind the end of a row."""
    import torch

    ids = (numbers[..., None] * _BLOCK + torch.arange(_BLOCK)).flatten(-2)
    within = ids.clamp(max=z.shape[-1] - 1)
    return within, z.gather(-1, within).masked_fill(ids != within, -torch.inf)


def in_shares(z: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Selects as `best` does, from the best of each share; for a GPU."""
    import torch

    width = z.shape[-1]
    padded = torch.nn.functional.pad(z, (0, -width % _SHARE), value=-torch.inf)
    shares = padded.view(len(z), -1, _SHARE)
    values, places = shares.topk(count, -1, sorted=False)
    start = torch.arange(0, shares.shape[1] * _SHARE, _SHARE, device=z.device)
    ids = (places + start[:, None]).clamp(max=width - 1)
    values, order = values.flatten(-2).topk(count, -1)
    return values, ids.flatten(-2).gather(-1, order)
