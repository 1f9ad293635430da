"""Describes what may differ between layers: their heads, whose keys they read, and feed-forward width."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from edge_tui.engine.models.family import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edge_tui.engine.models.family import Family
    from edge_tui.engine.models.tensor_layout import TensorLayout

_BY_LAYER = {"head_dim": "head_dim", "num_key_value_heads": "kv_heads"}
"""Attributes by their names in what config.json says about single layers."""


@dataclass(frozen=True, slots=True)
class LayerShape:
    """Describes one layer in numbers.

    Attributes:
        source: The layer whose keys and values it attends to: its own number, or that of an earlier one.
        kv_heads: Key and value heads.
        head_dim: Width of a head.
        intermediate: Width of the dense feed-forward layer.
        keys_are_values: True if one matrix makes both, so that the file holds no values.
    """

    source: int
    kv_heads: int
    head_dim: int
    intermediate: int
    keys_are_values: bool = False

    @property
    def kv_width(self) -> int:
        """Numbers of one position's keys and values together."""
        return 2 * self.kv_heads * self.head_dim

    def norm_copies(self, i: int, heads: int, values: bool) -> int:
        """Counts what norms take as layer `i` beside one for queries and one for keys, as files have them."""
        if self.source != i:
            return (heads - 1) * self.head_dim
        return (heads + self.kv_heads * (1 + values) - 2) * self.head_dim


def unused_names(layout: TensorLayout, shapes: tuple[LayerShape, ...]) -> tuple[str, ...]:
    """Names what files have of layers that attend to an earlier one's keys and values."""
    own = (*layout.qkv[1:], *layout.qk_norms[1:])
    shared = [i for i, shape in enumerate(shapes) if shape.source != i]
    return tuple(f"{layout.in_layer(i)}{name}.weight" for i in shared for name in own)


def full_width(shapes: tuple[LayerShape, ...], windows: tuple[int, ...], usual: int) -> int:
    """Returns the width of a head of full layers, which turn by the model's own rotary embedding.

    Raises:
        UnsupportedError: those of one kind have several.
    """
    if not shapes:
        return usual
    widths = {shape.head_dim for shape, window in zip(shapes, windows, strict=True) if not window} or {usual}
    windowed = {shape.head_dim for shape, window in zip(shapes, windows, strict=True) if window}
    if len(widths) > 1 or not windowed <= {usual}:
        raise UnsupportedError("its layers of one kind have heads of several widths")
    return widths.pop()


def read_shapes(
    config: Mapping[str, Any], family: Family, windows: tuple[int, ...], usual: LayerShape
) -> tuple[LayerShape, ...]:
    """Reads every layer's shape; () for a family whose layers are alike.

    Args:
        config: A config.json with the class's defaults.
        family: Its table `shapes` names the keys.
        windows: Each layer's window; 0 for full layers.
        usual: What holds where config.json says nothing else.

    Raises:
        UnsupportedError: its numbers contradict each other.
    """
    if not family.shapes:
        return ()
    said = {name: config.get(key) for name, key in family.shapes.items()}
    shared = int(said.get("shared") or 0)
    first = len(windows) - shared
    if not 0 < first <= len(windows):
        raise UnsupportedError(f"{shared} of its {len(windows)} layers are to have no keys of their own")
    shapes: list[LayerShape] = []
    for i, window in enumerate(windows):
        own = _own_numbers(said, family, i, full=not window)
        kv_heads, width = own.get("kv_heads", usual.kv_heads), own.get("head_dim", usual.head_dim)
        shape = LayerShape(i, kv_heads, width, usual.intermediate)
        if i < first:
            shapes.append(replace(shape, keys_are_values=bool(said.get("keys_are_values")) and not window))
            continue
        # The last layer of the same kind that has its own: full ones share with full ones.
        source = next((at for at in reversed(range(first)) if windows[at] == window), None)
        if source is None:
            raise UnsupportedError(f"its layer {i} has no earlier one of its kind to share keys with")
        if said.get("double"):
            shape = replace(shape, intermediate=2 * shape.intermediate)
        shapes.append(replace(shape, source=source))
        there = shapes[source]
        if (shape.kv_heads, shape.head_dim) != (there.kv_heads, there.head_dim):
            raise UnsupportedError(f"its layer {i} has other heads than layer {source}, whose keys it reads")
    return tuple(shapes)


def _own_numbers(said: Mapping[str, Any], family: Family, i: int, full: bool) -> dict[str, int]:
    """Returns the attributes of layer `i` that config.json states, by layer or for all full ones."""
    if said.get("by_layer") is not None:
        own = said["by_layer"].get(str(i)) or {}
        if unknown := sorted(own.keys() - _BY_LAYER.keys()):
            raise UnsupportedError(f"its layer {i} has a {unknown[0]} of its own")
        return {_BY_LAYER[key]: int(value) for key, value in own.items()}
    if not full:
        return {}
    numbers = {"head_dim": said.get("head_dim") or family.full_head_dim or None}
    if said.get("keys_are_values"):  # its class reads the other number of heads only then
        numbers["kv_heads"] = said.get("kv_heads")
    return {name: int(value) for name, value in numbers.items() if value is not None}
