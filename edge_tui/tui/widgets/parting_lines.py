"""Writes why two runs part: the sentence, and the table of the tokens concerned."""

from __future__ import annotations

from math import exp, isnan
from typing import TYPE_CHECKING

from textual.content import Content

from edge_tui.transcript.fitting import fit_start, pad, visible
from edge_tui.transcript.why_text import share, signed

if TYPE_CHECKING:
    from edge_tui.transcript.parting import Parting
    from edge_tui.transcript.parting_table import PartingRow
    from edge_tui.tui.widgets.line_panel import Parts

_TEXT, _NUMBER, _VERDICT = 14, 8, 15
"""Cells of a token's text, of a number, and of what became of it in one run."""


def parting_content(parting: Parting, titles: tuple[str, str], width: int) -> Content:
    """Writes the sentence above the table.

    Args:
        parting: Why they part.
        titles: Of the two runs; headings of the last two columns.
        width: Cells of a line; the table leaves out what has no room.
    """
    parts: Parts = [(parting.sentence, "$warning bold")]
    with_sums = any(not isnan(row.luck) for row in parting.rows)
    columns = ["raw", "luck", "sum"] if with_sums else ["raw"]
    room = width - _TEXT - _NUMBER * len(columns) - 4
    verdict = min(max(room // 2, _NUMBER), 24)
    heads = "".join(f"{name:>{_NUMBER}}" for name in columns)
    names = "".join(f"  {fit_start(title, verdict)}" for title in titles)
    parts.append((f"\n{'':{_TEXT}}{heads}{names}", "$text-muted"))
    for row in parting.rows:
        parts += _row(row, with_sums, verdict)
    return Content.assemble(*parts)


def _row(row: PartingRow, with_sums: bool, verdict: int) -> Parts:
    parts: Parts = [
        (f"\n{fit_start(visible(row.text), _TEXT)}", "bold"),
        (f"{share(exp(row.raw_logp)):>{_NUMBER}}", ""),
    ]
    if with_sums:
        parts += [(f"{signed(number, 2, _NUMBER - 1, '+'):>{_NUMBER}}", "") for number in (row.luck, row.sum)]
    for text in row.verdicts:
        style = "$success" if text.startswith("●") else "$error" if text.startswith("cut") else "$text-muted"
        parts += [("  ", ""), (pad(fit_start(text, verdict), verdict), style)]
    return parts
