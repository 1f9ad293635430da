"""The cells of a curve: nothing that stands out is lost, every token has its place."""

from __future__ import annotations

from itertools import pairwise
from math import inf, isnan, nan

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edge_tui.engine.events import Finished
from edge_tui.transcript.curve import QUANTITIES, UNKNOWN, Cells, CurveValues, Quantity, divide
from edge_tui.transcript.transcript import Transcript
from tests.tui.transcripts import BEAM, batch, beam_step, started, transcript_of

SURPRISE = QUANTITIES["surprise"]
LOWEST = Quantity("test", "raw_logp", "raw_logp", (0.1, 1.0), "", lowest=True)

numbers = st.lists(st.one_of(st.floats(0, 20, width=32), st.just(nan), st.just(inf)), max_size=300)
turned = st.lists(st.integers(0, 320), max_size=60)


def cells_of(values: list[float], at: list[int], quantity: Quantity, width: int) -> Cells:
    return divide(np.array(values, np.float32), at, quantity, width)


@given(numbers, turned, st.integers(2, 160), st.sampled_from([SURPRISE, LOWEST]))
def test_each_cell_has_the_number_that_stands_out_of_its_tokens(
    values: list[float], at: list[int], width: int, quantity: Quantity
) -> None:
    cells = cells_of(values, at, quantity, width)
    chosen = zip(cells.tokens, cells.values, cells.heights, strict=True)
    for cell, (token, value, height) in enumerate(chosen):
        own = [each for each in values[cell * cells.size : (cell + 1) * cells.size] if not isnan(each)]
        assert cells.cell_of(token) == cell
        if not own:
            assert height == UNKNOWN
            continue
        assert value == np.float32((min if quantity.lowest else max)(own))
        assert height == sum(value >= bound for bound in quantity.bounds)


@given(numbers, turned, st.integers(2, 160))
def test_all_tokens_and_ticks_are_in_sight_in_their_order(
    values: list[float], at: list[int], width: int
) -> None:
    cells = cells_of(values, at, SURPRISE, width)
    n = len(values)
    assert cells.width <= width
    assert len(cells.tokens) == len(cells.heights) == (-(-n // cells.size) if n else 0)
    places = [cells.cell_of(token) for token in range(n)]
    assert all(0 <= b - a <= 1 for a, b in pairwise(places))
    assert cells.ticks == tuple(sorted({cells.cell_of(token) for token in at if token < n}))
    columns = [cells.column_of(cell) for cell in range(len(cells.tokens))]
    assert all(a < b for a, b in pairwise(columns))
    assert all(cells.cell_at(column) == cell for cell, column in enumerate(columns))
    assert all(cells.cell_at(cells.column_of(tick) - 1) == tick for tick in cells.ticks)
    assert cells.cell_at(cells.width) is None


@given(numbers.filter(bool), st.integers(2, 160))
def test_cells_hold_no_more_tokens_than_the_width_asks_for(values: list[float], width: int) -> None:
    cells = cells_of(values, [], SURPRISE, width)
    assert cells.size == -(-len(values) // width)


def test_a_spike_among_a_hundred_thousand_tokens_stays() -> None:
    values = np.full(100_000, 0.01, np.float32)
    values[54_321] = 9.5
    cells = divide(values, [54_321], SURPRISE, 37)
    (spike,) = (cell for cell, height in enumerate(cells.heights) if height == 7)
    assert cells.tokens[spike] == 54_321
    assert cells.ticks == (spike,)


def test_many_turned_values_leave_room_for_cells() -> None:
    cells = cells_of([1.0] * 500, list(range(500)), SURPRISE, 40)
    assert cells.width <= 40
    assert len(cells.tokens) == len(cells.ticks) == 20


def test_without_room_or_tokens_there_are_no_cells() -> None:
    assert cells_of([], [3], SURPRISE, 40) == Cells()
    assert cells_of([1.0], [], SURPRISE, 0) == Cells()


def test_only_new_tokens_are_read_and_a_changed_path_is_read_again() -> None:
    transcript = Transcript(started(2, BEAM))
    beam_step(transcript, 0, [(0, "a", -0.5), (0, "b", -1.0)])
    values = CurveValues(transcript, Quantity("id", "id", "id", (), ""), False)
    assert len(values.read()) == 1
    beam_step(transcript, 1, [(0, "c", -1.0), (1, "d", -1.2)])
    values.read()
    beam_step(transcript, 2, [(0, "e", -3.0), (1, "f", -1.3)])
    assert np.array_equal(values.read(), transcript.column("id"))
    transcript.finish(Finished(1, "done", 3, 0.1, 0.1))
    assert np.array_equal(values.read(), transcript.column("id"))


def test_surprise_is_that_of_the_model_or_of_the_draw() -> None:
    transcript = transcript_of(["a", "b"], [0.5, 0.01])
    raw = CurveValues(transcript, SURPRISE, False)
    assert np.allclose(raw.read(), [0.6931, 4.6052], atol=1e-3)
    assert np.allclose(CurveValues(transcript, SURPRISE, True).read(), [0.0, 0.0])
    transcript.extend(batch(["c"], 2, probabilities=[0.1]))
    assert np.allclose(raw.read()[2:], [2.3026], atol=1e-3)
    assert isnan(raw.value(3))
