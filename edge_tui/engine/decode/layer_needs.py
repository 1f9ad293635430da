"""Resolves what a strategy reads of a model's layers, and refuses what the model cannot give."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from edge_tui.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edge_tui.decoders.base import Decoder, Needs
    from edge_tui.engine.models.base import LanguageModel, ModelInfo


def resolve_needs(decoder: Decoder, values: Mapping[str, float], model: LanguageModel) -> Needs:
    """Asks a strategy for the layers that a run reads, and counts them from 0.

    Args:
        decoder: The strategy.
        values: The run's parameters.
        model: The main model.

    Raises:
        RequestError: the model gives no hidden states, makes no early logits of them, or has no such layer.
    """
    info, caps, title = model.info, model.caps, decoder.title
    needs = decoder.needs_of(values, info.layers, info.tied)
    lacks = ""
    if needs.layers and not caps.hidden:
        lacks = "reads hidden states of layers, but {} gives none"
    elif needs.early and not caps.early:
        lacks = "reads logits of early layers, but {} shows no way from a layer to its logits"
    last = {layer in (-1, info.layers) for layer in needs.hidden}
    if len(last) == 2 and not caps.mixes:
        lacks = "reads the last layer beside others, but {} has states of two widths"
    if lacks:
        way_out = "choose another strategy or another model"
        raise RequestError(f"{title} {lacks.format(info.name)}: {way_out}.", "strategy")
    return replace(
        needs,
        hidden=tuple(_from_start(layer, info.layers, title, info) for layer in needs.hidden),
        early=tuple(_from_start(layer, info.layers - 1, title, info) for layer in needs.early),
    )


def _from_start(layer: int, last: int, title: str, info: ModelInfo) -> int:
    """Counts a layer from 0, the embeddings.

    Raises:
        RequestError: it is beyond the last that may be named.
    """
    place = layer if layer >= 0 else layer + info.layers + 1
    if 0 <= place <= last:
        return place
    raise RequestError(
        f"{title} reads layer {layer}, but those of {info.name} go from 0 to {last}: choose a model with more"
        " layers.",
        "strategy",
    )
