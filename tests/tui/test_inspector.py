from __future__ import annotations

from dataclasses import replace
from math import exp, inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from textual.app import App, ComposeResult

from edge_tui.decoders.base import Column
from edge_tui.engine.events import Finished, ParamChanged, Resolved
from edge_tui.transcript.transcript import Transcript
from edge_tui.tui import theme
from edge_tui.tui.widgets.inspector import Inspector
from edge_tui.tui.widgets.line_panel import fit_end, fit_start
from edge_tui.tui.widgets.token_pane import TokenPane
from edge_tui.util.formatting import bar, compact_float, percent
from edge_tui.util.sanitise import sanitise, visible
from tests.tui.transcripts import BEAM, batch, beam_step, started, transcript_of

NAMES = {0: " zero", 1: "\x1b[31mone", 2: "[/]", 3: "", 4: "日本", 102: " blue"}


class InspectorApp(App[None]):
    CSS = "Inspector { width: 34; height: 20; }"

    def __init__(self, css: str = "") -> None:
        super().__init__()
        self.said: list[object] = []
        self.own_css = css

    def compose(self) -> ComposeResult:
        yield Inspector(lambda ids: [NAMES.get(i, f" {i}") for i in ids])

    @property
    def inspector(self) -> Inspector:
        return self.query_one(Inspector)

    def on_token_pane_take_alternative(self, message: TokenPane.TakeAlternative) -> None:
        self.said.append(("take", message.index, message.token_id))

    def on_inspector_move_token(self, message: Inspector.MoveToken) -> None:
        self.said.append(("move", message.step))


def drawn(inspector: Inspector) -> list[str]:
    return [inspector.render_line(y).text for y in range(inspector.size.height)]


def sky() -> Transcript:
    transcript = Transcript(started(columns=("expert", "amateur", "score")))
    transcript.extend(
        batch(["The", " sky", " blue"], probabilities=[0.9, 0.5, 0.25], extras=[(-1.0, -2.0, 1.0)] * 3)
    )
    transcript.change(ParamChanged(1, "temperature", 0.7, 2, 2))
    return transcript


async def test_a_token_is_told_in_full() -> None:
    app = InspectorApp()
    async with app.run_test(size=(80, 24)):
        assert "Move onto a token" in drawn(app.inspector)[0]
        app.inspector.show(sky(), 2)
        text = "\n".join(drawn(app.inspector))
        assert "“ blue”" in text
        assert "#2 id 102" in text
        assert "raw 25.0%  final 100.0%" in text
        assert "rank 13" in text
        assert "2.25 nats/3.25 bits" in text
        assert "expert -1 · amateur -2 · score 1" in text
        assert "temperature = 0.7 from here" in text
        assert "␛[31mone" in text
        assert "“[/]”" in text
        assert "●" in text
        assert all(cell_len(line) == 34 for line in drawn(app.inspector))


async def test_enter_takes_the_marked_alternative() -> None:
    app = InspectorApp()
    async with app.run_test(size=(80, 24)) as pilot:
        app.inspector.show(sky(), 2)
        app.inspector.focus()
        await pilot.press("enter")
        assert app.said == [("take", 2, 0)]
        await pilot.press("j", "down", "enter")
        assert app.said[-1] == ("take", 2, 2)
        await pilot.press("k", "k", "k", "k", "enter")
        assert app.said[-1] == ("take", 2, 102), "the controller says that it is the token itself"
        await pilot.press("l", "left")
        assert app.said[-2:] == [("move", 1), ("move", -1)]
        await pilot.click(Inspector, offset=(4, 8))
        taken = len(app.said)
        await pilot.click(Inspector, offset=(4, 8))
        assert app.said[taken:] == [("take", 2, NAMES_AT[app.inspector.marked])]


NAMES_AT = [102, 0, 1, 2, 3, 4]


async def test_final_shows_what_was_drawn_from() -> None:
    app = InspectorApp()
    async with app.run_test(size=(80, 24)):
        app.inspector.show(sky(), 2)
        assert any("the model's own" in line for line in drawn(app.inspector))
        app.inspector.show_final = True
        assert any("drawn from" in line for line in drawn(app.inspector))
        marked = [line for line in drawn(app.inspector) if "●" in line]
        assert marked[0].rstrip().endswith("100.0%")


async def test_both_layouts_hold_their_sizes() -> None:
    app = InspectorApp()
    async with app.run_test(size=(100, 30)) as pilot:
        app.inspector.show(sky(), 2)
        for width, height in ((30, 8), (30, 24), (64, 8), (100, 8), (44, 12)):
            app.inspector.styles.width, app.inspector.styles.height = width, height
            await pilot.pause()
            lines = drawn(app.inspector)
            assert [cell_len(line) for line in lines] == [width] * height
            assert any("“ zero”" in line for line in lines)
            assert any("● “ blue”" in line for line in lines)
            app.inspector.marked = 5
            assert any("▸ “日本”" in line for line in drawn(app.inspector))
            app.inspector.marked = 1


