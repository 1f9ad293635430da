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

WRITING = set("−↵⌫␛")
"""What is writing rather than drawing: in every font, and one cell wide in all of them."""
DRAWN = "─│█▸•✓"
ALL_PLAIN = PLAIN | WRITTEN


def lines(app: EdgeApp) -> list[str]:
    strips = app.screen._compositor.render_strips()
    return [strip.text for strip in strips]


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


@pytest.mark.parametrize("size", [(80, 24), (160, 45)])
@pytest.mark.parametrize("keys", ["", "2", "7,h,enter", "m", "question_mark", "s", "comma", "d", "t"])
async def test_ascii_draws_nothing_else(
    picture: Callable[..., EdgeApp], size: tuple[int, int], keys: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.tui.engines.WORDS", [*WORDS[:-1], DRAWN])
    app = picture(ascii=True)
    async with app.run_test(size=size) as pilot:
        app.workbench.prompt.insert("draw ─│█")
        await pilot.press("ctrl+j")
        await pilot.pause(0.2)
        await pilot.press(*(key for key in keys.split(",") if key))
        await pilot.pause(0.2)
        seen = "\n".join(lines(app))
        pane, prompt = app.workbench.pane, app.workbench.prompt
        if not keys:
            assert DRAWN in seen, "what the model wrote stays"
            assert "draw ─│█" in seen
        for y, line in enumerate(lines(app)):
            for widget in (pane, prompt):
                area = widget.content_region
                if app.screen is app.workbench and y in area.line_range:
                    line = line[: area.x] + " " * area.width + line[area.right :]
            drawn = {each for each in line.replace(DRAWN, "") if not each.isascii()} - WRITING
            assert not drawn, line
