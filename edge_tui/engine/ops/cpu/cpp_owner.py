"""Second owners for tensors, so that compiled code can use them without the interpreter."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor


def own_in_cpp(tensors: Iterable[Tensor]) -> object | None:
    """Owns tensors in C++, as long as what it returns lives.

    A tensor that Python made has an object there. Each time that C++ begins or ceases to own such a tensor
    beside Python, torch tells this object so, and takes the interpreter's lock to do it. Compiled code that
    is called with a tensor does both in every call, and waits for the lock in the middle of its work if
    another thread has it: twenty times in one step of a small model. Held here, the tensor has two owners
    whoever comes and goes, and the lock is left alone.

    A torch that compiles nothing holds nothing either: None.
    """
    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            held: object = torch.jit.script(list(tensors))
    except Exception:  # whatever it is, it costs time alone
        return None
    return held