async def test_it_follows_the_beam_that_takes_the_place() -> None:
    app = InspectorApp()
    async with app.run_test(size=(80, 24)):
        transcript = Transcript(started(2, BEAM))
        beam_step(transcript, 0, [(0, "one", -1.0), (0, "won", -2.0)])
        beam_step(transcript, 1, [(0, " two", -1.1), (0, " too", -1.2)])
        app.inspector.show(transcript, 1)
        assert "“ two”" in drawn(app.inspector)[0]
        beam_step(transcript, 2, [(1, " three", -1.3), (0, " four", -2.0)])
        app.inspector.refresh_tail()
        assert "“ too”" in drawn(app.inspector)[0]
        transcript.finish(Finished(1, "done", 1, 0.1, 1.0, (100,)))
        app.inspector.refresh_tail()
        assert "Move onto a token" in drawn(app.inspector)[0]


async def test_a_marked_line_survives_more_tokens() -> None:
    app = InspectorApp()
    async with app.run_test(size=(80, 24)):
        transcript = sky()
        app.inspector.show(transcript, 1)
        app.inspector.marked = 3
        transcript.extend(batch([" more"], 3, extras=[(0.0, 0.0, 0.0)]))
        app.inspector.refresh_tail()
        assert app.inspector.marked == 3


async def test_unknown_numbers_are_not_invented() -> None:
    app = InspectorApp()
    async with app.run_test(size=(80, 24)):
        kept = Transcript(started(prefix=1), None, (7,), lambda ids: ["kept"] * len(ids))
        app.inspector.show(kept, 0)
        text = "\n".join(drawn(app.inspector))
        assert "raw n/a  final n/a" in text
        assert "rank n/a" in text


async def test_a_number_that_does_not_apply_is_not_available() -> None:
    app = InspectorApp()
    async with app.run_test(size=(80, 24)):
        transcript = Transcript(started(2, BEAM))
        beam_step(transcript, 0, [(0, "one", -1.0), (0, "won", -2.0)])
        app.inspector.show(transcript, 0)
        shown = "\n".join(drawn(app.inspector))
        assert "finished n/a" in shown
        assert "nan" not in shown


async def test_the_highlight_of_the_marked_line_has_no_hole() -> None:
    app = InspectorApp()
    async with app.run_test(size=(80, 24)):
        app.inspector.show(sky(), 2)
        lines = [app.inspector.render_line(y) for y in range(app.inspector.size.height)]
        (marked,) = [line for line in lines if line.text.startswith("▸ “")]
        assert all(part.style is not None and part.style.reverse for part in marked if part.text.strip())
        assert sum(part.cell_length for part in marked) == 34


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (" sky", "“ sky”"),
        ("\n\t", "“↵→”"),
        ("\n" + 24 * " ", "“↵(24 spaces)”"),
        ("\x1b", "“␛”"),
        ("\u202e", "“”"),
    ],
)
def test_visible(text: str, shown: str) -> None:
    assert visible(text) == shown


@pytest.mark.parametrize(
    ("fraction", "written"),
    [
        (1.0, "100.0%"),
        (0.8312, " 83.1%"),
        (0.0004, " 0.04%"),
        (0.00009996, " 0.01%"),
        (1e-9, "<.001%"),
        (0.0, "  0.0%"),
        (exp(-9.7), " .006%"),
    ],
)
def test_percent(fraction: float, written: str) -> None:
    assert percent(fraction) == written


@given(st.floats(0, 1))
def test_percent_is_six_cells(fraction: float) -> None:
    assert len(percent(fraction)) == 6


@given(st.text("a語👩\u200d💻é\u0301🇩🇪 ", max_size=40).map(sanitise), st.integers(1, 30))
def test_texts_fit(text: str, cells: int) -> None:
    assert cell_len(fit_start(text, cells)) == cells
    assert cell_len(fit_end(text, cells)) == cells


@given(st.floats(0, 1), st.integers(1, 30))
def test_bars_fit(fraction: float, cells: int) -> None:
    drawn_bar = bar(fraction, cells)
    assert cell_len(drawn_bar) == cells
    assert (not drawn_bar.strip()) == (fraction == 0)


class SnapshotApp(InspectorApp):
    CSS = "Inspector { width: 48; height: 14; }"

    def on_mount(self) -> None:
        self.register_theme(theme.FALLBACK)
        self.theme = theme.FALLBACK.name
        self.inspector.show(sky(), 2)
        self.inspector.focus()


def test_snapshot(snap_compare) -> None:  # type: ignore[no-untyped-def]
    assert snap_compare(SnapshotApp(), terminal_size=(60, 16))


def test_transcripts_of_one_token_work() -> None:
    assert transcript_of(["x"]).token(0).top[0].id == 100


CONTRAST = ((-1.39, -2.5, -0.1, -12.34, -5.0, -130.0), (-0.2, -3.0, -4.0, -9.0, -8.5, -7.0))
SCORES = (-1.19, 0.5, 3.9, -inf, -inf, -inf)


