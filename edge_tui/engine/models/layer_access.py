"""Finds out at load how to read the layers of a transformers module: their states, the final norm, the head.

transformers gives every module's hidden states, but no name for the norm before the head. One forward of two
tokens shows it: it is the module that returns the last of them. The same forward shows what a module does to
the head's product: nothing, a scale (Granite, Cohere), a soft cap (Gemma), or both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

_TOLERANCE = 1e-3
"""Share of the largest logit by which the head's product may be off what the module gives."""
_SATURATED = 0.95
"""Share of a cap beyond which logits say little about the scale before it."""


@dataclass(frozen=True, slots=True)
class Head:
    """Makes logits of states: `cap · tanh(scale · product / cap)`, or the scaled product without a cap.

    Attributes:
        product: The module's head.
        dtype: What the module turns states into before it; Mamba's are float32 in every precision.
        scale: Factor of its product.
        cap: Bound of the logits; 0 for none.
    """

    product: Callable[[Tensor], Tensor]
    dtype: torch.dtype
    scale: float = 1.0
    cap: float = 0.0

    def __call__(self, states: Tensor) -> Tensor:
        return self.adjust(self.product(states.to(self.dtype)))

    def adjust(self, z: Tensor) -> Tensor:
        """Scales and caps the head's product."""
        z = z if self.scale == 1.0 else z * self.scale
        return (z / self.cap).tanh() * self.cap if self.cap else z


@dataclass(frozen=True, slots=True)
class LayerAccess:
    """Holds what reading a module's layers takes.

    Attributes:
        layers: Number of decoder layers; 0 where the module gives no hidden states.
        width: Width `D` of the residual stream.
        head: Makes logits of the last state; None where the module changes them in a way that is not known.
        norm: The final norm, which changes nothing where a model has none behind its layers; None where none
            was found.
    """

    layers: int = 0
    width: int = 0
    head: Head | None = None
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
    shapes = {getattr(state, "shape", None) for state in states}
    if len(states) < 2 or len(shapes) > 1 or states[-1].ndim != 3:  # Gemma 3n has several streams
        return LayerAccess()
    last, config = states[-1], module.config.get_text_config(decoder=True).to_dict()
    caps = [value for name, value in config.items() if _is_cap(name, value)]
    product = module.get_output_embeddings()
    dtype = next((before.dtype for child, before, _ in outputs if child is product), last.dtype)
    head = find_head(product, last.to(dtype), result.logits, caps)
    return LayerAccess(len(states) - 1, last.shape[-1], head, _final_norm(outputs, names, last))


def _is_cap(name: str, value: object) -> bool:
    is_number = isinstance(value, float | int) and not isinstance(value, bool)
    return "softcap" in name.replace("_", "") and is_number and bool(value)


def _final_norm(
    outputs: list[tuple[Any, Tensor, Tensor]], names: dict[Any, str], last: Tensor
) -> Callable[[Tensor], Tensor] | None:
    """Finds the module that makes the last state of another, among inputs and outputs in their order."""
    for child, before, after in outputs:
        if after.shape == last.shape and torch.equal(after, last) and not torch.equal(before, after):
            is_of_layer = any(part.isdigit() for part in names[child].split("."))  # no layer comes after it
            return nn.Identity() if is_of_layer else child
    return None


def find_head(product: Any, last: Tensor, logits: Tensor, caps: Sequence[float]) -> Head | None:
    """Finds what makes logits of the last state; None where no scale and none of the caps explains them.

    Args:
        product: The module's head, or None.
        last: `[1, T, D]`, the last state in the dtype that the head takes.
        logits: `[1, T, V]`.
        caps: Numbers of the configuration that may be a soft cap.
    """
    if product is None or last.shape[-1] != getattr(product, "in_features", last.shape[-1]):
        return None
    z: Tensor = product(last)
    if z.shape != logits.shape:
        return None
    fitted = [(_scale(z, logits, cap), cap) for cap in (0.0, *map(float, caps))]
    heads = [Head(product, last.dtype, *each) for each in ((), *fitted)]
    wanted = logits.float()
    off = [float((head.adjust(z).float() - wanted).abs().amax()) for head in heads]
    best = min(range(len(heads)), key=off.__getitem__)
    # A module that computes in 16 bit rounds once more behind the product.
    rounding = torch.finfo(z.dtype).eps if best else 0.0
    return heads[best] if off[best] <= (_TOLERANCE + rounding) * float(wanted.abs().amax()) else None


def _scale(z: Tensor, logits: Tensor, cap: float) -> float:
    """Fits the factor before a cap by least squares, over the logits that are not close to it."""
    x, y = z.double(), logits.double()
    if cap:
        within = y.abs() < _SATURATED * cap
        x, y = x[within], (y[within] / cap).atanh() * cap
    return float((x * y).sum() / x.square().sum().clamp(min=torch.finfo(torch.float64).tiny))
