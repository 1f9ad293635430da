"""Computes random numbers as a function, not a stream: (seed, row, step, token id) → number.

A draw does not depend on what was drawn before, on batch layout, on streaming or on how a prefix was
computed, so a run can be replayed, rewound and continued, and two strategies under one seed share their
luck. The generator is *Squares* (Widynski, arXiv 2004.06278), four rounds of 64-bit multiply and swap,
in plain integer tensor operations: the same on CPU and GPU and safe inside captured graphs.

Fused steps compute the same numbers in `edge_tui.engine.ops.triton.choose_parts`: change both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edge_tui.decoders.core.best import argmax

if TYPE_CHECKING:
    from torch import Tensor

TOKEN_BITS = 20
ROW_BITS = 8
_MASK32 = 0xFFFFFFFF
_MASK64 = 0xFFFFFFFFFFFFFFFF


def key_of(seed: int) -> int:
    """Computes the 64-bit odd key of a seed, as a signed integer (splitmix64 finaliser)."""
    x = (seed + 0x9E3779B97F4A7C15) & _MASK64
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK64
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK64
    x = (x ^ (x >> 31)) | 1
    return x - (1 << 64) if x >> 63 else x


class Rng:
    """Gives the counter-based random numbers of one run's rows.

    Args:
        key: int64 `[R]`, `key_of(seed)` of each row.
        row: int64 `[R]`, the row's number; rows of one run differ by it.
        step: int64 `[1]` on the device (or `[R]`), the index of the token to choose; the runner advances it.
    """

    def __init__(self, key: Tensor, row: Tensor, step: Tensor) -> None:
        self.key = key
        self.row = row
        self.step = step

    def shift(self, steps: int | Tensor, rows: int = 0) -> Rng:
        """Gives the numbers of later steps, `steps` an int or int64 `[R]`, and of rows further on."""
        return Rng(self.key, self.row + rows if rows else self.row, self.step + steps)

    def bits(self, ids: Tensor, rows: Tensor | None = None) -> Tensor:
        """Gives 32 random bits for each id.

        Args:
            ids: int64, `[R, N]`, or `[N]` together with `rows`.
            rows: int64 `[N]`, the row each id belongs to; without it the first axis is the row.

        Returns:
            int64 of the shape of `ids`, values in [0, 2³²).
        """
        at: Any = (slice(None), None) if rows is None else rows
        key, row, step = self.key[at], self.row[at], self.step.expand_as(self.row)[at]
        base = (((step << ROW_BITS) + row) << TOKEN_BITS) * key
        x = base + ids * key
        y = x
        z = y + key
        x = _swap(x * x + y)
        x = _swap(x * x + z)
        x = _swap(x * x + y)
        x = x * x + z
        return (x >> 32) & _MASK32

    def uniform(self, ids: Tensor, rows: Tensor | None = None) -> Tensor:
        """Gives float32 in (0, 1): never 0, never 1, full relative precision near 0."""
        u = (self.bits(ids, rows).float() + 0.5) * 2.0**-32
        return u.clamp_(max=1.0 - 2.0**-24)

    def gumbel(self, ids: Tensor, rows: Tensor | None = None) -> Tensor:
        """Gives standard Gumbel noise, float32: `argmax(logits + gumbel)` is a draw from the softmax."""
        # log1p keeps the upper tail (large noise ⇔ small u) at full resolution, up to ~22 nats.
        return -(-((-self.uniform(ids, rows)).log1p())).log()

    def lane(self, number: int) -> Tensor:
        """Gives one uniform a row, float32 `[R]`, apart from every token's: for accept/reject decisions."""
        import torch

        ids = torch.full_like(self.row, (1 << TOKEN_BITS) - 1 - number)[:, None]
        return self.uniform(ids)[:, 0]


def _swap(x: Tensor) -> Tensor:
    """Rotates int64 by 32 bits; `>>` is arithmetic, so the sign is masked away."""
    return ((x >> 32) & _MASK32) | (x << 32)


def draw(z: Tensor, rng: Rng) -> Tensor:
    """Draws one token per row from softmax(z).

    Noise is a function of the token's id, so looking at finite candidates alone changes nothing but the
    cost: for a 152k vocabulary it is 27 ms a token on a CPU otherwise. On a GPU the shape must stay
    static, and the whole row is cheap.

    Args:
        z: float32 `[R, V]`; −inf means removed. At least one finite entry per row.
        rng: The run's numbers.

    Returns:
        int64 `[R]`.
    """
    import torch

    if z.device.type == "cpu":
        finite = (z > -torch.inf).nonzero(as_tuple=True)
        return argmax(z.index_put(finite, z[finite] + rng.gumbel(finite[1], finite[0])))[:, 0]
    ids = torch.arange(z.shape[-1], device=z.device).expand_as(z)
    return argmax(z + rng.gumbel(ids))[:, 0]
