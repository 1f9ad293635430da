"""Computes random numbers as a function, not a stream: (key of the row, step, token id) → number.

A draw does not depend on what was drawn before, on batch layout, on streaming or on how a prefix was
computed, so a run can be replayed, rewound and continued, and two strategies under one seed share their
luck. Each row has a key: sample `r` of seed `s` is the run of seed `s + r`. The generator is *Squares*
(Widynski, arXiv 2004.06278), four rounds of 64-bit multiply and swap, in plain integer tensor operations:
the same on CPU and GPU and safe inside captured graphs.

The counter is `step · 2²⁸ + id`, and the ids of a step are:

| ids | numbers of |
|---|---|
| below 2²⁰ − 16 | tokens: a vocabulary has at most 1,048,560 |
| to 2²⁰ | a decoder's own lanes |
| to 2²⁶ | tokens of a search's other hypotheses, `id + hypothesis · 2²⁰`, up to 64 |
| to 2²⁷ | lanes of links |
| to 2²⁸ | all of these again, for `Rng.redraw` |

On a GPU the kernels of `edge_tui.engine.ops.triton.noise` compute the same numbers: change both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from zlib import crc32

from edge_tui.decoders.core.best import argmax, argmax_and_lead
from edge_tui.decoders.core.kernels import for_rows, on_device

if TYPE_CHECKING:
    from torch import Tensor

    from edge_tui.decoders.core.kernels import Noise

TOKEN_BITS = 20
ID_BITS = 28
REDRAW = 1 << 27
"""Added to an id for the noise of a token that takes a rejected one's place."""
LANES = 16
"""Lanes of a link, and of a decoder."""
MOST_TOKENS = (1 << TOKEN_BITS) - LANES
"""Size of the largest vocabulary whose tokens have numbers of their own."""
_LINK = 1 << 26
_MASK32 = 0xFFFFFFFF
_MASK64 = 0xFFFFFFFFFFFFFFFF


def key_of(seed: int) -> int:
    """Computes the 64-bit odd key of a seed, as a signed integer (splitmix64 finaliser)."""
    x = (seed + 0x9E3779B97F4A7C15) & _MASK64
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK64
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK64
    x = (x ^ (x >> 31)) | 1
    return x - (1 << 64) if x >> 63 else x


