from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edge_tui.transcript.agreement import agreement_strip, cell_of_token, partings, tokens_of_cell


def test_each_token_has_a_cell_where_there_is_room() -> None:
    assert agreement_strip([1, 2, 3, 4], [1, 2, 9, 4, 5, 6], 10) == "██·█  "
    assert agreement_strip([], [], 10) == ""


def test_tokens_share_cells_where_there_is_none() -> None:
    assert agreement_strip([1, 2, 3, 4, 5, 6, 7, 8], [1, 2, 3, 9, 9, 9, 7, 8], 4) == "█▒·█"


def test_a_parting_is_where_a_stretch_of_differences_begins() -> None:
    assert partings([1, 2, 3, 4, 5], [1, 8, 9, 4, 7, 6]) == [1, 4]
    assert partings([1, 2], [3, 2]) == [0]
    assert partings([1, 2], [1, 2, 3]) == []


@given(st.integers(1, 300), st.integers(1, 100))
def test_a_token_is_in_the_cell_that_is_drawn_of_it(tokens: int, cells: int) -> None:
    for token in range(tokens):
        first, last = tokens_of_cell(cell_of_token(token, tokens, cells), tokens, cells)
        assert first <= token < last
