"""Computes what each layer adds of an embedding of its own (Gemma 3n's and 4's per-layer inputs)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.nn import functional as F

from edge_tui.engine.models.feed_forward import ACTIVATIONS

if TYPE_CHECKING:
    from torch import Tensor

    from edge_tui.engine.models.architectures import FlatConfig
    from edge_tui.engine.models.layers import LayerInput, PerLayerInputs


class PerLayer:
    """Computes the inputs of all layers, and what one layer makes of its own.

    `config`: The model's.
    """

    def __init__(self, config: FlatConfig) -> None:
        self._width = config.features.per_layer_width
        self._from_stream = config.hidden**-0.5
        self._eps = config.eps
        self._activation = ACTIVATIONS[config.features.activation]

    def inputs(self, table: PerLayerInputs, x: Tensor, ids: Tensor, few: bool) -> Tensor:
        """Returns the inputs `[N, layers, P]` of positions with these ids and embeddings `[N, hidden]`."""
        looked = F.embedding(ids, table.embedding).to(x.dtype).mul_(self._width**0.5)
        made = table.projection(x, few).mul_(self._from_stream).view(len(x), -1, self._width)
        made = F.rms_norm(made, (self._width,), table.norm, self._eps)
        return made.add_(looked.view(made.shape)).mul_(2**-0.5)

    def added(self, own: LayerInput, x: Tensor, given: Tensor, few: bool) -> Tensor:
        """Returns what a layer adds to the stream `x`, before its norm; `given` is `[N, P]`."""
        return own.out(self._activation(own.gate(x, few)).mul_(given), few)
