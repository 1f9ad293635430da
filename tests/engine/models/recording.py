"""Records the operations of a piece of work on a CPU and replays them, as a CUDA graph would.

What the host knew while it was recorded is the same in each replay; so a length that is read on the host, and
a question to the device, show without a GPU.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

if TYPE_CHECKING:
    from collections.abc import Callable

_WAITS = ("_local_scalar_dense", "nonzero", "equal", "masked_select")
"""Operations whose result goes to the host."""


class Recording(TorchDispatchMode):
    """Holds the operations of a piece, with the tensors that they read and write.

    Args:
        piece: Runs once; what it writes to tensors that were there before is undone.

    Raises:
        RuntimeError: it asks for a number.
    """

    def __init__(self, piece: Callable[[], None]) -> None:
        super().__init__()
        self._calls: list[tuple[Any, Any, Any, Any]] = []
        self._before: dict[int, tuple[torch.UntypedStorage, torch.UntypedStorage]] = {}
        with self:
            piece()
        for storage, copy in self._before.values():
            storage.copy_(copy)

    def __torch_dispatch__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        schema, named = func._schema, kwargs or {}  # noqa: SLF001 — nothing else says what is written to
        if schema.name.removeprefix("aten::") in _WAITS:
            raise RuntimeError(f"{func} waits for the device")
        given = [*args, *(named.get(each.name) for each in schema.arguments[len(args) :])]
        for declared, value in zip(schema.arguments, given, strict=True):
            if declared.alias_info is not None and declared.alias_info.is_write:
                for tensor in _tensors(value):
                    storage = tensor.untyped_storage()
                    self._before.setdefault(storage.data_ptr(), (storage, storage.clone()))
        out = func(*args, **named)
        self._calls.append((func, args, named, out))
        return out

    def replay(self) -> None:
        """Does the operations again, on the same tensors."""
        for func, args, named, out in self._calls:
            read = {tensor.untyped_storage().data_ptr() for tensor in _tensors((args, named))}
            for old, new in zip(_tensors(out), _tensors(func(*args, **named)), strict=True):
                if old.untyped_storage().data_ptr() not in read:  # else it is a view, or was written in place
                    old.copy_(new)


def _tensors(value: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, torch.Tensor)]
