"""Makes attention masks and the distance penalty of alibi, and says where the positions of a call lie.

Shapes: `R` rows, `K` positions of a call, `S` positions that attention looks at, `H` query heads.

Source of alibi: arXiv 2108.12409.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from edge_tui.engine.models.mask_need import needs_mask

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True, slots=True)
class Masks:
    """Makes a mask for each window of a model.

    Attributes:
        windows: Positions that a query sees, its own included; 0 means all.
        dtype: Of the masks.
        slopes: Falcon's alibi, float32 `[H]`; None without.
        scale: Factor on scores, and on alibi.
        later_hidden: True if attention hides the keys after each query by itself.
    """

    windows: frozenset[int]
    dtype: torch.dtype
    slopes: Tensor | None = None
    scale: float = 1.0
    later_hidden: bool = False

    def needed(self, start: int, k: int) -> bool:
        """Tells whether `k` positions from `start` on need one, where each sees those up to its own."""
        alibi = self.slopes is not None
        return needs_mask(self.windows, start, k, alibi=alibi, later_hidden=self.later_hidden)

    def make(self, positions: Tensor, span: int) -> Mapping[int, Tensor | None]:
        """Makes the masks of queries at `positions`, int64 `[R or 1, K]`, over keys at 0 … `span` − 1.

        Returns:
            By window the scores to add, `[R or 1, H or 1, K, S]`: 0 or alibi for what a query sees, −inf for
            the rest.
        """
        at = torch.arange(span, device=positions.device)
        distance = positions[:, None, :, None] - at
        bias = None if self.slopes is None else self._alibi(self.slopes, at)
        # Rows of a mask begin at multiples of 16 bytes: CUDA's kernels would copy it otherwise.
        heads = 1 if bias is None else len(bias)
        wide = distance.shape[0], heads, distance.shape[2], -(-span // 8) * 8
        masks: dict[int, Tensor | None] = {}
        for window in self.windows:
            hidden_mask = distance < 0
            if window:
                hidden_mask |= distance >= window
            mask = torch.zeros(wide, dtype=self.dtype, device=positions.device)[..., :span]
            mask = mask if bias is None else mask.add_(bias)
            masks[window] = mask.masked_fill_(hidden_mask, -math.inf)
        return masks

    def _alibi(self, slopes: Tensor, at: Tensor) -> Tensor:
        """Computes Falcon's alibi, `[H, 1, S]`.

        Its class multiplies slope and position in bfloat16, whatever it computes in, and scales the product
        like a score. From position 257 on that rounds, so it is part of the model.
        """
        return (slopes.bfloat16()[:, None, None] * at).to(self.dtype) * self.scale


def alibi_slopes(heads: int) -> Tensor:
    """Computes the slope of each head, float32 `[heads]`: a geometric series from `2 ** (-8 / n)` on.

    `n` is the largest power of two up to `heads`; the heads beyond it take every second slope of the series
    for `2 n`.
    """
    n = 2 ** int(math.log2(heads))
    own = [2 ** (-8 * i / n) for i in range(1, n + 1)]
    between = [2 ** (-4 * i / n) for i in range(1, 2 * (heads - n) + 1, 2)]
    return torch.tensor(own + between, dtype=torch.float32)


@dataclass(frozen=True, slots=True)
class NewPositions:
    """Holds where a call's new positions lie, worked out once for all layers.

    Attributes:
        span: `S`.
        positions: int64 `[R, K]`; None when they are the last `K` of the span in every row.
        cos: Broadcasts to `[R, K, heads, rotary]`.
        sin: The same.
        masks: For each window of the model what to add to the scores, broadcasting to
            `[R, H, K, S]`; None where nothing needs hiding.
        starts: Each row's new position where rows attend one after another, each to its own past; None where
            all attend at once.
    """

    span: int
    positions: Tensor | None
    cos: Tensor
    sin: Tensor
    masks: Mapping[int, Tensor | None]
    starts: Sequence[int] | None = None
