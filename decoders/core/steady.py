"""Proves that a step does the same operations whatever the numbers are, by a step on tensors without numbers.

On torch's meta device there are shapes and no numbers: `.item()`, a branch on a tensor, `nonzero`, boolean
indexing and copies to the host raise. A step that passes has static shapes and asks for no value, so it may
be captured in a CUDA graph, and traced.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from edge_tui.decoders.core.params import Params
from edge_tui.decoders.core.random import Rng
from edge_tui.decoders.core.writes import dispatch

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager

    from edge_tui.decoders.core.decoder import Decoder
    from edge_tui.decoders.core.output import Output
    from edge_tui.decoders.core.stage import State


def why_unsteady(decoder: Decoder, outs: Mapping[str, Output], s: State, p: Params, rng: Rng) -> str:
    """Tells why a step asks for numbers; "" if it asks for none.

    Args:
        decoder: The strategy.
        outs: Logits of a step; left as they are, as is all that follows.
        s: The state.
        p: The parameters.
        rng: The random numbers.
    """
    on_meta = {name: tensor.to("meta") for name, tensor in s.items()}
    shapes = {
        name: replace(out, **{field: tensor.to("meta") for field, tensor in out.tensors().items()})
        for name, out in outs.items()
    }
    params = Params(list(p), p.table.to("meta"))
    numbers = Rng(rng.key.to("meta"), rng.step.to("meta"))
    try:
        with only_on_meta():
            decoder.step(shapes, on_meta, params, numbers)
    except Exception as error:
        return str(error).partition("\n")[0] or type(error).__name__
    return ""


def only_on_meta() -> AbstractContextManager[None]:
    """Refuses tensors that are made on the host: on a GPU each is a copy that the host waits for."""
    import torch

    def check(func: Any, out: Any) -> None:
        for each in out if isinstance(out, tuple | list) else (out,):
            if isinstance(each, torch.Tensor) and each.device.type != "meta":
                raise RuntimeError(f"{func} makes a tensor on the host")

    return dispatch(after=check)
