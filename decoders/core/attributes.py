"""Compares the attributes of a strategy's objects before and after a run: a run must change none."""

from __future__ import annotations

import sys
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import TYPE_CHECKING, Any

from edge_tui.decoders.core.checks import is_own
from edge_tui.decoders.core.errors import fault

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edge_tui.decoders.core.decoder import Decoder
    from edge_tui.decoders.core.stage import Stage

_DEPTH = 5
_NO_STATE = (ModuleType, FunctionType, MethodType, BuiltinFunctionType, type)
"""Kinds of values that hold no state: importing late or defining a function changes nothing."""
_PLAIN = (int, float, complex, str, bytes, bool, type(None))
_LIBRARIES = ("torch", "numpy", "functools", "typing", "re")
"""Packages that alone know what is in their objects."""


class Attributes:
    """Remembers the attributes of a strategy, of its stages, their classes and files.

    Args:
        decoder: The strategy.
    """

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self._before = self._read()

    def check(self, method: str) -> None:
        """Compares them with what they are now.

        Args:
            method: "init" or "step", which ran in between.

        Raises:
            StrategyError: one changed; a strategy object keeps nothing of a run.
        """
        import torch

        now = self._read()
        for key in self._before.keys() | now.keys():
            before, after = self._before.get(key), now.get(key)
            if before and after and _is_same(before, after[1]):
                continue
            owner, value, _ = after or before or (None, None, None)
            at = getattr(owner, method, None) or getattr(owner, "apply")  # noqa: B009 — a stage's step
            does = "puts a tensor into" if not before and isinstance(value, torch.Tensor) else "changes"
            raise fault(
                at,
                f"{does} {key[1]}, which outlives the run and is not seen by captured steps; let init return"
                " it in the state, and update it in place.",
            )

    def _read(self) -> dict[tuple[int, str], tuple[object, Any, Any]]:
        """Lists owner and value by owner and path, with a copy where the value is a tensor."""
        import torch

        return {
            (id(owner), path): (owner, value, value.clone() if isinstance(value, torch.Tensor) else None)
            for owner, path, value in _walk(self._decoder, "self", self._decoder, _DEPTH, set())
        }


def _is_same(attribute: tuple[object, Any, Any], value: Any) -> bool:
    _, before, copy = attribute
    if isinstance(value, _PLAIN):
        return type(before) is type(value) and (before == value or value != value)
    if copy is not None and before is value:
        import torch

        return bool(torch.equal(copy.nan_to_num(), value.nan_to_num()))
    return before is value


def _walk(
    owner: object, path: str, value: Any, depth: int, seen: set[int]
) -> Iterator[tuple[object, str, Any]]:
    """Yields owner, path and value of everything that a value refers to, down to a depth."""
    from edge_tui.decoders.core.decoder import Decoder
    from edge_tui.decoders.core.stage import Stage

    if isinstance(value, _NO_STATE):
        return
    is_part = isinstance(value, Decoder | Stage)
    if not is_part:
        yield owner, path, value
    is_foreign = type(value).__module__.partition(".")[0] in _LIBRARIES
    if isinstance(value, _PLAIN) or not depth or id(value) in seen or is_foreign:
        return
    seen.add(id(value))
    inside: list[tuple[str, Any]] = []
    if is_part:
        owner, inside = value, list(_attributes(value))
    elif isinstance(value, dict):
        inside = [(f"{path}[{name!r}]", each) for name, each in list(value.items())]
    elif isinstance(value, list | tuple | set | frozenset):
        inside = [(f"{path}[{place}]", each) for place, each in enumerate(value)]
    elif hasattr(value, "__dict__"):
        inside = [(f"{path}.{name}", each) for name, each in vars(value).items()]
    for name, each in inside:
        yield from _walk(owner, name, each, depth - 1, seen)


def _attributes(part: Decoder | Stage) -> Iterator[tuple[str, Any]]:
    """Yields path and value of a part's attributes, of its classes' and of their files' own names."""
    yield from ((f"self.{name}", each) for name, each in vars(part).items())
    for kind in type(part).__mro__:
        if is_own(kind) or kind.__module__ in ("builtins", "abc"):
            continue
        for prefix, owner in ((f"{kind.__name__}.", kind), ("", sys.modules.get(kind.__module__))):
            for name, each in list(getattr(owner, "__dict__", {}).items()):
                if not name.startswith("__") and name != "_abc_impl":
                    yield f"{prefix}{name}", each
