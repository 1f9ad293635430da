"""Makes the device that computes the current one, and brings tensors from one device to another.

Torch's own operations follow their tensors. All else belongs to the device that is current: the launch of a
Triton kernel, a new stream, the stream that an event or a graph is recorded on. So whoever computes enters
the device of its tensors first; where nobody does, a model on the second GPU would be launched on the first.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch
    from torch import Tensor

Method = TypeVar("Method", bound=Callable[..., Any])


def _enter_cuda(device: str) -> AbstractContextManager[object]:
    import torch

    return torch.cuda.device(device)


ENTER: dict[str, Callable[[str], AbstractContextManager[object]]] = {"cuda": _enter_cuda}
"""Makes a device of this type the current one; devices of other types need not be."""


def entered(device: str) -> AbstractContextManager[object]:
    """Makes a device the current one of this thread, inside."""
    enter = ENTER.get(device.partition(":")[0])
    return nullcontext() if enter is None else enter(device)


@contextmanager
def computing(device: str) -> Iterator[None]:
    """Makes a device the current one, inside, and keeps no gradients."""
    import torch

    with torch.inference_mode(), entered(device):
        yield


def on_own_device(method: Method) -> Method:
    """Lets a model's method run where its weights are: on `info.device`."""

    @wraps(method)
    def enter(model: Any, *args: Any, **options: Any) -> Any:
        with entered(model.info.device):
            return method(model, *args, **options)

    return cast("Method", enter)


def move(tensor: Tensor, device: str | torch.device) -> Tensor:
    """Brings a tensor to a device: to a GPU in stream order; to the host with a wait, as it reads at once."""
    import torch

    device = torch.device(device)
    return tensor.to(device, non_blocking=device.type != "cpu")


def overwrite(target: Tensor, source: Tensor) -> None:
    """Does `move` into a tensor that keeps its address.

    Between two GPUs torch lets the copy wait for the streams of both, and both for the copy.
    """
    target.copy_(source, non_blocking=target.device.type != "cpu")