def lane_id(number: int, link: str = "") -> int:
    """Computes the id of lane 0 to 15 of a link, by 22 bits of a hash of its name; "" is the decoder.

    Raises:
        ValueError: there is no lane of that number.
    """
    if not 0 <= number < LANES:
        raise ValueError(f"Lane {number} was asked for; lanes are 0 to {LANES - 1}.")
    end = _LINK + LANES * (crc32(link.encode()) % (_LINK // LANES) + 1) if link else 1 << TOKEN_BITS
    return end - 1 - number


class Rng:
    """Gives the counter-based random numbers of one run's rows.

    Args:
        key: int64 `[R]`, `key_of(seed)` of each row's own seed; rows of one key have the same numbers.
        step: int64 `[1]` on the device (or `[R]`), the index of the token to choose; the runner advances it.
        name: Of the link that it belongs to; "" is the decoder itself.
        offset: Added to each id.
    """

    def __init__(self, key: Tensor, step: Tensor, name: str = "", offset: int = 0) -> None:
        self.key = key
        self.step = step
        self.name = name
        self._offset = offset

    def shift(self, steps: int | Tensor) -> Rng:
        """Gives the numbers of later steps, `steps` an int or int64 `[R]`."""
        return Rng(self.key, self.step + steps, self.name, self._offset)

    def link(self, name: str) -> Rng:
        """Gives the same numbers of tokens with lanes of a link's own, wherever it stands in a chain."""
        return Rng(self.key, self.step, name, self._offset)

    def redraw(self) -> Rng:
        """Gives other numbers for the same steps and ids: those of a rejected token have decided already."""
        return Rng(self.key, self.step, self.name, REDRAW)

    def bits(self, ids: Tensor, rows: Tensor | None = None) -> Tensor:
        """Gives 32 random bits for each id.

        Args:
            ids: int64, `[R, N]`, or `[N]` together with `rows`; at least 0, and below 2²⁷.
            rows: int64 `[N]`, the row each id belongs to; without it the first axis is the row.

        Returns:
            int64 of the shape of `ids`, values in [0, 2³²).
        """
        if (found := self._by_kernel("bits", ids, rows)) is not None:
            return found
        at: Any = (slice(None), None) if rows is None else rows
        key, step = self.key[at], self.step.expand_as(self.key)[at]
        first = step << ID_BITS
        base = (first + self._offset if self._offset else first) * key
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
        if (found := self._by_kernel("uniform", ids, rows)) is not None:
            return found
        u = (self.bits(ids, rows).float() + 0.5) * 2.0**-32
        return u.clamp_(max=1.0 - 2.0**-24)

    def gumbel(self, ids: Tensor, rows: Tensor | None = None) -> Tensor:
        """Gives standard Gumbel noise, float32: `argmax(logits + gumbel)` is a draw from the softmax."""
        if (found := self._by_kernel("gumbel", ids, rows)) is not None:
            return found
        # log1p keeps the upper tail (large noise ⇔ small u) at full resolution, up to ~22 nats.
        return -(-((-self.uniform(ids, rows)).log1p())).log()

    def lane(self, number: int) -> Tensor:
        """Gives one uniform a row, float32 `[R]`, apart from every token's and every other link's.

        Raises:
            ValueError: the number is not one of 0 to 15.
        """
        import torch

        ids = torch.full_like(self.key, lane_id(number, self.name))[:, None]
        return self.uniform(ids)[:, 0]

    def draw(self, z: Tensor) -> tuple[Tensor, Tensor] | None:
        """Draws as `draw_and_margin` does where the device has a kernel that does so; else None."""
        kernels = for_rows(z)
        return None if kernels is None else kernels.draw(z, self.key, self.step, self._offset)

    def _by_kernel(self, kind: Noise, ids: Tensor, rows: Tensor | None) -> Tensor | None:
        """Computes numbers where the device has a kernel; None elsewhere, and by `rows`, which CPUs use."""
        kernels = on_device(ids.device) if rows is None else None
        return None if kernels is None else kernels.noise(kind, ids, self.key, self.step, self._offset)


def _swap(x: Tensor) -> Tensor:
    """Rotates int64 by 32 bits; `>>` is arithmetic, so the sign is masked away."""
    return ((x >> 32) & _MASK32) | (x << 32)


def noise_of_hypotheses(z: Tensor, rng: Rng) -> Tensor:
    """Gives Gumbel noise for the continuations of a search, whose rows share one key: each row has its own.

    Row 0 has the noise of a draw. As in `draw`, a CPU looks at finite candidates alone.

    Args:
        z: float32 `[R, V]`, at most 64 rows; −inf means removed.
        rng: The run's numbers.

    Returns:
        float32 `[R, V]`; any number where a candidate is removed.
    """
    import torch

    if z.device.type == "cpu":
        row, token = (z > -torch.inf).nonzero(as_tuple=True)
        return torch.zeros_like(z).index_put((row, token), rng.gumbel(token + (row << TOKEN_BITS), row))
    first = torch.arange(len(z), device=z.device)[:, None] << TOKEN_BITS
    return rng.gumbel(first + torch.arange(z.shape[-1], device=z.device))


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
    drawn = rng.draw(z)
    return argmax(_sums(z, rng))[:, 0] if drawn is None else drawn[0]


def draw_and_margin(z: Tensor, rng: Rng) -> tuple[Tensor, Tensor]:
    """Draws as `draw` does.

    Returns:
        The tokens int64 `[R]`, and the margin float32 `[R]`: the best sum of a logit and its noise less the
        second (nats), +inf where one candidate is left.
    """
    if (drawn := rng.draw(z)) is not None:
        return drawn
    ids, margin = argmax_and_lead(_sums(z, rng))
    return ids[:, 0], margin


def _sums(z: Tensor, rng: Rng) -> Tensor:
    """Adds noise to logits `[R, V]`."""
    import torch

    if z.device.type == "cpu":
        finite = (z > -torch.inf).nonzero(as_tuple=True)
        return z.index_put(finite, z[finite] + rng.gumbel(finite[1], finite[0]))
    ids = torch.arange(z.shape[-1], device=z.device).expand_as(z)
    return z + rng.gumbel(ids)