@pytest.mark.parametrize("width", [30, 34, 44, 60])
async def test_a_strategys_own_numbers_stand_beside_each_alternative(width: int) -> None:
    app = InspectorApp()
    async with app.run_test(size=(80, 24)) as pilot:
        app.inspector.styles.width = width
        await pilot.pause()
        transcript = Transcript(started(columns=("expert", "amateur", "score")))
        own = [(-1.39, -0.2, -1.19)]
        transcript.extend(
            batch(["sky"], probabilities=[0.25], extras=own, candidates=[*CONTRAST, SCORES]),
        )
        for final in (False, True):
            app.inspector.show_final = final
            app.inspector.show(transcript, 0)
            lines = drawn(app.inspector)
            assert all(cell_len(line) == width for line in lines)
            head = next(i for i, line in enumerate(lines) if line.rstrip().endswith("expert amateur score"))
            assert lines[head + 1].split()[-3:] == ["-1.39", "-0.20", "-1.19"]
            assert "“ zer" in lines[head + 2]
            assert lines[head + 2].split()[-3:] == ["-2.50", "-3.00", "0.50"]
            assert lines[head + 4].split()[-3:] == ["-12.3", "-9.00", "cut"]
            assert ("%" in lines[head + 2]) is (width >= 39)


@pytest.mark.parametrize(("formula", "cut"), [("li2022", "cut by alpha"), ("seed", "cut by rank")])
async def test_what_was_removed_says_by_what(formula: str, cut: str) -> None:
    app = InspectorApp()
    async with app.run_test(size=(80, 24)):
        begun = started(columns=("expert", "amateur", "score"))
        values = {"formula": Resolved(formula, "user")}
        transcript = Transcript(replace(begun, strategy="contrastive", values=values))
        own = [(-1.39, -0.2, -1.19)] * 2
        transcript.extend(batch(["sky", "blue"], extras=own, candidates=[*CONTRAST, SCORES]))
        transcript.change(ParamChanged(1, "formula", 1.0, 2, 1))
        app.inspector.show(transcript, 0)
        lines = drawn(app.inspector)
        assert [line.endswith(cut) for line in lines].count(True) == 3, lines
        assert any(line.split()[-4:] == ["-12.3", *cut.split()] for line in lines)
        assert all(cell_len(line) == 34 for line in lines)
        assert "inf" not in "".join(lines)
        app.inspector.show(transcript, 1)
        assert any(line.endswith("cut by alpha") for line in drawn(app.inspector)), "formula was changed here"


@pytest.mark.parametrize(("width", "height"), [(30, 20), (34, 20), (80, 12), (160, 40)])
async def test_a_number_stands_with_its_help_and_its_words(width: int, height: int) -> None:
    app = InspectorApp()
    async with app.run_test(size=(160, 50)) as pilot:
        columns = (
            Column("mu", "Bound of the next token's surprise in bits.", low=0.0),
            Column("ended", choices=("no", "yes")),
        )
        begun = replace(started(columns=("mu", "ended")), column_details=columns)
        transcript = Transcript(begun)
        transcript.extend(batch(["sky"], extras=[(9.25, 1.0)]))
        app.inspector.styles.width, app.inspector.styles.height = width, height
        await pilot.pause()
        app.inspector.show(transcript, 0)
        lines = drawn(app.inspector)
        assert all(cell_len(line) == width for line in lines)
        at = next(i for i, line in enumerate(lines) if "mu 9.25" in line)
        shown = " ".join(line[: 30 if width == 80 else None].strip() for line in lines[at : at + 4])
        assert "Bound of the next token's surprise in bits. (0 or more)" in " ".join(shown.split())
        assert any("ended yes" in line for line in lines)


async def test_a_rejected_proposal_is_shown_as_its_text() -> None:
    app = InspectorApp()
    async with app.run_test(size=(80, 24)):
        begun = replace(started(columns=("drafted", "rejected")), strategy="speculative")
        transcript = Transcript(begun)
        transcript.extend(batch(["sky", "sea"], extras=[(0.0, 102.0), (1.0, -1.0)]))
        app.inspector.show(transcript, 0)
        assert any("drafted 0 · rejected “ blue”" in line for line in drawn(app.inspector))
        app.inspector.show(transcript, 1)
        shown = "".join(drawn(app.inspector))
        assert "drafted 1" in shown
        assert "rejected" not in shown


async def test_a_token_that_is_no_alternative_keeps_its_numbers() -> None:
    app = InspectorApp()
    async with app.run_test(size=(80, 24)):
        transcript = Transcript(started(columns=("expert", "amateur", "score")))
        only = batch(["sky"], extras=[(-9.0, -0.2, -8.8)], candidates=[*CONTRAST, SCORES])
        only.top_ids[:, 0] = 7
        transcript.extend(only)
        app.inspector.show(transcript, 0)
        taken = next(line for line in drawn(app.inspector) if "●" in line)
        assert taken.split()[-3:] == ["-9.00", "-0.20", "-8.80"]


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (-0.124, "-0.12"),
        (9.999, "10.0"),
        (-99.99, "-100"),
        (1234.0, "1234"),
        (-123456.0, "-1e+05"),
        (-inf, "-inf"),
        (nan, "n/a"),
    ],
)
def test_figures_take_few_cells(value: float, written: str) -> None:
    assert compact_float(value) == written
