"""Cuts each product into programs: the measured product nearest in size decides.

Measured on an NVIDIA H200 in bfloat16. `python -m tests.engine.ops.speed_project` measures each product by
itself and prints the table anew; where `python -m tests.engine.ops.speed_step` found a whole step of Qwen2-7B
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
        lookup: How codes become numbers: "asm", or "table" for plain operations and loads.
        tensor: True if tensor cores multiply. Then `block_n` is 16 at least, and `block_k` a multiple of
            `64 · warps` (of `32 · warps` for plain weights).
    """

    block_n: int
    block_k: int
    warps: int
    lookup: str = "asm"
    tensor: bool = False


Row = tuple[str, int, int, int, Config]
"""Kind, `T`, `N`, `K` and what was fastest for them."""

TABLE: tuple[Row, ...] = (
    ("int8", 1, 896, 896, Config(4, 512, 2)),
    ("int8", 1, 896, 4864, Config(4, 8192, 8)),
    ("int8", 1, 1152, 896, Config(8, 1024, 4)),
    ("int8", 1, 2048, 2048, Config(4, 1024, 4)),
    ("int8", 1, 2048, 8192, Config(8, 4096, 8)),
    ("int8", 1, 3072, 2048, Config(8, 1024, 2)),
    ("int8", 1, 3584, 3584, Config(8, 2048, 8)),
    ("int8", 1, 3584, 18944, Config(4, 2048, 4)),
    ("int8", 1, 4608, 3584, Config(4, 1024, 2)),
    ("int8", 1, 9728, 896, Config(8, 512, 1)),
    ("int8", 1, 16384, 2048, Config(16, 512, 2)),
    ("int8", 1, 37888, 3584, Config(8, 256, 1)),
    ("int8", 4, 896, 896, Config(16, 1024, 4, tensor=True)),
    ("int8", 4, 896, 4864, Config(16, 2048, 8, tensor=True)),
    ("int8", 4, 1152, 896, Config(16, 1024, 4, tensor=True)),
    ("int8", 4, 2048, 2048, Config(16, 2048, 8, tensor=True)),
    ("int8", 4, 2048, 8192, Config(16, 2048, 8, tensor=True)),
    ("int8", 4, 3072, 2048, Config(16, 1024, 4, tensor=True)),
    ("int8", 4, 3584, 3584, Config(16, 2048, 8, tensor=True)),
    ("int8", 4, 3584, 18944, Config(16, 2048, 16, tensor=True)),
    ("int8", 4, 4608, 3584, Config(16, 1024, 8, tensor=True)),
    ("int8", 4, 9728, 896, Config(16, 1024, 4, tensor=True)),
    ("int8", 4, 16384, 2048, Config(16, 512, 2, tensor=True)),
    ("int8", 4, 37888, 3584, Config(32, 512, 4, tensor=True)),
    ("int8", 5, 896, 896, Config(16, 1024, 8, tensor=True)),
    ("int8", 5, 896, 4864, Config(16, 2048, 8, tensor=True)),
    ("int8", 5, 1152, 896, Config(16, 1024, 4, tensor=True)),
    ("int8", 5, 2048, 2048, Config(16, 2048, 8, tensor=True)),
    ("int8", 5, 2048, 8192, Config(16, 2048, 8, tensor=True)),
    ("int8", 5, 3072, 2048, Config(16, 1024, 4, tensor=True)),
    ("int8", 5, 3584, 3584, Config(16, 2048, 8, tensor=True)),
    ("int8", 5, 3584, 18944, Config(16, 2048, 16, tensor=True)),
    ("int8", 5, 4608, 3584, Config(16, 1024, 8, tensor=True)),
    ("int8", 5, 9728, 896, Config(16, 1024, 4, tensor=True)),
    ("int8", 5, 16384, 2048, Config(16, 512, 2, tensor=True)),
    ("int8", 5, 37888, 3584, Config(32, 512, 4, tensor=True)),
    ("int8", 8, 896, 896, Config(16, 1024, 8, tensor=True)),
    ("int8", 8, 896, 4864, Config(16, 2048, 8, tensor=True)),
    ("int8", 8, 1152, 896, Config(16, 1024, 4, tensor=True)),
    ("int8", 8, 2048, 2048, Config(16, 2048, 8, tensor=True)),
    ("int8", 8, 2048, 8192, Config(16, 2048, 8, tensor=True)),
    ("int8", 8, 3072, 2048, Config(16, 1024, 4, tensor=True)),
    ("int8", 8, 3584, 3584, Config(16, 2048, 8, tensor=True)),
    ("int8", 8, 3584, 18944, Config(16, 2048, 16, tensor=True)),
    ("int8", 8, 4608, 3584, Config(16, 1024, 8, tensor=True)),
    ("int8", 8, 9728, 896, Config(16, 1024, 4, tensor=True)),
    ("int8", 8, 16384, 2048, Config(32, 512, 4, tensor=True)),
    ("int8", 8, 37888, 3584, Config(32, 512, 4, tensor=True)),
    ("nf4", 1, 896, 896, Config(8, 1024, 2)),
    ("nf4", 1, 896, 4864, Config(8, 8192, 8)),
    ("nf4", 1, 1152, 896, Config(4, 512, 2)),
    ("nf4", 1, 2048, 2048, Config(2, 1024, 4)),
    ("nf4", 1, 2048, 8192, Config(8, 8192, 8)),
    ("nf4", 1, 3072, 2048, Config(2, 1024, 4)),
    ("nf4", 1, 3584, 3584, Config(8, 4096, 8)),
    ("nf4", 1, 3584, 18944, Config(4, 2048, 8)),
    ("nf4", 1, 4608, 3584, Config(4, 1024, 2)),
    ("nf4", 1, 9728, 896, Config(8, 1024, 4)),
    ("nf4", 1, 16384, 2048, Config(8, 512, 1)),
    ("nf4", 1, 37888, 3584, Config(8, 512, 2)),
    ("nf4", 4, 896, 896, Config(16, 1024, 4, tensor=True)),
    ("nf4", 4, 896, 4864, Config(16, 2048, 16, tensor=True)),
    ("nf4", 4, 1152, 896, Config(16, 1024, 4, tensor=True)),
    ("nf4", 4, 2048, 2048, Config(16, 2048, 8, tensor=True)),
    ("nf4", 4, 2048, 8192, Config(16, 2048, 16, tensor=True)),
    ("nf4", 4, 3072, 2048, Config(16, 1024, 8, tensor=True)),
    ("nf4", 4, 3584, 3584, Config(16, 2048, 8, tensor=True)),
    ("nf4", 4, 3584, 18944, Config(16, 2048, 8, tensor=True)),
    ("nf4", 4, 4608, 3584, Config(16, 1024, 4, tensor=True)),
    ("nf4", 4, 9728, 896, Config(16, 512, 2, tensor=True)),
    ("nf4", 4, 16384, 2048, Config(16, 512, 2, tensor=True)),
    ("nf4", 4, 37888, 3584, Config(16, 128, 1, tensor=True)),
    ("nf4", 5, 896, 896, Config(16, 1024, 4, tensor=True)),
    ("nf4", 5, 896, 4864, Config(16, 2048, 16, tensor=True)),
    ("nf4", 5, 1152, 896, Config(16, 1024, 8, tensor=True)),
    ("nf4", 5, 2048, 2048, Config(16, 2048, 8, tensor=True)),
    ("nf4", 5, 2048, 8192, Config(16, 2048, 16, tensor=True)),
    ("nf4", 5, 3072, 2048, Config(16, 1024, 8, tensor=True)),
    ("nf4", 5, 3584, 3584, Config(16, 2048, 8, tensor=True)),
    ("nf4", 5, 3584, 18944, Config(16, 2048, 8, tensor=True)),
    ("nf4", 5, 4608, 3584, Config(16, 1024, 4, tensor=True)),
    ("nf4", 5, 9728, 896, Config(16, 512, 2, tensor=True)),
    ("nf4", 5, 16384, 2048, Config(16, 512, 2, tensor=True)),
    ("nf4", 5, 37888, 3584, Config(16, 128, 1, tensor=True)),
    ("nf4", 8, 896, 896, Config(16, 1024, 4, tensor=True)),
    ("nf4", 8, 896, 4864, Config(16, 2048, 16, tensor=True)),
    ("nf4", 8, 1152, 896, Config(16, 1024, 4, tensor=True)),
    ("nf4", 8, 2048, 2048, Config(16, 2048, 8, tensor=True)),
    ("nf4", 8, 2048, 8192, Config(16, 2048, 16, tensor=True)),
    ("nf4", 8, 3072, 2048, Config(16, 1024, 8, tensor=True)),
    ("nf4", 8, 3584, 3584, Config(16, 2048, 8, tensor=True)),
    ("nf4", 8, 3584, 18944, Config(16, 2048, 8, tensor=True)),
    ("nf4", 8, 4608, 3584, Config(16, 1024, 4, tensor=True)),
    ("nf4", 8, 9728, 896, Config(16, 512, 2, tensor=True)),
    ("nf4", 8, 16384, 2048, Config(16, 512, 2, tensor=True)),
    ("nf4", 8, 37888, 3584, Config(16, 128, 1, tensor=True)),
    ("plain", 1, 896, 896, Config(4, 1024, 4)),
    ("plain", 1, 896, 4864, Config(4, 8192, 8)),
    ("plain", 1, 1152, 896, Config(4, 1024, 4)),
    ("plain", 1, 2048, 2048, Config(4, 1024, 2)),
    ("plain", 1, 2048, 8192, Config(4, 4096, 8)),
    ("plain", 1, 3072, 2048, Config(2, 1024, 4)),
    ("plain", 1, 3584, 3584, Config(4, 1024, 4)),
    ("plain", 1, 3584, 18944, Config(4, 4096, 8)),
    ("plain", 1, 4608, 3584, Config(4, 1024, 2)),
    ("plain", 1, 9728, 896, Config(4, 512, 1)),
    ("plain", 1, 16384, 2048, Config(8, 1024, 2)),
    ("plain", 1, 37888, 3584, Config(4, 512, 1)),
    ("plain", 1, 128256, 2048, Config(4, 1024, 2)),
    ("plain", 1, 151936, 896, Config(4, 512, 1)),
    ("plain", 1, 152064, 3584, Config(8, 2048, 8)),
    ("plain", 4, 896, 896, Config(16, 1024, 8, tensor=True)),
    ("plain", 4, 896, 4864, Config(16, 1024, 8, tensor=True)),
    ("plain", 4, 1152, 896, Config(16, 512, 4, tensor=True)),
    ("plain", 4, 2048, 2048, Config(16, 1024, 8, tensor=True)),
    ("plain", 4, 2048, 8192, Config(16, 1024, 8, tensor=True)),
    ("plain", 4, 3072, 2048, Config(16, 512, 4, tensor=True)),
    ("plain", 4, 3584, 3584, Config(16, 1024, 8, tensor=True)),
    ("plain", 4, 3584, 18944, Config(16, 2048, 8, tensor=True)),
    ("plain", 4, 4608, 3584, Config(16, 512, 4, tensor=True)),
    ("plain", 4, 9728, 896, Config(16, 256, 2, tensor=True)),
    ("plain", 4, 16384, 2048, Config(32, 128, 2, tensor=True)),
    ("plain", 4, 37888, 3584, Config(16, 256, 2, tensor=True)),
    ("plain", 4, 128256, 2048, Config(16, 128, 1, tensor=True)),
    ("plain", 4, 151936, 896, Config(16, 128, 1, tensor=True)),
    ("plain", 4, 152064, 3584, Config(16, 128, 1, tensor=True)),
    ("plain", 5, 896, 896, Config(16, 512, 4, tensor=True)),
    ("plain", 5, 896, 4864, Config(16, 1024, 8, tensor=True)),
    ("plain", 5, 1152, 896, Config(16, 512, 4, tensor=True)),
    ("plain", 5, 2048, 2048, Config(16, 1024, 8, tensor=True)),
    ("plain", 5, 2048, 8192, Config(16, 1024, 8, tensor=True)),
    ("plain", 5, 3072, 2048, Config(16, 512, 4, tensor=True)),
    ("plain", 5, 3584, 3584, Config(16, 1024, 8, tensor=True)),
    ("plain", 5, 3584, 18944, Config(16, 2048, 8, tensor=True)),
    ("plain", 5, 4608, 3584, Config(16, 512, 4, tensor=True)),
    ("plain", 5, 9728, 896, Config(16, 256, 2, tensor=True)),
    ("plain", 5, 16384, 2048, Config(32, 128, 2, tensor=True)),
    ("plain", 5, 37888, 3584, Config(16, 256, 2, tensor=True)),
    ("plain", 5, 128256, 2048, Config(16, 128, 1, tensor=True)),
    ("plain", 5, 151936, 896, Config(16, 128, 1, tensor=True)),
    ("plain", 5, 152064, 3584, Config(16, 128, 1, tensor=True)),
    ("plain", 8, 896, 896, Config(16, 512, 4, tensor=True)),
    ("plain", 8, 896, 4864, Config(16, 1024, 8, tensor=True)),
    ("plain", 8, 1152, 896, Config(16, 512, 4, tensor=True)),
    ("plain", 8, 2048, 2048, Config(16, 1024, 8, tensor=True)),
    ("plain", 8, 2048, 8192, Config(16, 1024, 8, tensor=True)),
    ("plain", 8, 3072, 2048, Config(16, 512, 4, tensor=True)),
    ("plain", 8, 3584, 3584, Config(16, 1024, 8, tensor=True)),
    ("plain", 8, 3584, 18944, Config(16, 1024, 8, tensor=True)),
    ("plain", 8, 4608, 3584, Config(16, 512, 4, tensor=True)),
    ("plain", 8, 9728, 896, Config(16, 256, 2, tensor=True)),
    ("plain", 8, 16384, 2048, Config(32, 128, 2, tensor=True)),
    ("plain", 8, 37888, 3584, Config(16, 256, 2, tensor=True)),
    ("plain", 8, 128256, 2048, Config(16, 128, 1, tensor=True)),
    ("plain", 8, 151936, 896, Config(16, 128, 1, tensor=True)),
    ("plain", 8, 152064, 3584, Config(16, 128, 1, tensor=True)),
)


@cache
def choose(kind: str, tokens: int, rows: int, columns: int, *, tensor: bool = True) -> Config:
    """Chooses a product's configuration, on tensor cores only if they may be taken; see `Row`."""

    def distance(row: Row) -> tuple[int, float]:
        _, t, n, k, _ = row
        # Too few tokens in the table is worse than too many: what each of them keeps in registers adds up.
        return (8 * (tokens - t) if t < tokens else t - tokens), abs(log(rows / n)) + abs(log(columns / k))

    fitting = (row for row in TABLE if row[0] == kind and (tensor or not row[4].tensor))
    return min(fitting, key=distance)[4]
