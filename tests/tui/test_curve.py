"""The curve under the tokens: what it draws, what it paints again, and where a click leads."""

from __future__ import annotations

from math import inf
from typing import Any

import pytest
from textual.app import App, ComposeResult
from textual.geometry import Region

from edge_tui.config.schema import SCHEMA
from edge_tui.config.settings import Settings
from edge_tui.engine.events import ParamChanged
from edge_tui.transcript.curve import OFF, QUANTITIES
from edge_tui.transcript.transcript import Transcript
from edge_tui.tui.theme import FALLBACK
from edge_tui.tui.widgets.curve import Curve
from edge_tui.tui.widgets.token_pane import TokenPane
from tests.tui.rendered import lines, settle, until
from tests.tui.test_pictures import ran
from tests.tui.transcripts import batch, started, transcript_of


class CurveApp(App[None]):
    CSS = "TokenPane { height: 1fr; }"

    def __init__(self) -> None:
        super().__init__()
        self.pane = TokenPane()
        self.curve = Painted(self.pane)

    def compose(self) -> ComposeResult:
        yield self.pane
        yield self.curve

    def on_mount(self) -> None:
        self.register_theme(FALLBACK)
        self.theme = "dark"

    def show(self, transcript: Transcript, quantity: str = "surprise") -> None:
        self.pane.show(transcript)
        self.curve.quantity = quantity
        self.curve.show(transcript)

    @property
    def line(self) -> str:
        return self.curve.render_line(0).text


class Painted(Curve):
    """Notes the regions that are painted again; () is all of it."""

    def __init__(self, pane: TokenPane) -> None:
        super().__init__(pane)
        self.regions: list[tuple[Region, ...]] = []

    def refresh(self, *regions: Region, **options: Any) -> Any:
        if hasattr(self, "regions"):
            self.regions.append(regions)
        return super().refresh(*regions, **options)


def reversed_text(curve: Curve) -> str:
    line = curve.render_line(0)
    return "".join(segment.text for segment in line if segment.style and segment.style.reverse)


# −log p of these is 0.1, 1.6, 2.3, 4.6 and 9.2 nats.
STEPS = [0.9, 0.2, 0.1, 0.01, 0.0001]


async def test_heights_are_nats_and_the_cursor_is_marked_with_its_number() -> None:
    app = CurveApp()
    async with app.run_test(size=(46, 8)) as pilot:
        app.show(transcript_of(["a ", "b ", "c ", "d ", "e "], STEPS))
        await pilot.pause()
        assert app.line == "surprise ▁▂▃▅█" + " " * 31
        app.pane.cursor = 3
        await pilot.pause()
        assert reversed_text(app.curve) == "▅"
        assert app.line.endswith(" 4.61")
        app.curve.ascii_only = True
        assert app.line[9:14] == "_.-=#"
        assert app.line.isascii()


async def test_a_tick_stands_before_the_token_from_which_a_value_held() -> None:
    app = CurveApp()
    async with app.run_test(size=(90, 8)) as pilot:
        transcript = transcript_of(["a ", "b ", "c ", "d ", "e "], STEPS)
        transcript.change(ParamChanged(1, "temperature", 1.4, 2, 3))
        app.show(transcript)
        await pilot.pause()
        assert app.line[9:15] == "▁▂▃╎▅█"
        assert "temperature 1.4 from #3" in app.line
        app.pane.cursor = 2
        await pilot.pause()
        assert "temperature" not in app.line
        assert reversed_text(app.curve) == "▃"


async def test_streamed_tokens_paint_only_the_columns_that_changed() -> None:
    app = CurveApp()
    async with app.run_test(size=(46, 8)) as pilot:
        transcript = transcript_of(["a ", "b "], STEPS[:2])
        app.show(transcript)
        await pilot.pause()
        app.curve.regions.clear()
        transcript.extend(batch(["c ", "d "], 2, probabilities=STEPS[2:4]))
        app.curve.refresh_tail()
        assert app.curve.regions == [(Region(11, 0, 2, 1),)]
        app.curve.refresh_tail()
        assert len(app.curve.regions) == 1


