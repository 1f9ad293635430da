"""How each product is cut into programs: a small table, measured by `tests.engine.ops.speed_project`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Config:
    """One way to cut a product.

    Attributes:
        block_n: Matrix rows a program owns; with a gate, gate and up rows together.
        block_k: Columns of a tile.
        warps: Warps a program runs on.
        lookup: How codes become numbers: "asm", or "table" for plain operations and loads.
    """

    block_n: int
    block_k: int
    warps: int
    lookup: str = "asm"


def choose(kind: str, tokens: int, rows: int, columns: int, width: int) -> Config:
    """The configuration for a product.

    Args:
        kind: As in `Packed`.
        tokens: `T`.
        rows: `N`.
        columns: `K`.
        width: Bytes of an element of the compute dtype.
    """
    big = rows * columns > 2**24
    if kind == "plain":
        if tokens == 1:
            return Config(8, 512, 2) if big else Config(2, 1024, 4)
        return Config(8, 512, 2) if big else Config(4, 512, 2)
    return Config(8, 512, 2) if big else Config(4, 512, 2)
