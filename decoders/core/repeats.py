"""Finds repetitions in a row's last tokens: what DRY and the ban of repeated n-grams look for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_tui.decoders.core.kernels import on_device

if TYPE_CHECKING:
    from torch import Tensor


def repeat_lengths(ids: Tensor, most: int) -> Tensor:
    """Counts, for each place, how many ids before it equal the last ones of the row.

    A token that stands at a place of length n has followed the last n tokens once already: were it taken, it
    would extend a repetition of length n.

    Args:
        ids: int64 `[R, N]`; negative ids equal nothing, and end every repetition.
        most: Ids that are compared; longer repetitions count as this long.

    Returns:
        int64 `[R, N]`, 0 to `most`.
    """
    import torch
    from torch.nn.functional import pad

    kernels = on_device(ids.device)
    if kernels is not None and ids.numel() > 0:
        return kernels.repeat_lengths(ids, most)
    before = pad(ids, (most, 0), value=-1).unfold(-1, most, 1)
    last = before[:, -1:]
    same = (before[:, :-1] == last) & (last >= 0)
    return same.flip(-1).cumprod(-1, dtype=torch.uint8).sum(-1)  # an eighth of the memory of int64
