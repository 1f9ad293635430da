"""Waits in tests for what happens, never for a duration."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
LONGEST = float(os.environ.get("TEST_LONGEST_WAIT", "inf"))
"""Seconds; mutations of the code (`tests.mutations`) are noticed soon where this is short."""


def until(look: Callable[[], T | None], seconds: float = 60.0) -> T:
    """Looks until there is something; the deadline only ends a test that hangs."""
    end = time.monotonic() + min(seconds, LONGEST)
    while not (seen := look()):
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.003)
    return seen
