"""Chooses how a CPU packs a matrix by its size, and counts the bytes, without importing torch.

The packing code and the memory estimate read the same numbers.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from edge_tui.machine.devices import cpu_has_half, cpu_has_int8, cpu_has_wide_int8, cpu_packs_int4

if TYPE_CHECKING:
    from edge_tui.engine.ops.group_form import GroupForm

BIG_MATRIX = 1 << 19
"""Weights from which on a matrix is better packed, if a CPU can: in int8 for an integer product, which takes
about 25 µs to prepare, and in float16 for float32, because the caches do not hold it beside everything else.
Measured with one and two threads."""
VECTOR_BLOCK = 512
"""Columns that FBGEMM lays out together; it reads the last ones only as far as the matrix goes."""
INT8_STEP = 16
"""Columns that torch's int8 kernel takes at once; of a row that ends before, it reads what lies behind."""
INT4_GROUP = 32
"""Weights of a row that share a scale and a zero point in int4."""
FINE_COLUMNS = 32
"""Columns of an int8 head that have fifteen bits: 4 % of the bytes of Qwen2-0.5B's head."""
INT8_TOKENS = 128
"""Most tokens of one integer product; of more, a wide matrix makes memory that is mapped anew each time."""


def is_worth_packing(elements: int) -> bool:
    """Tells whether a CPU that can multiplies a matrix in int8 as integers, or float32 by it in float16."""
    return elements >= BIG_MATRIX


def fits_int4(rows: int, columns: int) -> bool:
    """Tells whether the int4 kernel takes a matrix of this shape."""
    return rows % 32 == 0 and columns % INT4_GROUP == 0


def packers() -> int:
    """Returns how many matrices are packed at once where each is a single thread's work."""
    return min(os.cpu_count() or 1, 4)


def half_bytes(rows: int, columns: int) -> int:
    """Counts the bytes of a matrix that FBGEMM packs as float16."""
    return 2 * (rows + -rows % 16) * (columns + -columns % VECTOR_BLOCK)


def vector_bytes(rows: int, columns: int) -> int:
    """Counts the bytes of a matrix that FBGEMM packs as int8, with three numbers for each row."""
    return rows * (columns + -columns % VECTOR_BLOCK + 12)


def int8_bytes(rows: int, columns: int) -> int:
    """Counts the bytes of an int8 matrix with its scales, in the fastest of the three formats here."""
    if is_worth_packing(rows * columns):
        if cpu_has_wide_int8():
            return vector_bytes(rows, columns) + 4 * rows
        if cpu_has_int8():
            return rows * columns + 4 * rows
    return rows * (columns + -columns % INT8_STEP + 2)


def fine_count(columns: int) -> int:
    """Returns how many columns of an int8 head have fifteen bits."""
    return min(FINE_COLUMNS, columns)


def int8_head_bytes(rows: int, columns: int) -> int:
    """Counts the bytes of an int8 head, with the numbers of its fine columns and all columns' factors."""
    fine = fine_count(columns)
    return int8_bytes(rows, columns + fine) + 8 * fine + 4 * (columns + fine)


def int4_bytes(rows: int, columns: int, group: int = INT4_GROUP) -> int | None:
    """Counts the bytes of an int4 matrix with a scale and a zero point a group; None if it cannot be one."""
    if not (cpu_packs_int4() and fits_int4(rows, columns)):
        return None
    return rows * columns // 2 + rows * columns // group * 4


def keeps_codes(form: GroupForm, rows: int, columns: int) -> bool:
    """Tells whether a CPU multiplies by codes in groups as they are stored: by four bits that count steps."""
    return form.bits == 4 and not form.levels and cpu_packs_int4() and fits_int4(rows, columns)


def code_bytes(form: GroupForm | None, rows: int, columns: int) -> int:
    """Counts the bytes of a matrix of codes: kept as such, or rounded to float16; None is no one form."""
    if form is not None and keeps_codes(form, rows, columns):
        return int4_bytes(rows, columns, form.group) or 0
    if cpu_has_half() and is_worth_packing(rows * columns):
        return half_bytes(rows, columns)
    return 4 * rows * columns
