"""Writes JSON for people and programs that read it line by line."""

from __future__ import annotations

import json
from math import isfinite
from typing import Any


def finite(value: Any) -> Any:
    """Replaces numbers that JSON does not know (infinity, NaN) by None, at any depth."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not isfinite(value) else value


def json_line(value: Any, ascii_only: bool = True) -> str:
    """Writes JSON on one line without control characters, not even the one that ASCII leaves."""
    return json.dumps(finite(value), ensure_ascii=ascii_only).replace("\x7f", "\\u007f")
