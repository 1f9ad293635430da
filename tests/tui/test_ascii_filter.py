from __future__ import annotations

from collections.abc import Callable
from unicodedata import east_asian_width

import pytest
from rich.cells import cell_len
from rich.segment import Segment
from textual.color import Color

from edge_tui.tui.app import EdgeApp
from edge_tui.tui.ascii_filter import EVERYWHERE, MARKS_ONLY, PLAIN, WRITTEN
from tests.tui.engines import WORDS
from tests.tui.rendered import lines, settle, until

WRITING = set("−↵⌫␛")
"""What is writing rather than drawing: in every font, and one cell wide in all of them."""
DRAWN = "─│█▸•✓"
ALL_PLAIN = PLAIN | WRITTEN


def test_every_mark_keeps_its_width() -> None:
    assert all(
        cell_len(mark) == 1 and len(plain) == 1 and plain.isascii() for mark, plain in ALL_PLAIN.items()
    )
    assert {east_asian_width(mark) for mark in WRITTEN} == {"A"}
    assert "A" not in map(east_asian_width, WRITING)


def test_marks_among_writing_are_somebodys() -> None:
    black = Color(0, 0, 0)
    segments = [Segment("▸ "), Segment("“─”"), Segment("↰2 ")]
    assert [each.text for each in EVERYWHERE.apply(segments, black)] == ["> ", '"-"', "<2 "]
    assert [each.text for each in MARKS_ONLY.apply(segments, black)] == ["> ", '"─"', "<2 "]
    theirs = [Segment("…a → b…"), Segment("“…” "), Segment("→"), Segment(" · "), Segment("…")]
    assert [each.text for each in MARKS_ONLY.apply(theirs, black)] == ["~a → b~", '"…" ', "→", " · ", "~"]


@pytest.mark.parametrize("size", [(80, 24), pytest.param((160, 45), marks=pytest.mark.proof)])
async def test_ascii_draws_nothing_else(
    picture: Callable[..., EdgeApp], size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.tui.engines.WORDS", [*WORDS[:-1], DRAWN])
    app = picture(ascii=True)
    async with app.run_test(size=size) as pilot:
        bench = app.workbench
        bench.prompt.insert("draw ─│█")
        await pilot.press("ctrl+j")
        await until(pilot, lambda: bench.pane.laid_out and not app.session.busy)
        await settle(pilot)
        seen = "\n".join(lines(app))
        assert DRAWN in seen, "what the model wrote stays"
        assert "draw ─│█" in seen
        assert_ascii(app)
        for keys in ("m", "question_mark", "s", "comma", "d", "t", "7,h,enter", "2"):
            bench.pane.focus()
            await pilot.press(*keys.split(","))
            await settle(pilot)
            assert_ascii(app)
            if app.screen is not bench:
                await pilot.press("escape")
                await until(pilot, lambda: app.screen is bench)


def assert_ascii(app: EdgeApp) -> None:
    """Looks for drawing outside the panes of what model and user wrote."""
    for y, line in enumerate(lines(app)):
        for widget in (app.workbench.pane, app.workbench.prompt):
            area = widget.content_region
            if app.screen is app.workbench and y in area.line_range:
                line = line[: area.x] + " " * area.width + line[area.right :]
        drawn = {each for each in line.replace(DRAWN, "") if not each.isascii()} - WRITING
        assert not drawn, line
