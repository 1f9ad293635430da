"""Computes mixtures of experts with plain tensor operations: a router, and a product for each chosen expert.

The router's softmax over all experts, cut to the chosen ones and divided by what is left, is the softmax of
the chosen logits alone. So families that take it before the choice and those that take it after differ in
`normalised` and nothing else. Sources: arXiv 1701.06538, 2401.04088 (Mixtral), 2508.10925 (gpt-oss).

Shapes: `N` tokens, `E` experts, `A` of them active for each token, `W` width of an expert, `hidden` width of
the residual stream.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from edge_tui.engine.ops.row_counts import rounded

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Experts:
    """Holds the weights of one layer's experts, each a gated feed-forward layer, and of their router.

    Attributes:
        router: `[E, hidden]`, and a last row where a shared expert has a gate.
        gate_up: `[E, 2 * W, hidden]`, the gate's rows before the up projection's; contiguous.
        down: `[E, hidden, W]`, contiguous.
        router_bias: `[E]`, or None.
        gate_up_bias: `[E, 2 * W]`, or None.
        down_bias: `[E, hidden]`, or None.
    """

    router: Tensor
    gate_up: Tensor
    down: Tensor
    router_bias: Tensor | None = None
    gate_up_bias: Tensor | None = None
    down_bias: Tensor | None = None

    @property
    def tensors(self) -> list[Tensor]:
        """All tensors that are there."""
        biases = self.router_bias, self.gate_up_bias, self.down_bias
        return [self.router, self.gate_up, self.down, *(bias for bias in biases if bias is not None)]


@dataclass(frozen=True, slots=True)
class Routing:
    """Says how experts are chosen and gated.

    Attributes:
        active: `A`.
        normalised: True if the shares of a token's experts add up to 1.
        limit: Largest gate, and largest up value in either direction; 0 for plain SwiGLU.
        alpha: Factor on the gate inside its sigmoid, where there is a limit.
    """

    active: int
    normalised: bool
    limit: float = 0.0
    alpha: float = 1.0


def choose(logits: Tensor, experts: int, how: Routing) -> tuple[Tensor, Tensor]:
    """Chooses each token's experts.

    Args:
        logits: `[N, E]`, or `[N, E + 1]` with the gate of a shared expert.
        experts: `E`.
        how: The rules.

    Returns:
        Numbers of the experts int64 `[N, A]`, the likeliest first, and their shares float32 `[N, A]`; with a
        shared expert `[N, A + 1]`, its own the last.
    """
    wide = logits.float()
    shares, chosen = wide[:, :experts].softmax(-1).topk(how.active, -1)
    if how.normalised:
        shares = shares / shares.sum(-1, keepdim=True)
    return chosen, torch.cat((shares, wide[:, experts:].sigmoid()), -1)


def gated(wide: Tensor, how: Routing) -> Tensor:
    """Multiplies the activation of the gates by the up values. `wide`: `[…, 2 * W]`, gates first."""
    gate, up = wide.chunk(2, -1)
    if not how.limit:
        return F.silu(gate).mul_(up)
    gate = gate.clamp(max=how.limit)
    return (gate * how.alpha).sigmoid_().mul_(gate).mul_(up.clamp(-how.limit, how.limit).add_(1))


def mix(x: Tensor, weights: Experts, chosen: Tensor, shares: Tensor, how: Routing) -> Tensor:
    """Sums what the chosen experts make of each token, in the order of the choice.

    Tokens are sorted by expert, so each expert that anybody chose is read once, by two products. Waits for
    the device.

    Args:
        x: `[N, hidden]`.
        weights: The experts.
        chosen: int64 `[N, A]`.
        shares: float32 `[N, ≥ A]`.
        how: The rules.

    Returns:
        `[N, hidden]` in the dtype of `x`.
    """
    active = chosen.shape[1]
    pairs = chosen.flatten()
    order = pairs.argsort(stable=True)
    counts = pairs.bincount(minlength=len(weights.gate_up)).tolist()
    # Nothing but the last of these stays: each is as wide as a layer for every expert of a token.
    each = _product(
        gated(_product(x[order // active], counts, weights.gate_up, weights.gate_up_bias), how),
        counts,
        weights.down,
        weights.down_bias,
    )
    parts = torch.empty_like(each)
    parts[order] = each
    del each
    parts = parts.view(len(x), active, -1).float()
    return (shares[:, None, :active] @ parts).squeeze(1).to(x.dtype)


def _product(x: Tensor, counts: list[int], weight: Tensor, bias: Tensor | None) -> Tensor:
    """Multiplies rows that are sorted by expert, `counts[e]` of each, by that expert's matrix.

    Where numbers of rows are to be few (`row_counts`), more rows are multiplied than an expert has: the
    experts after it overwrite what is too much.
    """
    y = x.new_empty(len(x), weight.shape[1])
    rounds = x.device.type == "cpu" and x.dtype.itemsize == 2
    at = 0
    for expert, count in enumerate(counts):
        if count:
            most = rounded(count) if rounds else count
            if at + most > len(x) >= most:  # at the end none would overwrite: earlier rows go along
                y[at : at + count] = _times(x[-most:], weight[expert], bias, expert)[at - len(x) :][:count]
            else:
                end = at + (most if at + most <= len(x) else count)
                _times(x[at:end], weight[expert], bias, expert, out=y[at:end])
            at += count
    return y


def _times(
    rows: Tensor, matrix: Tensor, bias: Tensor | None, expert: int, out: Tensor | None = None
) -> Tensor:
    """Multiplies rows by one expert's matrix."""
    if bias is None:
        return torch.mm(rows, matrix.t(), out=out)
    return torch.addmm(bias[expert], rows, matrix.t(), out=out)
