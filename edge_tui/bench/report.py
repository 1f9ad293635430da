"""Saves a bench's results as they come, and renders them as Markdown, CSV or a table for the terminal."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import platform
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from math import isfinite
from pathlib import Path
from typing import Any

from edge_tui import __version__
from edge_tui.util.atomic_write import PUBLIC, replace_file
from edge_tui.util.json_text import finite

_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3})")
PACKAGES = ("torch", "transformers", "triton", "bitsandbytes", "tokenizers", "safetensors", "numpy")


@dataclass
class Results:
    """Collects rows and notes of a bench; with a file, each addition is on the disk at once.

    Attributes:
        kind: Name of the bench: "speed", "table", "quality", "figures".
        file: JSON to keep up to date.
        head: The manifest, and what holds for all rows.
        rows: Results.
        notes: Sentences about what could not be measured.
    """

    kind: str
    file: Path | None = None
    head: dict[str, Any] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, row: Mapping[str, Any]) -> None:
        """Adds a row and saves the file."""
        self.rows.append(dict(row))
        self.save()

    def note(self, sentence: str) -> None:
        """Adds a sentence and saves the file."""
        self.notes.append(sentence)
        self.save()

    def save(self) -> None:
        """Writes the file, whole or not at all."""
        if self.file is not None:
            whole = {"bench": self.kind, **self.head, "rows": self.rows, "notes": self.notes}
            text = json.dumps(finite(whole), indent=1, ensure_ascii=False)
            replace_file(self.file, f"{text}\n", PUBLIC)


def manifest(device: str, seed: int, prompts: str) -> dict[str, Any]:
    """Collects what a repetition needs: versions, device, driver, seed, a hash of the prompts."""
    import psutil

    from edge_tui.machine.devices import devices, product_name, torch_cuda_version

    title = next((d.title for d in devices() if d.name == device), device)
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join(["edge-tui", *sys.argv[1:]]),
        "device": device,
        "device_name": title,
        "driver": _driver(),
        "cuda": torch_cuda_version() or None,
        "cpu": product_name("cpu"),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "python": platform.python_version(),
        "versions": {"edge-tui": __version__, **{name: _version(name) for name in PACKAGES}},
        "seed": seed,
        "prompts_sha256": hashlib.sha256(prompts.encode()).hexdigest()[:16],
    }


def _version(name: str) -> str | None:
    with suppress(PackageNotFoundError):
        return version(name)
    return None


def _driver() -> str | None:
    from edge_tui.machine.nvml import Gpu

    with suppress(OSError), closing(Gpu()) as gpu:
        return gpu.driver() or None
    return None


@dataclass(frozen=True, slots=True)
class Column:
    """Describes a column of a table.

    Attributes:
        title: Its head.
        show: Formats a row's cell.
        right: True for a number.
    """

    title: str
    show: Callable[[Mapping[str, Any]], str]
    right: bool = True


def _cells(columns: Sequence[Column], rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Formats every cell, head first."""
    return [[column.title for column in columns], *[[column.show(row) for column in columns] for row in rows]]


def text_table(columns: Sequence[Column], rows: Sequence[Mapping[str, Any]]) -> str:
    """Renders a table for the terminal."""
    table = _cells(columns, rows)
    widths = [max(len(line[i]) for line in table) for i in range(len(columns))]
    lines = []
    for line in table:
        padded = (
            cell.rjust(width) if column.right else cell.ljust(width)
            for cell, width, column in zip(line, widths, columns, strict=True)
        )
        lines.append("  ".join(padded).rstrip())
    return "\n".join([lines[0], "─" * max(map(len, lines)), *lines[1:]])


def markdown_table(columns: Sequence[Column], rows: Sequence[Mapping[str, Any]]) -> str:
    """Renders a table for documents."""
    head, *body = _cells(columns, rows)
    rule = ["---:" if column.right else "---" for column in columns]
    return "\n".join(
        "| " + " | ".join(c.replace("|", "\\|") for c in line) + " |" for line in (head, rule, *body)
    )


def csv_table(columns: Sequence[Column], rows: Sequence[Mapping[str, Any]]) -> str:
    """Renders a table for spreadsheets: numbers without commas, unknown ones empty."""
    out = io.StringIO()
    head, *body = _cells(columns, rows)
    plain = [["" if cell == "–" else _THOUSANDS.sub("", cell) for cell in line] for line in body]
    csv.writer(out, lineterminator="\n").writerows([head, *plain])
    return out.getvalue()


