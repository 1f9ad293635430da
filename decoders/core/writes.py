"""Watches every torch operation that writes to one of its arguments."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor


@contextmanager
def watch_writes(note: Callable[[Tensor], None]) -> Iterator[None]:
    """Calls `note` with each tensor just before an operation inside writes to it.

    Version counters would tell as well, but inference tensors have none.
    """
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    class Writes(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's own hook has no types
        pass

    def dispatch(
        mode: Writes,
        func: Any,
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        options = kwargs or {}
        for place, declared in enumerate(func._schema.arguments):
            if declared.alias_info is None or not declared.alias_info.is_write:
                continue
            value = args[place] if place < len(args) else options.get(declared.name)
            for each in value if isinstance(value, list | tuple) else (value,):
                if isinstance(each, torch.Tensor):
                    note(each)
        return func(*args, **options)

    # A method of the class's body would be wrapped for torch.compile, whose import takes a second.
    Writes.__torch_dispatch__ = dispatch  # type: ignore[method-assign,assignment]
    with Writes():  # type: ignore[no-untyped-call]  # nor has its constructor
        yield
