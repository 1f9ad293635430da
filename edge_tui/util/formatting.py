"""Formats numbers and bars in fixed widths, so that nothing jumps while they change."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

NA = "n/a"
_EIGHTHS = " ▏▎▍▌▋▊▉█"
_LEVELS = "▁▂▃▄▅▆▇█"
_ASCII_LEVELS = "_.-=*#"


def size(count: float | None, unit: str = "") -> str:
    """Formats bytes in decimal units: "512 MB", "31.4 GB"; with `unit`, the number alone in it."""
    if count is None:
        return NA
    scale = {"kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}
    if unit:
        return _figures(count / scale[unit])
    if count < 1e3:
        return f"{count:.0f} B"
    name = max((u for u in scale if count >= scale[u]), key=lambda u: scale[u])
    return f"{_figures(count / scale[name])} {name}"


def _figures(value: float) -> str:
    return f"{value:.0f}" if value >= 99.95 else f"{value:.1f}"


def compact_count(value: float | None) -> str:
    """Formats a count in at most five characters: "7", "842", "12.3k", "1.2M"."""
    if value is None:
        return NA
    if value < 10_000:
        return f"{value:.0f}"
    return f"{value / 1e3:.1f}k" if value < 1e6 else f"{value / 1e6:.1f}M"


def rate(value: float | None) -> str:
    """Formats tokens per second: "412", "41.2"."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 99.95 else f"{value:.1f}"


def duration(value: float | None) -> str:
    """Formats seconds: "38 ms", "1.2 s", "3 min"."""
    if value is None:
        return "–"
    if value < 1:
        return f"{value * 1000:.0f} ms"
    return f"{value:.1f} s" if value < 120 else f"{value / 60:.0f} min"


def bar(fraction: float | None, width: int, ascii_only: bool = False) -> str:
    """Draws a bar of `width` cells; any fraction above zero shows at least an eighth of a cell."""
    fraction = min(max(fraction or 0.0, 0.0), 1.0)
    if ascii_only:
        full = round(fraction * width)
        return "#" * full + "." * (width - full)
    eighths = max(round(fraction * width * 8), 1 if fraction and width else 0)
    full, part = divmod(eighths, 8)
    text = "█" * full + (_EIGHTHS[part] if part else "")
    return text.ljust(width)


def thin_bar(fraction: float, width: int, ascii_only: bool = False) -> tuple[str, str]:
    """Draws the filled part and the rest of a thin bar, `width` cells together."""
    halves = round(min(max(fraction, 0.0), 1.0) * width * 2)
    full, half = divmod(halves, 2)
    if ascii_only:
        return "=" * (full + half), "-" * (width - full - half)
    return "━" * full + "╸" * half, "─" * (width - full - half)


def sparkline(values: Sequence[float], width: int, ascii_only: bool = False) -> str:
    """Draws the last `width` values as a sparkline from zero to their maximum, right-aligned."""
    levels = _ASCII_LEVELS if ascii_only else _LEVELS
    last = list(values)[-width:]
    top = max(last, default=0.0)
    if top <= 0:
        return " " * width
    marks = [levels[min(round(value / top * (len(levels) - 1)), len(levels) - 1)] for value in last]
    return "".join(marks).rjust(width)


def clip_path(name: str, width: int) -> str:
    """Cuts a name to `width` cells; a path keeps its end, which tells it from its neighbours."""
    from rich.cells import cell_len

    if name.startswith("/") and cell_len(name) > width > 0:
        while cell_len(name) > width - 1:
            name = name[1:]
        return f"…{name}"
    return clip(name, width)


def clip(text: str, width: int) -> str:
    """Cuts a text to `width` cells, with an ellipsis at the cut."""
    from rich.cells import cell_len, set_cell_size

    if cell_len(text) <= width:
        return text
    return set_cell_size(text, max(width - 1, 0)).rstrip() + "…" if width > 0 else ""


def compact_float(value: float) -> str:
    """Formats a number in about five cells: "-0.12", "-12.3", "1234", "-inf", "-1e+05"; "n/a" for NaN."""
    if value != value:
        return "n/a"
    size = abs(value)
    return (
        f"{value:.{2 if size < 9.995 else 1 if size < 99.95 else 0}{'f' if not 9999.5 < size < inf else 'e'}}"
    )


def percent(fraction: float) -> str:
    """Formats a fraction in six cells: "100.0%", " 83.1%", " 0.04%", "<.001%"; "   n/a" for NaN."""
    value = 100 * fraction
    if value != value:
        return "   n/a"
    if 0 < value < 0.001:
        return "<.001%"
    digits = 1 if value >= 1 or value == 0 else 2 if value >= 0.0095 else 3
    written = f"{value:.{digits}f}%"
    return f"{written.removeprefix('0') if digits == 3 else written:>6}"
