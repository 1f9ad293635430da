"""Launches the kernels of `attend_kernels`, cut as an H100 runs them fastest."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import torch
import triton
from triton.runtime.interpreter import InterpretedFunction

from edge_tui.engine.ops.triton.attend_kernels import attend_kernel, follow_kernel

if TYPE_CHECKING:
    from torch import Tensor

    from edge_tui.engine.ops.attend_scratch import Scratch

_FOLLOWED = 1024
"""Entries of the table of owners that a program moves."""
DEPENDENT = True
"""Let the next kernel start while this one ends, and start so itself, on GPUs that can (Hopper on)."""


@dataclass(frozen=True, slots=True)
class Tuning:
    """Holds choices that change speed alone.

    Attributes:
        block: Keys of one tile; what one program takes at once.
        least: Fewest tiles worth a program of their own.
        warps: Warps of a program.
        stages: Tiles being loaded at once.
        prefetch: True if a program asks for all its keys and values at its start.
    """

    block: int = 128
    least: int = 1
    warps: int = 4
    stages: int = 2
    prefetch: bool = True


INTERPRETED = isinstance(attend_kernel, InterpretedFunction)


@cache
def _generation(device: int) -> int:
    """Returns the major compute capability: 7 for Turing, 8 for Ampere, 9 for Hopper."""
    return torch.cuda.get_device_capability(device)[0]


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
    eps: float = 0.0,
    window: int = 0,
    tuning: Tuning | None = None,
) -> None:
    """Launches `attend.attend` as a kernel; `tuning` None chooses by shape."""
    rows, capacity, d = len(length), root.shape[2], root.shape[3]
    queries = heads // kv_heads * k
    generation = 0 if INTERPRETED else _generation(qkv.device.index)
    t = tuning or tuned(qkv.element_size() == 2 and generation >= 8, d > 64, k)
    room = capacity if fork is None else fork.shape[2]
    longest = window + k if window else capacity
    splits = min(scratch.splits(rows, kv_heads), triton.cdiv(min(longest, capacity), t.block * t.least))
    depend = DEPENDENT and generation >= 9
    options = {} if INTERPRETED else {"num_warps": t.warps, "num_stages": t.stages, "launch_pdl": depend}
    attend_kernel[(rows, kv_heads, splits)](
        qkv,
        root,
        root if fork is None else fork,
        length if base is None else base,
        length if owner is None else owner,
        length,
        cos,
        sin,
        qkv if qk_norm is None else qk_norm,
        out,
        scratch.partial,
        scratch.weight,
        scratch.arrived,
        capacity,
        room,
        len(cos),
        splits,
        t.least,
        d**-0.5 / math.log(2),
        eps,
        HEADS=heads,
        KV_HEADS=kv_heads,
        K=k,
        D=d,
        ROTARY=cos.shape[1],
        WINDOW=window,
        NORM=qk_norm is not None,
        FORK=fork is not None,
        BLOCK=t.block,
        M=queries,
        MP=_padded(queries),
        DP=_padded(d),
        NP=1 if k == 1 else _padded(k),
        TILE=min(_padded(queries * d), 1024),
        AHEAD=t.warps,
        PREFETCH=t.prefetch and not INTERPRETED,
        DEPEND=depend,
        **options,
    )


def follow(owner: Tensor, parent: Tensor) -> None:
    """Launches `attend.follow` as a kernel."""
    rows, room = owner.shape
    depend = DEPENDENT and not INTERPRETED and _generation(owner.device.index) >= 9
    options = {} if INTERPRETED else {"launch_pdl": depend}
    padded = int(triton.next_power_of_2(rows))
    block = max(_FOLLOWED // padded, 16)
    follow_kernel[(triton.cdiv(room, block),)](
        owner, parent, room, rows, ROWS=padded, BLOCK=block, DEPEND=depend, **options
    )


def tuned(matrix_units: bool, wide: bool, k: int) -> Tuning:
    """Chooses a fast tuning, as measured on an NVIDIA H100.

    With one position the time between two products counts. Pieces that have to be joined give their result
    two microseconds later than one alone, so a piece is as long as registers allow. Shared memory is what the
    first-level cache is not. Where kernels overlap, what this one takes is missing from the products before
    and after it, which read every token from that cache: two stages of wide keys made a step of five rows of
    a 7B model a third slower.

    Args:
        matrix_units: True if the GPU has some that Triton uses for the dtype.
        wide: True if a key has more than 64 numbers.
        k: New positions of a row; with few queries, loading is most of the work.
    """
    if matrix_units and k == 1:
        return Tuning(block=128 if wide else 256, warps=8, stages=1)
    if matrix_units:
        return Tuning(stages=1 if wide else 2)
    # Products on plain cores want every operand in registers: small tiles, spread over more warps.
    return Tuning(block=16, least=4, warps=8, stages=1)


def _padded(n: int) -> int:
    """Returns the width of a tile that holds `n`; matrix units take no less than 16."""
    return max(16, int(triton.next_power_of_2(n)))
