"""Lists kinds of tensors in GGUF files: those that are read, with their blocks, and those that are not."""

from __future__ import annotations

from dataclasses import dataclass

from edge_tui.engine.ops.group_form import GroupForm


@dataclass(frozen=True, slots=True)
class Kind:
    """Describes how a tensor's numbers are stored.

    Attributes:
        name: As ggml spells it: "F16", "Q4_K".
        block: Numbers that share a block; a row holds whole blocks.
        bytes: Bytes of a block.
    """

    name: str
    block: int
    bytes: int

    @property
    def packed(self) -> bool:
        """True if numbers share scales, so that reading them means dequantising."""
        return self.block > 1


KINDS = {
    0: Kind("F32", 1, 4),
    1: Kind("F16", 1, 2),
    2: Kind("Q4_0", 32, 18),
    3: Kind("Q4_1", 32, 20),
    6: Kind("Q5_0", 32, 22),
    7: Kind("Q5_1", 32, 24),
    8: Kind("Q8_0", 32, 34),
    12: Kind("Q4_K", 256, 144),
    13: Kind("Q5_K", 256, 176),
    14: Kind("Q6_K", 256, 210),
    30: Kind("BF16", 1, 2),
}
"""Kinds that are read, by their number in the file."""

FORMS = {
    "Q4_0": GroupForm(4, 32),
    "Q4_1": GroupForm(4, 32, "own"),
    "Q5_0": GroupForm(8, 32),
    "Q5_1": GroupForm(8, 32, "own"),
    "Q8_0": GroupForm(8, 32),
    "Q4_K": GroupForm(4, 32, "own", outer=True),
    "Q5_K": GroupForm(8, 32, "own", outer=True),
    "Q6_K": GroupForm(8, 16, outer=True),
}
"""How the packed kinds lie in the memory of a GPU, where their codes stay codes."""

UNREAD = {
    9: "Q8_1",
    10: "Q2_K",
    11: "Q3_K",
    15: "Q8_K",
    16: "IQ2_XXS",
    17: "IQ2_XS",
    18: "IQ3_XXS",
    19: "IQ1_S",
    20: "IQ4_NL",
    21: "IQ3_S",
    22: "IQ2_S",
    23: "IQ4_XS",
    24: "I8",
    25: "I16",
    26: "I32",
    27: "I64",
    28: "F64",
    29: "IQ1_M",
    34: "TQ1_0",
    35: "TQ2_0",
    39: "MXFP4",
    40: "NVFP4",
    41: "Q1_0",
}
"""Kinds that are refused by name."""


def read_bytes(kind: Kind, stored: int) -> int:
    """Counts the bytes of a tensor as it is read: packed ones in float32, others as they are stored."""
    return stored // kind.bytes * kind.block * 4 if kind.packed else stored
