"""Waits for kernels that other processes compile, before a model's loading launches some of them.

Whoever has them compiled says how to wait; elsewhere nothing is waited for.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_waits: list[Callable[[], None]] = []
"""How to wait, of the load that goes on."""


def wait() -> None:
    """Waits until the kernels that loading launches are compiled, or cannot be."""
    for each in _waits:
        each()


@contextmanager
def waiting_by(function: Callable[[], None]) -> Iterator[None]:
    """Lets `wait` call a function, inside."""
    _waits.append(function)
    try:
        yield
    finally:
        _waits.remove(function)
