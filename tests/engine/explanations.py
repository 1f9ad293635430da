"""Compares explanations as JSON has them."""

from __future__ import annotations

from typing import Any

import pytest


def assert_alike(one: Any, other: Any, at: str = "") -> None:
    """Checks that two explanations say the same: of a token read at once and one by one, within 1e-3 nats.

    Their `epsilon` and `note` may differ, as they say which of the two it was.
    """
    if isinstance(one, dict):
        assert one.keys() == other.keys(), at
        for name in one.keys() - {"epsilon", "note"}:
            assert_alike(one[name], other[name], f"{at}.{name}")
    elif isinstance(one, list):
        assert len(one) == len(other), at
        for i, (here, there) in enumerate(zip(one, other, strict=True)):
            assert_alike(here, there, f"{at}[{i}]")
    elif isinstance(one, float) and isinstance(other, float):
        assert one == pytest.approx(other, abs=1e-3, rel=1e-3), at
    else:
        assert one == other, at
