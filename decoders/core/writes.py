"""Hands over torch operations: to whoever does them, or to who notes what they write to."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor


@contextmanager
def dispatch(do: Callable[[Any, tuple[Any, ...], dict[str, Any]], Any]) -> Iterator[None]:
    """Calls `do(operation, arguments, options)` in the place of each operation inside."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Handover(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's own hook has no types
        pass

    def run(
        mode: Handover,
        func: Any,
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        return do(func, args, kwargs or {})

    # A method of the class's body would be wrapped for torch.compile, whose import takes a second.
    Handover.__torch_dispatch__ = run  # type: ignore[method-assign,assignment]
    with Handover():  # type: ignore[no-untyped-call]  # nor has its constructor
        yield


@contextmanager
def watch_writes(note: Callable[[Tensor], None]) -> Iterator[None]:
    """Calls `note` with each tensor just before an operation inside writes to it.

    Version counters would tell as well, but inference tensors have none.
    """
    import torch

    def check(func: Any, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        for place, declared in enumerate(func._schema.arguments):
            if declared.alias_info is None or not declared.alias_info.is_write:
                continue
            value = args[place] if place < len(args) else options.get(declared.name)
            for each in value if isinstance(value, list | tuple) else (value,):
                if isinstance(each, torch.Tensor):
                    note(each)
        return func(*args, **options)

    with dispatch(check):
        yield
