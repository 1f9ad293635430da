"""Finds out at load how to read the layers of a transformers module: their states, the final norm, the head.

transformers gives every module's hidden states, but no name for the norm before the head. One forward of two
tokens shows it: it is the module that returns the last of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

_TOLERANCE = 1e-3
"""Share of the largest logit by which the head's product may be off what the module gives."""


@dataclass(frozen=True, slots=True)
class LayerAccess:
    """Holds what reading a module's layers takes.

    Attributes:
        layers: Number of decoder layers; 0 where the module gives no hidden states.
        width: Width `D` of the residual stream.
        head: Makes logits of the last state; None where the module changes them afterwards.
        norm: The final norm, which changes nothing where a model has none behind its layers; None where none
            was found.
    """

    layers: int = 0
    width: int = 0
    head: Callable[[Tensor], Tensor] | None = None
    norm: Callable[[Tensor], Tensor] | None = None


@torch.inference_mode()
def layer_access(module: Any) -> LayerAccess:
    """Runs two tokens through a module and looks for its states, its final norm and its head."""
    ids = torch.ones(1, 2, dtype=torch.int64, device=module.device)
    names = {child: name for name, child in module.named_modules() if not next(child.children(), None)}
    outputs: list[tuple[Any, Tensor, Tensor]] = []

    def note(child: Any, inputs: Any, output: Any) -> None:
        if inputs and all(isinstance(each, torch.Tensor) for each in (inputs[0], output)):
            outputs.append((child, inputs[0], output))

    handles = [leaf.register_forward_hook(note) for leaf in names]
    try:
        result = module(input_ids=ids, use_cache=False, output_hidden_states=True)
    except Exception:  # whatever a modelling library raises: then nothing is read
        return LayerAccess()
    finally:
        for handle in handles:
            handle.remove()
    states: tuple[Tensor, ...] = getattr(result, "hidden_states", None) or ()
    if len(states) < 2 or any(getattr(state, "shape", None) != states[-1].shape for state in states):
        return LayerAccess()
    last, head = states[-1], _checked(module.get_output_embeddings(), states[-1], result.logits)
    return LayerAccess(len(states) - 1, last.shape[-1], head, _final_norm(outputs, names, last))


def _final_norm(
    outputs: list[tuple[Any, Tensor, Tensor]], names: dict[Any, str], last: Tensor
) -> Callable[[Tensor], Tensor] | None:
    """Finds the module that makes the last state of another, among inputs and outputs in their order."""
    for child, before, after in outputs:
        if after.shape == last.shape and torch.equal(after, last) and not torch.equal(before, after):
            is_of_layer = any(part.isdigit() for part in names[child].split("."))  # no layer comes after it
            return nn.Identity() if is_of_layer else child
    return None


def _checked(head: Any, last: Tensor, logits: Tensor) -> Callable[[Tensor], Tensor] | None:
    """Returns the head if its product with the last state is the logits."""
    if head is None or last.shape[-1] != getattr(head, "in_features", last.shape[-1]):
        return None
    off: Tensor = (head(last).float() - logits.float()).abs().amax()
    return head if bool(off <= _TOLERANCE * logits.float().abs().amax()) else None
