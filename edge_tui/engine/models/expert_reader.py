"""Reads the experts of a layer and their router, however a checkpoint stores them.

Published files mostly have tensors for each expert; some, and files saved in the layout that transformers 5
computes with, have all experts in one tensor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_tui.engine.ops.experts import Experts

if TYPE_CHECKING:
    from torch import Tensor

    from edge_tui.engine.checkpoints.weights import Weights
    from edge_tui.engine.models.architectures import FlatConfig
    from edge_tui.engine.models.mixture import Mixture


def read_experts(weights: Weights, c: FlatConfig, m: Mixture, where: str) -> Experts:
    """Reads the mixture of the layer whose tensors begin with `where`.

    Raises:
        WeightsError: a tensor is missing, unreadable or of another shape than config.json says.
        Cancelled: the user stopped the loading.
    """
    names = c.layout.experts
    router = where + next((r for r in names.routers if f"{where}{r}.weight" in weights), names.routers[0])
    stored, rows = [f"{router}.weight"], [m.experts]
    if m.shared:
        stored, rows = [*stored, f"{where}{names.shared_gate}.weight"], [m.experts, 1]
    all_gate_up = next((name for name in names.all_gate_up if where + name in weights), names.all_gate_up[0])
    all_down = next((name for name in names.all_down if where + name in weights), names.all_down[0])
    if where + all_gate_up in weights or not names.gate_up:
        gate_up = _all(weights, where + all_gate_up, m.experts, 2 * m.width, c.hidden, names.transposed)
        down = _all(weights, where + all_down, m.experts, c.hidden, m.width, names.transposed)
    else:
        parts = [f"{where}{part.format(i)}.weight" for i in range(m.experts) for part in names.gate_up]
        gate_up = weights.stack(parts, [m.width] * len(parts), c.hidden).view(m.experts, -1, c.hidden)
        parts = [f"{where}{names.down.format(i)}.weight" for i in range(m.experts)]
        down = weights.stack(parts, [c.hidden] * m.experts, m.width).view(m.experts, -1, m.width)
    gate_up_bias = down_bias = router_bias = None
    if m.biased:
        router_bias = weights.get(f"{router}.bias", m.experts)
        gate_up_bias = weights.get(f"{where}{all_gate_up}_bias", m.experts, 2 * m.width)
        down_bias = weights.get(f"{where}{all_down}_bias", m.experts, c.hidden)
    if names.transposed:
        gate_up = _in_halves(gate_up)
        gate_up_bias = None if gate_up_bias is None else _in_halves(gate_up_bias)
    router_weight = weights.stack(stored, rows, c.hidden)
    return Experts(
        router_weight, gate_up.contiguous(), down.contiguous(), router_bias, gate_up_bias, down_bias
    )


def _all(weights: Weights, name: str, experts: int, rows: int, columns: int, transposed: bool) -> Tensor:
    """Reads one tensor of all experts as `[E, rows, columns]`."""
    if transposed:
        return weights.get(name, experts, columns, rows).transpose(1, 2)
    return weights.get(name, experts, rows, columns)


def _in_halves(rows: Tensor) -> Tensor:
    """Puts all rows of gates before those of up projections, which take turns: `[E, 2 * W, …]`."""
    experts, count, *rest = rows.shape
    pairs = rows.reshape(experts, count // 2, 2, *rest)
    return pairs.transpose(1, 2).reshape(rows.shape)
