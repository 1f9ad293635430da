"""Holds the kernels for codes in groups to the weights that they stand for, once for each form and width.

A version of Triton that compiles a kernel wrongly yields no error but other tokens. So the first matrix of
each form is multiplied at load, a few rows of it, under the cut and the width of its own; the kernels that
this compiles are those of the steps to come. What they should give is computed on the CPU: a GPU would load
dozens of kernels for that, cuBLAS's of 64 bits among them, each for this one use (0.3 s of a process).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from edge_tui.engine.ops.code_groups import unpack
from edge_tui.engine.ops.packed import CodeFault
from edge_tui.util import logs

if TYPE_CHECKING:
    from edge_tui.engine.ops.group_form import GroupForm
    from edge_tui.engine.ops.packed import PackedMatrix

_ROWS = 32
"""Rows of a matrix that are compared."""
_TOKENS = 1, 8
_LIMIT = 1e-3
"""Relative error of float32 sums that rounding explains, with room: it is 3e-5 at most."""
_LEVEL_LIMIT = 4e-3
"""The same where levels of 8 bits are multiplied: 0.8e-3 for weights of a normal distribution."""
_results: dict[tuple[GroupForm, int, torch.dtype, torch.device], str] = {}


def check(packed: PackedMatrix, dtype: torch.dtype) -> None:
    """Compares the product and the dequantised rows of a matrix with plain operations.

    A second matrix of one form, width, dtype and device is not looked at. The first one waits for the device.

    Args:
        packed: The matrix.
        dtype: The compute dtype.

    Raises:
        CodeFault: they differ, or there are no kernels here.
    """
    assert packed.form is not None
    what = packed.form, packed.columns, dtype, packed.weight.device
    if what not in _results:
        _results[what] = _fault(packed, dtype)
    if _results[what]:
        raise CodeFault(_results[what])


def _fault(packed: PackedMatrix, dtype: torch.dtype) -> str:
    """Tells what is wrong, in one sentence; "" if nothing is."""
    from edge_tui.engine.ops.triton.availability import available

    if (reason := available()) is not None:
        return reason
    if dtype.itemsize != 2:
        return f"The product with codes computes in 16 bits, not in {str(dtype).removeprefix('torch.')}."
    try:
        works = _works(packed, dtype)
    except Exception as error:  # whatever Triton and its compilers raise
        return f"Triton could not build the product with codes here ({logs.first_line(error)})."
    return "" if works else "The product with codes gives wrong results with this Triton and driver."


def rehearse(packed: PackedMatrix, dtype: torch.dtype) -> None:
    """Launches the kernels of `check` for a matrix without memory, so that they can be listed."""
    from edge_tui.engine.ops.triton.widen_groups import widen

    assert packed.form is not None
    what = packed.form, packed.columns, dtype, packed.weight.device
    if what in _results:
        return
    _results[what] = ""
    few = _first_rows(packed)
    widen(few, dtype)
    for tokens in _TOKENS:
        _multiply(packed.weight.new_empty(tokens, packed.columns, dtype=dtype), few, packed.rows)


def _first_rows(packed: PackedMatrix) -> PackedMatrix:
    """Cuts a matrix to the rows that are compared."""
    count = min(packed.rows, _ROWS)
    assert packed.scale is not None
    return replace(
        packed,
        weight=packed.weight[:count],
        scale=packed.scale[:count],
        outer=None if packed.outer is None else packed.outer[:count],
        bias=None,
        rows=count,
    )


def _on_cpu(few: PackedMatrix) -> PackedMatrix:
    """Copies rows to the CPU."""
    assert few.scale is not None
    outer = None if few.outer is None else few.outer.cpu()
    return replace(few, weight=few.weight.cpu(), scale=few.scale.cpu(), outer=outer)


def _multiply(x: torch.Tensor, few: PackedMatrix, rows: int) -> torch.Tensor:
    """Multiplies tokens `x` by some rows of a matrix, under the cut of all of them."""
    from edge_tui.engine.ops.triton.project import project
    from edge_tui.engine.ops.triton.project_configs import choose

    out = torch.full((len(x), few.rows), torch.nan, device=x.device)
    project(x, few, out, config=choose(few.kind, len(x), rows, few.columns))
    return out


def _works(packed: PackedMatrix, dtype: torch.dtype) -> bool:
    """Tells whether both kernels give what the codes stand for."""
    from edge_tui.engine.ops.triton.widen_groups import widen

    few = _first_rows(packed)
    weights = unpack(_on_cpu(few)).dequantise()
    limit = _LEVEL_LIMIT if few.form is not None and few.form.levels else _LIMIT
    if not torch.equal(widen(few, dtype).cpu(), weights.to(dtype)):
        return False
    wave = torch.arange(8 * packed.columns).sqrt().cos().view(8, -1).to(dtype)
    exact = wave.double() @ weights.double().t()
    x = wave.to(packed.weight.device)
    for tokens in _TOKENS:
        out = _multiply(x[:tokens], few, packed.rows).cpu()
        error = (out.double() - exact[:tokens]).norm() / exact[:tokens].norm().clamp(min=1e-30)
        if not bool(error < limit):
            return False
    return True
