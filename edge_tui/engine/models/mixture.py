"""Describes a decoder's mixtures of experts, and reads them from config.json by its family's description."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edge_tui.engine.models.family import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edge_tui.engine.models.family import Family


@dataclass(frozen=True, slots=True)
class Mixture:
    """Describes the layers whose feed-forward part is a mixture of experts (arXiv 1701.06538).

    A family's table `[mixture]` gives these values, `layers` as `step` and `dense`.

    Attributes:
        experts: Experts of a layer.
        active: Experts that the router chooses for each token.
        width: Width of an expert.
        layers: True for each layer that is a mixture; the others have a dense feed-forward layer.
        normalised: True if the shares of a token's experts add up to 1, which the softmax of their logits
            alone gives; False leaves them as the softmax over all experts has them.
        shared: Width of an expert that takes every token, by a gate of its own; 0 for none.
        biased: True if router and experts have biases.
        limit: Largest gate, and largest up value in either direction, of a clamped SwiGLU; 0 for a plain one.
        alpha: Its factor on the gate inside the sigmoid.
    """

    experts: int
    active: int
    width: int
    layers: tuple[bool, ...]
    normalised: bool = True
    shared: int = 0
    biased: bool = False
    limit: float = 0.0
    alpha: float = 1.0

    @property
    def sparse_layers(self) -> int:
        """The number of layers that are mixtures."""
        return sum(self.layers)

    def elements(self, hidden: int) -> int:
        """Counts the weights of one expert."""
        biases = 2 * self.width + hidden if self.biased else 0
        return 3 * self.width * hidden + biases

    def unread(self, hidden: int) -> int:
        """Counts the weights of all experts that a step of one token does not choose."""
        return self.sparse_layers * (self.experts - self.active) * self.elements(hidden)


def read_mixture(config: Mapping[str, Any], family: Family, layers: int) -> Mixture | None:
    """Reads the mixtures of a config.json with `layers` layers; None for a family without any.

    Raises:
        UnsupportedError: its numbers contradict each other.
    """
    if not family.mixture:
        return None
    stated = {name: family.value(spec, config, None) for name, spec in family.mixture.items()}
    step, dense = stated.pop("step", 1), stated.pop("dense", None) or []
    for name in ("experts", "active", "width", "shared"):
        value = stated.get(name, 0)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise UnsupportedError(f"its number {name!r} of a mixture of experts is {value!r}")
    if not isinstance(stated.get("normalised") or True, bool):
        raise UnsupportedError(f"its shares of experts are normalised {stated['normalised']!r}")
    for name in ("limit", "alpha"):
        value = stated.get(name)
        if value is not None and not (isinstance(value, int | float) and value > 0):
            raise UnsupportedError(f"its number {name!r} of a mixture of experts is {value!r}")
    if not isinstance(step, int) or step < 1:
        raise UnsupportedError(f"every layer of number {step!r} is to be a mixture of experts")
    experts, active, width = stated["experts"], stated["active"], stated["width"]
    if not 1 <= active <= experts:
        raise UnsupportedError(f"its router chooses {active} of {experts} experts")
    if not width:
        raise UnsupportedError("its experts have no width")
    if config["hidden_act"] != "silu":
        raise UnsupportedError(f"the activation of its experts is {config['hidden_act']!r}")
    sparse = tuple(i not in dense and (i + 1) % int(step) == 0 for i in range(layers))
    return Mixture(layers=sparse, **{name: value for name, value in stated.items() if value is not None})
