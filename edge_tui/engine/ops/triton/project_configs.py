"""Chooses the tile sizes of the product kernels from a table of measurements: the product nearest in size.

Measured on an NVIDIA H200 in bfloat16. `python -m tests.engine.ops.speed_project` measures each product by
itself and prints its cuts anew; where `python -m tests.engine.ops.speed_step` found a model's whole step
quicker with another cut, that one stands.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from math import log


@dataclass(frozen=True, slots=True)
class Config:
    """Describes one way to cut a product.

    Attributes:
        block_n: Matrix rows a program owns; with a gate, gate and up rows together. A power of two.
        block_k: Columns of a tile, a power of two. From `256 · warps` on, each lane loads the very part of
            the tokens that it multiplies; below that they go through shared memory.
        warps: Warps a program runs on.
        tensor: True if tensor cores multiply. Then `block_n` is 16 at least, and `block_k` a multiple of
            `64 · warps` (of `32 · warps` for plain weights).
        ahead: Tiles of codes in groups that are on their way while one is used: 1, or 2 where programs are so
            few that one each does not keep the memory busy.
    """

    block_n: int
    block_k: int
    warps: int
    tensor: bool = False
    ahead: int = 1

    @property
    def cut(self) -> tuple[int, ...]:
        """The numbers of its row in the table."""
        return self.block_n, self.block_k, self.warps, *((self.ahead,) if self.ahead > 1 else ())


TOKENS = (1, 4, 5, 8)
"""Numbers of tokens that were measured: one on plain cores, more on tensor cores; groups always there."""

_Cut = tuple[int, ...]

_MEASURED: tuple[tuple[str, int, int, *tuple[_Cut, ...]], ...] = (
    ("group4", 3584, 3584, (16, 4096, 16), (16, 2048, 8), (16, 2048, 8), (16, 2048, 8)),
    ("group4", 3584, 18944, (16, 4096, 8), (32, 2048, 16), (32, 2048, 16), (32, 2048, 16)),
    ("group4", 4608, 3584, (16, 4096, 8), (16, 1024, 8), (16, 1024, 8), (16, 1024, 8)),
    ("group4", 37888, 3584, (16, 1024, 2), (32, 512, 4), (16, 512, 2), (16, 512, 2)),
    ("group4m", 3584, 3584, (16, 4096, 16), (16, 2048, 8), (16, 2048, 8), (16, 2048, 8)),
    ("group4m", 3584, 18944, (32, 4096, 16), (32, 2048, 8), (32, 2048, 8), (32, 2048, 8)),
    ("group4m", 4608, 3584, (16, 4096, 8), (16, 1024, 4), (16, 1024, 4), (16, 1024, 4)),
    ("group4m", 37888, 3584, (16, 512, 2), (32, 512, 4), (32, 512, 4), (32, 512, 4)),
    ("group8", 3584, 3584, (16, 2048, 8), (16, 1024, 8), (16, 1024, 8), (16, 1024, 8)),
    ("group8", 3584, 18944, (16, 2048, 8), (16, 1024, 8), (16, 1024, 8), (16, 1024, 8)),
    ("group8", 4608, 3584, (16, 1024, 8), (16, 512, 8), (16, 512, 8), (16, 512, 8)),
    ("group8", 37888, 3584, (32, 512, 4), (32, 256, 4), (32, 256, 4), (32, 256, 4)),
    ("group8m", 3584, 3584, (16, 1024, 8), (32, 512, 8), (32, 512, 8), (32, 512, 8)),
    ("group8m", 3584, 18944, (16, 1024, 8), (32, 512, 8), (32, 512, 8), (32, 512, 8)),
    ("group8m", 4608, 3584, (16, 512, 4), (16, 512, 4), (16, 512, 4), (16, 512, 4)),
    ("group8m", 37888, 3584, (32, 512, 4), (32, 256, 4), (32, 256, 4), (32, 256, 4)),
    ("int8", 896, 896, (4, 512, 2), (16, 1024, 4), (16, 1024, 8), (16, 1024, 8)),
    ("int8", 896, 4864, (4, 8192, 8), (16, 2048, 8), (16, 2048, 8), (16, 2048, 8)),
    ("int8", 1152, 896, (8, 1024, 4), (16, 1024, 4), (16, 1024, 4), (16, 1024, 4)),
    ("int8", 2048, 2048, (4, 1024, 4), (16, 2048, 8), (16, 2048, 8), (16, 2048, 8)),
    ("int8", 2048, 8192, (8, 4096, 8), (16, 2048, 8), (16, 2048, 8), (16, 2048, 8)),
    ("int8", 3072, 2048, (8, 1024, 2), (16, 1024, 4), (16, 1024, 4), (16, 1024, 4)),
    ("int8", 3584, 3584, (8, 2048, 8), (16, 2048, 8), (16, 2048, 8), (16, 2048, 8)),
    ("int8", 3584, 18944, (4, 2048, 4), (16, 2048, 16), (16, 2048, 16), (16, 2048, 16)),
    ("int8", 4608, 3584, (4, 1024, 2), (16, 1024, 8), (16, 1024, 8), (16, 1024, 8)),
    ("int8", 9728, 896, (8, 512, 1), (16, 1024, 4), (16, 1024, 4), (16, 1024, 4)),
    ("int8", 16384, 2048, (16, 512, 2), (16, 512, 2), (16, 512, 2), (32, 512, 4)),
    ("int8", 37888, 3584, (8, 256, 1), (32, 512, 4), (32, 512, 4), (32, 512, 4)),
    ("nf4", 896, 896, (16, 1024, 4), (16, 1024, 4), (16, 1024, 4), (16, 1024, 4)),
    ("nf4", 896, 4864, (16, 4096, 16), (16, 2048, 16), (16, 2048, 16), (16, 2048, 16)),
    ("nf4", 1152, 896, (16, 1024, 4), (16, 1024, 4), (16, 1024, 8), (16, 1024, 4)),
    ("nf4", 2048, 2048, (16, 2048, 8), (16, 2048, 8), (16, 2048, 8), (16, 2048, 8)),
    ("nf4", 2048, 8192, (16, 4096, 16), (16, 2048, 16), (16, 2048, 16), (16, 2048, 16)),
    ("nf4", 3072, 2048, (16, 2048, 8), (16, 1024, 8), (16, 1024, 8), (16, 1024, 8)),
    ("nf4", 3584, 3584, (16, 4096, 16), (16, 2048, 8), (16, 2048, 8), (16, 2048, 8)),
    ("nf4", 3584, 18944, (16, 4096, 8), (32, 2048, 16), (32, 2048, 16), (32, 2048, 16)),
    ("nf4", 4608, 3584, (16, 2048, 4, 2), (16, 1024, 8), (16, 1024, 8), (16, 1024, 8)),
    ("nf4", 9728, 896, (16, 512, 2), (16, 512, 2), (16, 512, 2), (16, 512, 2)),
    ("nf4", 16384, 2048, (16, 512, 2), (16, 512, 2), (16, 512, 2), (16, 512, 2)),
    ("nf4", 37888, 3584, (16, 512, 2, 2), (16, 512, 2), (16, 512, 2), (16, 512, 2)),
    ("plain", 896, 896, (4, 1024, 4), (16, 1024, 8), (16, 512, 4), (16, 512, 4)),
    ("plain", 896, 4864, (4, 8192, 8), (16, 1024, 8), (16, 1024, 8), (16, 1024, 8)),
    ("plain", 1152, 896, (4, 1024, 4), (16, 512, 4), (16, 512, 4), (16, 512, 4)),
    ("plain", 1152, 6912, (2, 8192, 8)),
    ("plain", 1536, 1152, (4, 2048, 8)),
    ("plain", 2048, 2048, (4, 1024, 2), (16, 1024, 8), (16, 1024, 8), (16, 1024, 8)),
    ("plain", 2048, 8192, (4, 4096, 8), (16, 1024, 8), (16, 1024, 8), (16, 1024, 8)),
    ("plain", 2304, 2048, (4, 512, 1)),
    ("plain", 2304, 9216, (2, 2048, 8)),
    ("plain", 3072, 2048, (2, 1024, 4), (16, 512, 4), (16, 512, 4), (16, 512, 4)),
    ("plain", 3584, 3584, (4, 1024, 4), (16, 1024, 8), (16, 1024, 8), (16, 1024, 8)),
    ("plain", 3584, 18944, (4, 4096, 8), (16, 2048, 8), (16, 2048, 8), (16, 1024, 8)),
    ("plain", 4608, 3584, (4, 1024, 2), (16, 512, 4), (16, 512, 4), (16, 512, 4)),
    ("plain", 9728, 896, (4, 512, 1), (16, 256, 2), (16, 256, 2), (16, 256, 2)),
    ("plain", 13824, 1152, (4, 256, 1)),
    ("plain", 16384, 2048, (8, 1024, 2), (32, 128, 2), (32, 128, 2), (32, 128, 2)),
    ("plain", 18432, 2304, (8, 256, 1)),
    ("plain", 37888, 3584, (4, 512, 1), (16, 256, 2), (16, 256, 2), (16, 256, 2)),
    ("plain", 128256, 2048, (4, 1024, 2), (16, 128, 1), (16, 128, 1), (16, 128, 1)),
    ("plain", 151936, 896, (4, 512, 1), (16, 128, 1), (16, 128, 1), (16, 128, 1)),
    ("plain", 152064, 3584, (8, 2048, 8), (16, 128, 1), (16, 128, 1), (16, 128, 1)),
    ("plain", 256000, 2304, (4, 512, 1)),
    ("plain", 262144, 1152, (8, 256, 1)),
)
"""A matrix's kind, `N` and `K`; then for each of `TOKENS`, or the first, its fastest cut: `Config.cut`."""


@cache
def choose(kind: str, tokens: int, rows: int, columns: int, *, tensor: bool = True) -> Config:
    """Chooses the cut of a product of `T` tokens with a matrix `[N, K]`; on tensor cores only if they may."""

    def distance(tokens_measured: int) -> int:
        # Too few tokens in the table is worse than too many: what each of them keeps in registers adds up.
        missing = tokens - tokens_measured
        return 8 * missing if missing > 0 else -missing

    groups = kind.startswith(("group", "nf4"))  # on tensor cores alone
    column = min(range(len(TOKENS) if tensor or groups else 1), key=lambda i: distance(TOKENS[i]))
    fitting = (row for row in _MEASURED if row[0] == kind and column < len(row[3:]))
    nearest = min(fitting, key=lambda row: abs(log(rows / row[1])) + abs(log(columns / row[2])))
    block_n, block_k, warps, *ahead = nearest[3:][column]
    return Config(block_n, block_k, warps, groups or column > 0, *ahead)
