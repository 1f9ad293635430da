"""Compares the attributes of a strategy's objects before and after a run: a run must change none."""

from __future__ import annotations

import sys
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import TYPE_CHECKING, Any

from edge_tui.decoders.core.checks import is_own
from edge_tui.decoders.core.decoder import Decoder
from edge_tui.decoders.core.errors import fault
from edge_tui.decoders.core.stage import Stage

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_DEPTH = 5
"""Most steps from a strategy to what it refers to."""
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
            for owner, path, value in walk(self._decoder)
            if not isinstance(value, Decoder | Stage)
        }


def _is_same(attribute: tuple[object, Any, Any], value: Any) -> bool:
    _, before, copy = attribute
    if isinstance(value, _PLAIN):
        return type(before) is type(value) and (before == value or value != value)
    if copy is not None and before is value:
        import torch

        return bool(torch.equal(copy.nan_to_num(), value.nan_to_num()))
    return before is value


def walk(decoder: Decoder, *, files: bool = True) -> Iterator[tuple[Decoder | Stage, str, Any]]:
    """Yields everything that a strategy refers to: the part that holds it, the path to it, and the value.

    Args:
        decoder: The strategy.
        files: True goes on to the names of the files that define its parts.
    """
    seen: set[int] = set()

    def down(owner: Decoder | Stage, path: str, value: Any, depth: int) -> Iterator[tuple[Any, str, Any]]:
        """Yields a value and, `depth` levels deep, what its fields or entries refer to."""
        if isinstance(value, _NO_STATE):
            return
        yield owner, path, value
        is_foreign = type(value).__module__.partition(".")[0] in _LIBRARIES
        if isinstance(value, _PLAIN) or not depth or id(value) in seen or is_foreign:
            return
        seen.add(id(value))
        inside: Iterable[tuple[str, Any]] = ()
        if isinstance(value, Decoder | Stage):
            owner, inside = value, _attributes(value, files)
        elif isinstance(value, dict):
            inside = [(f"{path}[{name!r}]", each) for name, each in list(value.items())]
        elif isinstance(value, list | tuple | set | frozenset):
            inside = [(f"{path}[{place}]", each) for place, each in enumerate(value)]
        elif hasattr(value, "__dict__"):
            inside = [(f"{path}.{name}", each) for name, each in vars(value).items()]
        for name, each in inside:
            yield from down(owner, name, each, depth - 1)

    return down(decoder, "self", decoder, _DEPTH)


def _attributes(part: Decoder | Stage, files: bool) -> Iterator[tuple[str, Any]]:
    """Yields path and value of a part's attributes, of its classes' and, if wanted, of their files' names."""
    yield from ((f"self.{name}", each) for name, each in vars(part).items())
    for kind in type(part).__mro__:
        if is_own(kind) or kind.__module__ in ("builtins", "abc"):
            continue
        module = sys.modules.get(kind.__module__) if files else None
        for prefix, owner in ((f"{kind.__name__}.", kind), ("", module)):
            for name, each in list(getattr(owner, "__dict__", {}).items()):
                if not name.startswith("__") and name != "_abc_impl":
                    yield f"{prefix}{name}", each