async def test_a_click_goes_to_the_token_that_gives_the_cell_its_height() -> None:
    app = CurveApp()
    async with app.run_test(size=(46, 8)) as pilot:
        probabilities = [0.9] * 90
        probabilities[7] = 0.001
        app.show(transcript_of(["x "] * 90, probabilities))
        await pilot.pause()
        assert app.line[9:39] == "▁▁▇" + "▁" * 27
        await pilot.click(Curve, offset=(11, 0))
        assert app.pane.cursor == 7
        assert app.focused is app.pane
        await pilot.click(Curve, offset=(42, 0))
        assert app.pane.cursor == 7


async def test_kept_tokens_are_counted_and_a_small_margin_stands_out() -> None:
    app = CurveApp()
    async with app.run_test(size=(46, 8)) as pilot:
        columns = batch(["x "] * 60)
        columns.candidate_count[:] = 5
        columns.candidate_count[[0, 10, 59]] = [-1, 49_152, 1]
        columns.margin[:] = 5.0
        columns.margin[[10, 58]] = [0.001, inf]
        transcript = Transcript(started())
        transcript.extend(columns)
        app.show(transcript, "kept")
        app.pane.cursor = 10
        await pilot.pause()
        assert app.line[9:39] == "▃▃▃▃▃█" + "▃" * 24
        assert app.line.endswith("49.2k")
        app.curve.quantity = "margin"
        await pilot.pause()
        assert app.line[9:39] == "▇" * 5 + "▁" + "▇" * 24
        assert app.line.endswith(" 0.00")
        old = transcript_of(["x "] * 3)
        app.show(old, "kept")
        app.pane.cursor = 1
        await pilot.pause()
        assert app.line == "kept     not recorded" + " " * 20 + " n/a"


async def test_unknown_numbers_leave_the_cell_empty() -> None:
    app = CurveApp()
    async with app.run_test(size=(46, 8)) as pilot:
        transcript = Transcript(started(prefix=2), None, (5, 6))
        transcript.extend(batch(["c "], 2, probabilities=STEPS[3:4]))
        app.show(transcript)
        app.pane.cursor = 0
        await pilot.pause()
        assert app.line[9:13] == "  ▅ "
        assert app.line.endswith(" n/a")


def test_the_setting_takes_what_the_key_shows() -> None:
    assert SCHEMA["ui.curve"].choices == (OFF, *QUANTITIES)
    assert Settings().ui.curve == OFF


@pytest.mark.parametrize(("size", "plain", "first"), [((80, 24), True, "surprise"), ((160, 45), False, OFF)])
async def test_the_key_shows_one_number_after_the_other(
    picture: Any, size: tuple[int, int], plain: bool, first: str
) -> None:
    app = picture(curve=first, ascii=plain)
    async with app.run_test(size=size) as pilot:
        await ran()(pilot)
        view, pane = app.workbench.view, app.workbench.pane
        height = pane.size.height + view.curve.display
        for name in [each for each in QUANTITIES if each != first]:
            await pilot.press("C")
            await settle(pilot)
            assert pane.size.height == height - 1
            assert view.messages.message.startswith(f"The curve shows {name}")
            row = lines(app)[view.curve.region.y]
            assert row[view.curve.region.x :].startswith(name)
            marks = set("_.-:=+*#" if plain else "▁▂▃▄▅▆▇█")
            assert len(set(row) & marks) > 1 or f"{name:<9}not recorded" in row
            assert row.isascii() or not plain
            if name == "entropy":
                await pilot.press("h")
                await until(pilot, lambda: reversed_text(view.curve))
        await pilot.press("C")
        await settle(pilot)
        assert not view.curve.display
        assert pane.size.height == height
