from __future__ import annotations

from math import nan

import pytest
from rich.cells import cell_len

from edge_tui.transcript.parting import Parting
from edge_tui.transcript.parting_table import PartingRow
from edge_tui.tui.widgets.parting_lines import parting_content

ROWS = (
    PartingRow(" old", -6.17, 4.96, -1.21, ("cut, rank 58", "● takes it")),
    PartingRow("\x1b[31m horse-drawn carriage", -5.78, 3.91, -1.87, ("● takes it", "2nd")),
)


def lines(width: int, rows: tuple[PartingRow, ...] = ROWS) -> list[str]:
    parting = Parting(22, True, "They part because top-k 50 cut “ old”, which is number 58.", rows)
    return str(parting_content(parting, ("top-k 50", "top-p 0.9"), width)).split("\n")


def test_the_sentence_stands_above_the_table() -> None:
    sentence, head, first, second = lines(90)
    assert sentence == "They part because top-k 50 cut “ old”, which is number 58."
    assert head.split() == ["raw", "luck", "sum", "top-k", "50", "top-p", "0.9"]
    assert first.split() == [
        "“",
        "old”",
        "0.21",
        "%",
        "+4.96",
        "−1.21",
        "cut,",
        "rank",
        "58",
        "●",
        "takes",
        "it",
    ]
    assert "\x1b" not in second


@pytest.mark.parametrize(
    ("width", "columns"), [(76, "raw luck sum"), (56, "raw sum"), (46, "raw"), (20, "raw")]
)
def test_columns_give_way_to_what_became_of_the_tokens(width: int, columns: str) -> None:
    table = lines(width)[1:]
    assert table[0].split()[: len(columns.split())] == columns.split()
    assert "luck" in columns or "luck" not in table[0]
    assert width < 46 or all(cell_len(line) <= width for line in table)
    assert width < 46 or "● takes it" in table[1]


def test_without_luck_there_are_no_columns_for_it() -> None:
    rows = tuple(row._replace(luck=nan, sum=nan) for row in ROWS)
    assert lines(90, rows)[1].split() == ["raw", "top-k", "50", "top-p", "0.9"]
