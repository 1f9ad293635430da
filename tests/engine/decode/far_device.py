"""A device that is far away, on a CPU: it has a GPU's ways, and counts what a GPU would have to wait for.

Its tensors say that they are on `meta`, so that code which asks for the device takes the way of an
accelerator; their numbers lie on the CPU all the same. A wait is an operation for which the host and a GPU
have to meet: a number that is read, a tensor that is brought to the host, a shape that depends on numbers,
and a copy to the device that is not told to go on by itself.
"""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

if TYPE_CHECKING:
    from collections.abc import Iterator

DEVICE = "meta"
READS = {
    *("item", "_local_scalar_dense", "is_nonzero", "equal", "allclose"),
    *("nonzero", "masked_select", "unique", "unique_consecutive", "_unique2", "bincount", "argwhere"),
}
"""Operations that the host waits for, by their names."""
ALLOCATIONS = {"empty", "detach", "alias", "view", "expand", "select", "slice", "unsqueeze", "squeeze"}
"""Operations that launch nothing."""


class FarTensor(torch.Tensor):
    """Holds a tensor of the far device."""

    near: torch.Tensor

    @staticmethod
    def __new__(cls, near: torch.Tensor) -> FarTensor:
        return torch.Tensor._make_wrapper_subclass(  # noqa: SLF001 - there is no public name
            cls,
            near.size(),
            strides=near.stride(),
            storage_offset=near.storage_offset(),
            dtype=near.dtype,
            device=DEVICE,
        )

    def __init__(self, near: torch.Tensor) -> None:
        self.near = near

    def __repr__(self) -> str:  # type: ignore[override]
        return f"FarTensor({self.near})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(None, func, args, kwargs or {})


class FarDevice(TorchDispatchMode):
    """Runs operations on near and far tensors, and counts.

    Attributes:
        waits: Operations that host and device met for, by name.
        launches: Number of operations that the device had to do.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[str] = Counter()
        self.launches = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(self, func, args, kwargs or {})

    @contextmanager
    def opened(self) -> Iterator[FarDevice]:
        """Lets code inside use the device; no gradients are kept."""
        with torch.inference_mode(), _Literals(self), self:
            yield self

    def clear(self) -> None:
        """Counts from zero again."""
        self.waits.clear()
        self.launches = 0


class _Literals(TorchFunctionMode):
    """Brings numbers to the device that `torch.tensor` makes a tensor of: no operation shows that."""

    def __init__(self, device: FarDevice) -> None:
        super().__init__()
        self._device = device

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.tensor and str(kwargs.get("device")) == DEVICE:
            self._device.waits["tensor"] += 1
            del kwargs["device"]
            return FarTensor(func(*args, **kwargs))
        if func is torch.Tensor.tolist and isinstance(args[0], FarTensor):
            self._device.waits["tolist"] += 1
            return args[0].near.tolist()
        return func(*args, **kwargs)


def _run(mode: FarDevice | None, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Runs an operation on the numbers, and says where its result is."""
    leaves = tree_leaves((args, kwargs))
    is_far = any(isinstance(each, FarTensor) for each in leaves)
    asked = next((each for each in leaves if isinstance(each, torch.device)), kwargs.get("device"))
    target = None if asked is None else torch.device(asked).type
    if mode is not None and (is_far or target == DEVICE):
        _count(mode, func, args, kwargs, is_far, target)
    near_args, near_kwargs = tree_map(_near, (args, kwargs))
    out = func(*near_args, **near_kwargs)
    if target != DEVICE and (not is_far or target is not None):
        return out
    if _schema(func).is_mutable and not isinstance(args[0] if args else None, FarTensor):
        return out
    return tree_map(lambda each: FarTensor(each) if isinstance(each, torch.Tensor) else each, out)


def _schema(func: Any) -> Any:
    return func._schema  # noqa: SLF001 - torch has no public name for it


def _near(value: Any) -> Any:
    if isinstance(value, FarTensor):
        return value.near
    if isinstance(value, torch.device) and value.type == DEVICE:
        return torch.device("cpu")
    return value


def _count(
    mode: FarDevice, func: Any, args: Any, kwargs: dict[str, Any], is_far: bool, target: str | None
) -> None:
    name = _schema(func).name.removeprefix("aten::").removesuffix("_")
    waits, is_free = name in READS, kwargs.get("non_blocking") or any(each is True for each in args)
    if name in ("to", "_to_copy") and target is not None:
        waits = is_far if target == "cpu" else not is_far and not is_free
    if name == "copy":
        ends = [isinstance(each, FarTensor) for each in args[:2]]
        waits = ends[0] != ends[1] and not is_free
    if name in ("index", "index_put"):
        waits = any(each.dtype == torch.bool for each in args[1] if each is not None)
    mode.waits[name] += waits
    mode.waits += Counter()  # without zeros
    mode.launches += name not in ALLOCATIONS