def number(value: float | None, digits: int = 1, unit: str = "", times: float = 1.0) -> str:
    """Formats a number in a unit `times` smaller; a dash where it is not known."""
    if value is None or not isfinite(value):
        return "–"
    return f"{value * times:,.{digits}f}{unit}"


def gigabytes(value: int | None) -> str:
    """Formats bytes in GB of 10⁹; below 0.1 GB to the tenth of a megabyte."""
    return "–" if value is None else f"{value / 1e9:.{2 if value >= 1e8 else 4}f}"


def parameters(count: int) -> str:
    """Formats a number of weights: 7.62B, 494.0M."""
    return f"{count / 1e9:.2f}B" if count >= 1e9 else f"{count / 1e6:.1f}M"


def _method(row: Mapping[str, Any]) -> str:
    method = str(row["strategy"]).partition(", batch")[0]
    return method if row["tier"] != "transformers" else f"{method}, {row['who']}"


QUANTIZATIONS = {"float32": "FP32", "float16": "FP16", "bfloat16": "BF16", "int8": "INT8", "4bit": "INT4"}
"""Names of precisions in tables."""

SPEED = (
    Column("model", lambda r: r["model"], right=False),
    Column("precision", lambda r: r["precision"], right=False),
    Column("strategy", lambda r: r["strategy"], right=False),
    Column("who", lambda r: r["who"], right=False),
    Column("tok/s", lambda r: number(r["tokens_per_second"])),
    Column("ms/token", lambda r: number(r["step"], 3, times=1e3)),
    Column("±", lambda r: number(r["spread"], 1, " %", times=100)),
    Column("of floor", lambda r: number(r["of_floor"], 1, " %", times=100)),
    Column("TTFT ms", lambda r: number(r["first"], times=1e3)),
    Column("peak GB", lambda r: gigabytes(r["peak"])),
    Column("set-up s", lambda r: number(r["setup"])),
    Column("ours is", lambda r: number(r["ratio"], 2, "×")),
)
"""Of `bench speed`."""

TABLE = (
    Column("Model", lambda r: f"{r['model']}, {r['precision']}", right=False),
    Column("Params", lambda r: parameters(r["parameters"])),
    Column("GPU", lambda r: r["device_name"], right=False),
    Column("Decoding Method", _method, right=False),
    Column("Batch Size", lambda r: str(r["batch"])),
    Column("Tokens/sec", lambda r: number(r["tokens_per_second"])),
    Column("Peak GPU RAM (GB)", lambda r: gigabytes(r["peak"])),
    Column("Time-to-First-Token (s)", lambda r: number(r["first"], 4)),
)
"""Of `bench table`."""

QUALITY = (
    Column("Model", lambda r: r["model"], right=False),
    Column("Quantization", lambda r: QUANTIZATIONS.get(r["precision"], r["precision"]), right=False),
    Column("Decoding", lambda r: r["decoding"], right=False),
    Column("Speed (tok/s)", lambda r: number(r["tokens_per_second"])),
    Column("Perplexity", lambda r: number(r["perplexity"], 3)),
    Column("F1", lambda r: number(r["f1"])),
    Column("Peak VRAM (GB)", lambda r: gigabytes(r["peak"])),
)
"""Of `bench quality`."""

QUALITY_REMARK = "Perplexity belongs to a model and its precision; rows that differ in decoding repeat it."


def _seconds(phase: str, row: Mapping[str, Any]) -> str:
    return number(row.get(phase), 2)


PHASES = ("total", "torch", "python", "load", "kernels", "prompt", "first", "capture", "length")
STARTS = (
    Column("start", lambda r: r["start"], right=False),
    *(Column(f"{name} s", partial(_seconds, name)) for name in PHASES),
)
"""Of the phases of a start, in `bench figures`; `bench.start` says what they are."""

FIGURES = (
    Column("figure", lambda r: r["figure"], right=False),
    Column("measured", lambda r: number(r["value"], 3, f" {r['unit']}".rstrip())),
    Column("must", lambda r: r["must"]),
    Column("aim", lambda r: r["aim"]),
    Column("", lambda r: r["verdict"], right=False),
)
"""Of `bench figures`; the rows that they come from are a table of `bench speed`."""
