"""Fits a line of text into a number of cells: cuts it with an ellipsis, pads it, breaks it between words."""

from __future__ import annotations

import re

from rich.cells import cell_len

from edge_tui.transcript.wrapping import clusters

_WORD = re.compile("(?:“[^”]*”|[^ ])+")


def fit_start(text: str, cells: int) -> str:
    """Cuts a text to its beginning, and pads it with spaces."""
    if cell_len(text) > cells:
        start, used = "", 0
        for cluster, width in clusters(text):
            if used + width > cells - 1:
                break
            start, used = start + cluster, used + width
        text = start + "…" if cells > 0 else ""
    return pad(text, cells)


def fit_end(text: str, cells: int) -> str:
    """Cuts a text to its end, and pads it with spaces."""
    start = tail_start(text, cells)
    return pad("…" + text[start:] if start else text, cells) if cells > 0 else ""


def tail_start(text: str, cells: int) -> int:
    """Finds the start of the end that fits behind an ellipsis; 0 if all of the text fits."""
    if cell_len(text) <= cells:
        return 0
    # Far more characters than fit never need measuring; combining marks take some of them.
    start = max(len(text) - 8 * max(cells, 1), 0)
    parts = list(clusters(text[start:]))
    used, at = 0, len(text)
    while parts and used + parts[-1][1] <= cells - 1:
        cluster, width = parts.pop()
        used, at = used + width, at - len(cluster)
    return at


def pad(text: str, cells: int) -> str:
    """Pads a text with spaces."""
    return text + " " * (cells - cell_len(text))


def wrap_words(text: str, cells: int) -> list[str]:
    """Breaks a text between words into lines of `cells`; a quoted token is one word, a long one is cut."""
    lines: list[str] = []
    for word in _WORD.findall(text):
        if lines and cell_len(lines[-1]) + 1 + cell_len(word) <= cells:
            lines[-1] += f" {word}"
        else:
            lines.append(word if cell_len(word) <= cells else fit_start(word, cells))
    return lines
