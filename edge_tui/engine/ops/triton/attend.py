"""Attends to the past of each row in a decode step, in the kernels of `attend_kernels`.

One call does what lies between two matrices of a layer: norms of the heads, rotary, writing the new keys and
values, and attention. How far each row has got is read on the device and the cost follows it, so the call
can be captured once and replayed at any length.

Shapes: `R` rows, `K` new positions of each, `T = R * K` tokens, `H` query heads, `Hkv` key heads,
`G = H / Hkv` query heads that a key head serves, `D` width of a head.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import triton

from edge_tui.engine.ops.triton.attend_kernels import attend_kernel, follow_kernel
from edge_tui.engine.ops.triton.launch import capability, chain

if TYPE_CHECKING:
    from torch import Tensor

_FOLLOWED = 1024
"""Entries of the table of owners that a program moves."""
_BINARY = 1.0 / math.log(2)
"""Turns exponents of e into those of 2."""
_MAX_SPLITS = 64
"""Most pieces that the keys of one head are cut into."""


class Scratch:
    """Holds the partial results of one head's attention, for the program that joins them.

    Calls that follow one another on a stream, such as a model's layers, can share one.

    Attributes:
        programs: Programs that keep the whole device busy; keys are cut into as many pieces as gives them.
        partial: float32, with room for `[R, Hkv, splits, G * K, D]`: each piece's own result.
        weight: float32, with room for `[R, Hkv, splits, G * K]`: binary logarithm of the sum it stands for.
        arrived: int32 `[R * H]`, pieces that are done; all zero between calls.
    """

    __slots__ = ("arrived", "partial", "programs", "weight")

    def __init__(
        self, rows: int, k: int, heads: int, head_dim: int, device: torch.device, programs: int = 0
    ) -> None:
        self.programs = programs or _multiprocessors(device)
        results = heads * k * max(min(self.programs, _MAX_SPLITS * rows), rows)
        self.partial = torch.empty(results * head_dim, dtype=torch.float32, device=device)
        self.weight = torch.empty(results, dtype=torch.float32, device=device)
        self.arrived = torch.zeros(rows * heads, dtype=torch.int32, device=device)


@dataclass(frozen=True, slots=True)
class Tuning:
    """Holds choices that change speed alone.

    Attributes:
        block: Keys of one tile; what one program takes at once.
        least: Fewest tiles worth a program of their own.
        warps: Warps of a program.
        stages: Tiles being loaded at once.
    """

    block: int = 128
    least: int = 1
    warps: int = 4
    stages: int = 2


def attend(
    qkv: Tensor,
    root: Tensor,
    fork: Tensor | None,
    base: Tensor | None,
    owner: Tensor | None,
    length: Tensor,
    cos: Tensor,
    sin: Tensor,
    out: Tensor,
    scratch: Scratch,
    *,
    heads: int,
    kv_heads: int,
    k: int,
    qk_norm: Tensor | None = None,
    over_heads: bool = False,
    sinks: Tensor | None = None,
    eps: float = 0.0,
    window: int = 0,
    scale: float = 0.0,
    cap: float = 0.0,
    tuning: Tuning | None = None,
) -> None:
    """Appends `K` positions to every row's keys and values and attends from them.

    Row `r`'s new positions are `length[r]`, …, `length[r] + K - 1`; `length` itself is left to the caller.
    Where they lie beyond the buffer nothing is written, and the row's result means nothing.

    A plain context (`fork` is None) has a row of `root` for each row. In a forked one `R / S` rows side by
    side share a row of `root`, row `r` its first `base[r]` positions; a later position `t` of row `r` lies in
    row `owner[r, t - base[r]]` of `fork`, and new ones are put into row `r` and so entered in `owner`.

    Args:
        qkv: `[T, (H + 2 Hkv) * D]`, queries, keys and values before their norms and rotary; contiguous.
        root: `[R, 2 * Hkv, capacity, D]`, keys first; contiguous. Of a forked context `[S, …]`.
        fork: `[R, 2 * Hkv, room, D]`, contiguous.
        base: int64 `[R]`, at most the row's length.
        owner: int32 `[R, room]`.
        length: int64 `[R]`.
        cos: `[capacity, rotary]` as in `rope.tables`, or these columns of a wider table. Without columns
            nothing is turned.
        sin: The same for signed sines.
        out: `[T, H * D]`, contiguous.
        scratch: Made for at least this many rows, positions and heads.
        heads: `H`.
        kv_heads: `Hkv`.
        k: `K`, at most 8.
        qk_norm: `[H + Hkv, D]`, norms of each head's query and key.
        over_heads: True if one norm is over all queries of a token, one over its keys; `K` is 1 then.
        sinks: `[H]`, for each query head a score more in the softmax, of a key that has no value.
        eps: The norms' epsilon.
        window: Positions that a query sees, its own included; 0 means all.
        scale: Factor on scores; 0 means `1 / sqrt(D)`.
        cap: Then `cap · tanh(score / cap)` takes the place of a score.
        tuning: Overrides the choice by shape.
    """
    rows, capacity, d = len(length), root.shape[2], root.shape[3]
    queries = heads // kv_heads * k
    matrix_units = qkv.element_size() == 2 and capability(qkv.device) >= (8, 0)
    t = tuning or choose_tuning(matrix_units, d, k)
    longest = min(window + k if window else capacity, capacity)
    most = max(1, min(scratch.programs // (rows * kv_heads), _MAX_SPLITS))
    splits = min(most, triton.cdiv(longest, t.block * t.least))
    attend_kernel[(rows, kv_heads, splits)](
        qkv,
        (root, fork, base, owner),
        length,
        (cos, sin),
        qk_norm,
        sinks,
        out,
        (scratch.partial, scratch.weight, scratch.arrived),
        capacity,
        0 if fork is None else fork.shape[2],
        rows // len(root),
        len(cos),
        splits,
        t.least,
        (scale or d**-0.5) * _BINARY,
        cap * _BINARY if cap else None,
        eps,
        HEADS=heads,
        KV_HEADS=kv_heads,
        K=k,
        D=d,
        ROTARY=cos.shape[1],
        ANGLES=cos.stride(0),
        WINDOW=window,
        OVER_HEADS=over_heads,
        BLOCK=t.block,
        MP=_padded(queries),
        DP=_padded(d),
        NP=1 if k == 1 else _padded(k),
        TILE=min(_padded(queries * d), 1024),
        AHEAD=t.warps,
        num_warps=t.warps,
        num_stages=t.stages,
        **chain(qkv.device),
    )


def follow(owner: Tensor, parent: Tensor) -> None:
    """Launches `ops.forked_context.follow` as a kernel."""
    rows, room = owner.shape
    padded = int(triton.next_power_of_2(rows))
    block = max(_FOLLOWED // padded, 16)
    grid = (triton.cdiv(room, block),)
    follow_kernel[grid](owner, parent, room, rows, ROWS=padded, BLOCK=block, **chain(owner.device))


def choose_tuning(matrix_units: bool, head_dim: int, k: int) -> Tuning:
    """Chooses a fast tuning, as measured on an NVIDIA H100.

    With one position the time between two products counts. Pieces that have to be joined give their result
    two microseconds later than one alone, so a piece is as long as registers allow. Shared memory is what the
    first-level cache is not. Where kernels overlap, what this one takes is missing from the products before
    and after it, which read every token from that cache: two stages of wide keys made a step of five rows of
    a 7B model a third slower.

    Args:
        matrix_units: True if the GPU has some that Triton uses for the dtype.
        head_dim: Numbers of a key. Above 128 tiles have as many bytes as those of 128 numbers.
        k: New positions of a row; with few queries, loading is most of the work.
    """
    most = 64 if head_dim > 128 else 128
    if matrix_units and k == 1:
        return Tuning(block=most if head_dim > 64 else 256, warps=8, stages=1)
    if matrix_units:
        return Tuning(block=most, stages=1 if head_dim > 64 else 2)
    # Products on plain cores want every operand in registers: small tiles, spread over more warps.
    return Tuning(block=16, least=4, warps=16 if head_dim > 128 else 8, stages=1)


def _multiprocessors(device: torch.device) -> int:
    """Counts a GPU's multiprocessors; the kernels of one without memory are the same for any number."""
    return 1 if device.type == "meta" else torch.cuda.get_device_properties(device).multi_processor_count


def _padded(n: int) -> int:
    """Returns the width of a tile that holds `n`; matrix units take no less than 16."""
    return max(16, int(triton.next_power_of_2(n)))
