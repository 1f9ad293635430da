"""Writes why two runs part: the sentence, and the table of the tokens concerned."""

from __future__ import annotations

from math import exp, isnan
from typing import TYPE_CHECKING

from textual.content import Content

from edge_tui.transcript.fitting import fit_start
from edge_tui.transcript.why_text import share, signed
from edge_tui.util.sanitise import visible

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edge_tui.transcript.parting import Parting
    from edge_tui.transcript.parting_table import PartingRow
    from edge_tui.tui.widgets.line_panel import Parts

_COLUMNS = ("raw", "luck", "sum")
_TEXT, _NUMBER = 14, 8
"""Cells of a token's text, and of a number."""
_SHORTEST_VERDICT, _LONGEST_VERDICT = 10, 24
"""Cells of what became of it in one run; columns of numbers give way to the shortest."""


def parting_content(parting: Parting, titles: tuple[str, str], width: int) -> Content:
    """Writes the sentence above the table.

    Args:
        parting: Why they part.
        titles: Of the two runs; headings of the last two columns.
        width: Cells of a line; the table leaves out what has no room.
    """
    parts: Parts = [(parting.sentence, "$warning bold")]
    is_known = any(not isnan(row.luck) for row in parting.rows)
    choices = [_COLUMNS, _COLUMNS[::2], _COLUMNS[:1]] if is_known else [_COLUMNS[:1]]
    rooms = [(width - _TEXT - _NUMBER * len(columns)) // 2 - 2 for columns in choices]
    at = next((i for i, room in enumerate(rooms) if room >= _SHORTEST_VERDICT), len(rooms) - 1)
    columns, verdict = choices[at], min(max(rooms[at], 1), _LONGEST_VERDICT)
    heads = "".join(f"{name:>{_NUMBER}}" for name in columns)
    names = "".join(f"  {fit_start(title, verdict)}" for title in titles)
    parts.append((f"\n{'':{_TEXT}}{heads}{names}", "$text-muted"))
    for row in parting.rows:
        parts += _row(row, columns, verdict)
    return Content.assemble(*parts)


def _row(row: PartingRow, columns: Sequence[str], verdict: int) -> Parts:
    numbers = {
        "raw": share(exp(row.raw_logp)),
        "luck": signed(row.luck, 2, _NUMBER - 1, "+"),
        "sum": signed(row.sum, 2, _NUMBER - 1, "+"),
    }
    parts: Parts = [(f"\n{fit_start(visible(row.text), _TEXT)}", "bold")]
    parts += [(f"{numbers[name]:>{_NUMBER}}", "") for name in columns]
    for text in row.verdicts:
        style = "$success" if text.startswith("●") else "$error" if text.startswith("cut") else "$text-muted"
        parts += [("  ", ""), (fit_start(text, verdict), style)]
    return parts
