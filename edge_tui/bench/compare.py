"""Compares the results of two benches, as ratios: `edge-tui bench compare A B`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edge_tui.bench.job import BenchError
from edge_tui.bench.report import Column, number

_KEYS = ("model", "precision", "strategy", "decoding", "who", "batch", "prompt")
_MEASURES = {
    "tokens_per_second": "tok/s",
    "first": "TTFT",
    "peak": "peak",
    "perplexity": "perplexity",
    "f1": "F1",
}
"""Titles of the fields that are compared."""


def compare(a: Path, b: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """Pairs the rows of two benches' files.

    Returns:
        One row a pair, with `b / a` for everything that both measured, and sentences about the rest.

    Raises:
        BenchError: one is no such file.
    """
    one, other = _read(a), _read(b)
    notes = [
        f"{field} differs: {one.get(field)} and {other.get(field)}."
        for field in ("bench", "device_name", "prompts_sha256")
        if one.get(field) != other.get(field)
    ]
    unpaired = {_key(row): row for row in other["rows"]}
    pairs = []
    for row in one["rows"]:
        match = unpaired.pop(_key(row), None)
        if match is None:
            notes.append(f"Only {a.name} has {_title(row)}.")
            continue
        ratios = {name: _ratio(row.get(name), match.get(name)) for name in _MEASURES}
        pairs.append({"title": _title(row), **ratios, "a": row, "b": match})
    notes += [f"Only {b.name} has {_title(row)}." for row in unpaired.values()]
    return pairs, notes


def _read(file: Path) -> dict[str, Any]:
    try:
        whole = json.loads(file.read_text(encoding="utf-8"))
        return {**whole, "rows": [dict(row) for row in whole["rows"]]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BenchError(
            f"{file} has no results of a bench ({error}); give a file that --json has written."
        ) from error


def columns(pairs: Sequence[Mapping[str, Any]]) -> list[Column]:
    """Makes the table's columns: those that any pair has."""
    found = [name for name in _MEASURES if any(pair[name] is not None for pair in pairs)]
    return [
        Column("", lambda r: r["title"], right=False),
        *(Column(f"{_MEASURES[name]} B/A", _cell(name)) for name in found),
    ]


def _cell(name: str) -> Any:
    return lambda row: number(row[name], 3, "×")


def _key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row.get(name) for name in _KEYS)


def _title(row: Mapping[str, Any]) -> str:
    parts = [row.get(name) for name in ("model", "precision", "strategy", "decoding", "who")]
    if row.get("prompt"):
        parts.append(f"prompt {row['prompt']}")
    return " · ".join(str(part) for part in parts if part)


def _ratio(a: Any, b: Any) -> float | None:
    return b / a if isinstance(a, int | float) and isinstance(b, int | float) and a else None
