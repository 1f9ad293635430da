"""Compares the attributes of a strategy's objects before and after a run: a run must change none."""

from __future__ import annotations

import sys
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import TYPE_CHECKING, Any

from edge_tui.decoders.core.checks import is_own, name_of
from edge_tui.decoders.core.errors import StrategyError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from edge_tui.decoders.core.decoder import Decoder

_DEPTH = 5
_NO_STATE = (ModuleType, FunctionType, MethodType, BuiltinFunctionType, type)
"""Kinds of values that hold no state: importing late or defining a function changes nothing."""
_PLAIN = (int, float, complex, str, bytes, bool, type(None))


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
            if before is not None and after is not None and _is_same(before, after[1]):
                continue
            owner, value, _ = after or before or (None, None, None)
            at, path = _method(owner, method), key[1]
            does = (
                "changes"
                if before is not None or not isinstance(value, torch.Tensor)
                else "puts a tensor into"
            )
            raise StrategyError(
                f"{name_of(at)} {does} {path}, which outlives the run and is not seen by captured steps; let"
                " init return it in the state, and update it in place.",
                at,
            )

    def _read(self) -> dict[tuple[int, str], tuple[object, Any, Any]]:
        """Lists owner and value by owner and path, with a copy where the value is a tensor."""
        import torch

        attributes: dict[tuple[int, str], tuple[object, Any, Any]] = {}
        for owner, path, value in _walk(self._decoder):
            copy = value.clone() if isinstance(value, torch.Tensor) else None
            attributes[id(owner), path] = (owner, value, copy)
        return attributes


def _is_same(attribute: tuple[object, Any, Any], value: Any) -> bool:
    _, before, copy = attribute
    if isinstance(value, _PLAIN):
        return type(before) is type(value) and (before == value or value != value)
    if copy is not None and before is value:
        import torch

        return bool(torch.equal(copy.nan_to_num(), value.nan_to_num()))
    return before is value


def _method(owner: object, method: str) -> Callable[..., object]:
    """Returns the method of an object that `method` of its decoder calls."""
    own: Callable[..., object] | None = getattr(owner, method, None)
    return own if own is not None else getattr(owner, "apply")  # noqa: B009 — a stage's step


def _walk(decoder: Decoder) -> Iterator[tuple[object, str, Any]]:
    """Yields owner, path and value of everything that a strategy refers to."""
    from edge_tui.decoders.core.decoder import Decoder
    from edge_tui.decoders.core.stage import Stage

    seen: set[int] = set()

    def down(owner: object, path: str, value: Any, depth: int) -> Iterator[tuple[object, str, Any]]:
        if isinstance(value, _NO_STATE):
            return
        is_part = isinstance(value, Decoder | Stage)
        if not is_part:
            yield owner, path, value
        if isinstance(value, _PLAIN) or not depth or id(value) in seen or _is_foreign(value):
            return
        seen.add(id(value))
        inside: list[tuple[str, Any]] = []
        if is_part:
            owner, path = value, "self"
            inside = [(f"self.{name}", each) for name, each in vars(value).items()]
            for kind in type(value).__mro__:
                if not is_own(kind) and kind.__module__ not in ("builtins", "abc"):
                    inside += [(f"{kind.__name__}.{n}", each) for n, each in _plain(vars(kind))]
                    module = sys.modules.get(kind.__module__)
                    inside += [(n, each) for n, each in _plain(vars(module) if module else {})]
        elif isinstance(value, dict):
            inside = [(f"{path}[{name!r}]", each) for name, each in list(value.items())]
        elif isinstance(value, list | tuple | set | frozenset):
            inside = [(f"{path}[{place}]", each) for place, each in enumerate(value)]
        elif hasattr(value, "__dict__"):
            inside = [(f"{path}.{name}", each) for name, each in vars(value).items()]
        for name, each in inside:
            yield from down(owner, name, each, depth - 1)

    yield from down(decoder, "self", decoder, _DEPTH)


def _plain(names: Any) -> list[tuple[str, Any]]:
    """Lists the names of a class or a module, without those of Python's own."""
    return [
        (name, each)
        for name, each in list(names.items())
        if not name.startswith("__") and name != "_abc_impl"
    ]


def _is_foreign(value: Any) -> bool:
    """Tells whether a value belongs to a library, which alone knows what is in it."""
    return type(value).__module__.partition(".")[0] in ("torch", "numpy", "functools", "typing", "re")
