"""Watches torch operations: each one's result, or each argument that it writes to."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor


@contextmanager
def dispatch(
    before: Callable[[Any, tuple[Any, ...], dict[str, Any]], None] = lambda func, args, options: None,
    after: Callable[[Any, Any], None] = lambda func, out: None,
) -> Iterator[None]:
    """Calls `before(operation, arguments, options)` and `after(operation, result)` around each one inside."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's own hook has no types
        pass

    def run(
        mode: Watch,
        func: Any,
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        options = kwargs or {}
        before(func, args, options)
        out = func(*args, **options)
        after(func, out)
        return out

    # A method of the class's body would be wrapped for torch.compile, whose import takes a second.
    Watch.__torch_dispatch__ = run  # type: ignore[method-assign,assignment]
    with Watch():  # type: ignore[no-untyped-call]  # nor has its constructor
        yield


@contextmanager
def watch_writes(note: Callable[[Tensor], None]) -> Iterator[None]:
    """Calls `note` with each tensor just before an operation inside writes to it.

    Version counters would tell as well, but inference tensors have none.
    """
    import torch

    def check(func: Any, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        for place, declared in enumerate(func._schema.arguments):
            if declared.alias_info is None or not declared.alias_info.is_write:
                continue
            value = args[place] if place < len(args) else options.get(declared.name)
            for each in value if isinstance(value, list | tuple) else (value,):
                if isinstance(each, torch.Tensor):
                    note(each)

    with dispatch(before=check):
        yield
