"""Proves that a step does the same operations whatever the numbers are, on tensors that hide theirs.

To the step they are on the meta device, where there are shapes and no numbers: `.item()`, a branch on a
tensor, `nonzero`, boolean indexing and copies to the host raise. A step that passes has static shapes and
asks for no value, so it may be captured in a CUDA graph, and traced.

Behind them stand copies with numbers, on which the operations are done: torch's own for the meta device are
written in Python, and import its compiler and sympy, which takes seconds.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

from edge_tui.decoders.core.params import Params
from edge_tui.decoders.core.random import Rng
from edge_tui.decoders.core.writes import dispatch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from edge_tui.decoders.core.decoder import Decoder
    from edge_tui.decoders.core.output import Output
    from edge_tui.decoders.core.stage import State


def why_unsteady(decoder: Decoder, outs: Mapping[str, Output], s: State, p: Params, rng: Rng) -> str:
    """Tells why a step asks for numbers; "" if it asks for none. Arguments are those of `unsteadiness`."""
    error = unsteadiness(decoder, outs, s, p, rng)
    return "" if error is None else str(error).partition("\n")[0] or type(error).__name__


def unsteadiness(
    decoder: Decoder, outs: Mapping[str, Output], s: State, p: Params, rng: Rng
) -> Exception | None:
    """Returns the error of a step that asks for numbers; None if it asks for none.

    Args:
        decoder: The strategy.
        outs: Logits of a step; left as they are, as is all that follows.
        s: The state.
        p: The parameters.
        rng: The random numbers.
    """
    import torch

    hide = _hidden_class()

    def hidden(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
        return {name: hide(tensor.clone()) for name, tensor in tensors.items()}

    # In inference mode an operation that is made of others would come whole, and hide which those are.
    with torch.inference_mode(False), torch.no_grad():
        shapes = {name: replace(out, **hidden(out.tensors())) for name, out in outs.items()}
        state, own = hidden(s), hidden({"table": p.table, "key": rng.key, "step": rng.step})
        try:
            with dispatch(_do_behind):
                params, numbers = Params(list(p), own["table"]), Rng(own["key"], own["step"])
                decoder.step(shapes, state, params, numbers)
        except Exception as error:
            return error
    return None


@cache
def _hidden_class() -> Any:
    """Makes the class of a tensor that hides another one; torch is imported late."""
    import torch

    class Hidden(torch.Tensor):
        """Hides a tensor: has its shape, its type, and no numbers."""

        behind: Tensor

        @staticmethod
        def __new__(cls: type[Hidden], behind: Tensor) -> Hidden:
            made = torch.Tensor._make_wrapper_subclass(
                cls, behind.shape, strides=behind.stride(), dtype=behind.dtype, device=torch.device("meta")
            )
            made.behind = behind
            return made

        # The mode comes first. An operation beside it would have torch import its distributed tensors.
        __torch_dispatch__ = classmethod(lambda *_: NotImplemented)  # type: ignore[assignment]

    return Hidden


def _do_behind(func: Any, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """Does an operation on the hidden tensors, and hides its results.

    Raises:
        RuntimeError: It tells a number, has a shape that follows from numbers, or makes a tensor on the host,
            which on a GPU is a copy that the host waits for.
    """
    from torch import Tag, Tensor, ops, uint8
    from torch import bool as boolean
    from torch.utils._pytree import tree_flatten, tree_map

    hidden = _hidden_class()
    given = tree_flatten((args, options))[0]
    behind = [each.behind for each in given if isinstance(each, hidden)]
    # Indexing has torch's tag whether it is by numbers, whose count is known, or by a mask.
    masks = any(each.dtype in (boolean, uint8) for each in behind[1:])
    shaped = Tag.dynamic_output_shape in func.tags and (masks or func.overloadpacket is not ops.aten.index)
    if shaped or Tag.data_dependent_output in func.tags:
        raise RuntimeError(f"{func} asks for numbers")
    place = options.get("device")
    if (place is None and not behind) or (place is not None and str(place) != "meta"):
        raise RuntimeError(f"{func} makes a tensor on the host")
    if place is not None:
        options = {**options, "device": behind[0].device if behind else "cpu"}

    def show(each: Any) -> Any:
        return each.behind if isinstance(each, hidden) else each

    def hide(each: Any) -> Any:
        return hidden(each) if isinstance(each, Tensor) else each

    return tree_map(hide, func(*tree_map(show, args), **tree_map(show, options)))
