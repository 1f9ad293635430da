from __future__ import annotations

import random
from itertools import pairwise
from typing import TYPE_CHECKING
from unicodedata import category

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from textual.app import App, ComposeResult
from textual.geometry import Offset
from textual.selection import Selection

from edge_tui.engine.events import Finished
from edge_tui.transcript.transcript import Transcript
from edge_tui.tui.widgets import token_lines, token_strips
from edge_tui.tui.widgets.token_pane import TokenPane
from tests.tui.transcripts import BEAM, batch, beam_step, started, transcript_of
from tools.bench_screen import synthetic

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pytest
    from textual import events
    from textual.pilot import Pilot

    from edge_tui.transcript.wrapping import Piece

PROSE = ["The", " sky", " appears", " blue", " because", " of", " Ray", "leigh", " scattering", ".", "\n"]


class PaneApp(App[None]):
    CSS = "TokenPane { height: 1fr; }"

    def __init__(self) -> None:
        super().__init__()
        self.said: list[object] = []
        self.keys: list[str] = []

    def compose(self) -> ComposeResult:
        yield TokenPane("Type a prompt,\nthen press ctrl+j.")

    @property
    def pane(self) -> TokenPane:
        return self.query_one(TokenPane)

    def on_token_pane_cursor_moved(self, message: TokenPane.CursorMoved) -> None:
        self.said.append(("cursor", message.index))

    def on_token_pane_opened(self, message: TokenPane.Opened) -> None:
        self.said.append(("opened", message.index))

    def on_token_pane_take_alternative(self, message: TokenPane.TakeAlternative) -> None:
        self.said.append(("take", message.index, message.token_id))

    def on_token_pane_follow_changed(self, message: TokenPane.FollowChanged) -> None:
        self.said.append(("follow", message.following))

    def on_key(self, event: events.Key) -> None:
        self.keys.append(event.key)


def drawn(pane: TokenPane) -> list[str]:
    """What the pane shows, line by line."""
    return [pane.render_line(y).text.rstrip() for y in range(pane.size.height)]


async def laid_out(pane: TokenPane, pilot: Pilot[None]) -> None:
    """Waits until every token has its place: the pane does a slice of that at a time."""
    while pane.transcript is not None and pane.laid_out < len(pane.transcript):
        await pilot.pause(0.01)


def prose(lines: int) -> list[str]:
    return PROSE * lines


async def test_the_empty_pane_says_what_to_do() -> None:
    app = PaneApp()
    async with app.run_test(size=(40, 10)):
        shown = [line.strip() for line in drawn(app.pane) if line.strip()]
        assert shown == ["Type a prompt,", "then press ctrl+j."]
        app.pane.empty_text = "Reading [/] \x1b[31mthe prompt"
        assert any("[/] ␛[31mthe" in line for line in drawn(app.pane))


async def test_streamed_is_the_same_as_shown_at_once() -> None:
    rng = random.Random(5)
    texts = [rng.choice([*PROSE, "語", "👩\u200d💻", "\t", "e", "\u0301", "🇩", "🇪"]) for _ in range(600)]
    app = PaneApp()
    async with app.run_test(size=(50, 200)) as pilot:
        streamed = Transcript(started())
        app.pane.show(streamed)
        at = 0
        while at < len(texts):
            n = min(rng.randrange(1, 40), len(texts) - at)
            streamed.extend(batch(texts[at : at + n], at))
            at += n
            app.pane.refresh_tail()
            await pilot.pause()
        await laid_out(app.pane, pilot)
        await pilot.press("home")
        before = drawn(app.pane)
        app.pane.show(transcript_of(texts))
        await laid_out(app.pane, pilot)
        await pilot.press("home")
        assert drawn(app.pane) == before
        assert not before[-1], "all of it is in sight"


async def test_a_cursor_that_is_put_far_above_leaves_the_newest_token_in_sight() -> None:
    app = PaneApp()
    async with app.run_test(size=(40, 10)) as pilot:
        app.pane.show(transcript_of(prose(40)))
        await laid_out(app.pane, pilot)
        app.pane.put_cursor(2)
        assert app.pane.following
        await pilot.press("left")
        assert not app.pane.following
        assert app.pane.cursor == 1


async def test_only_changed_lines_are_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    app = PaneApp()
    async with app.run_test(size=(40, 20)) as pilot:
        transcript = transcript_of(prose(5))
        app.pane.show(transcript)
        await pilot.pause()
        lines: list[Sequence[Piece]] = []
        monkeypatch.setattr(
            token_lines,
            "draw_pieces",
            lambda pieces, *given: lines.append(pieces) or token_strips.draw_pieces(pieces, *given),
        )
        transcript.extend(batch([" more"], 55))
        app.pane.refresh_tail()
        await pilot.pause()
        (line,) = lines
        assert line[-1].text == " more"


async def test_follows_by_half_pages_and_only_at_the_bottom() -> None:
    app = PaneApp()
    async with app.run_test(size=(60, 10)) as pilot:
        transcript = Transcript(started())
        app.pane.show(transcript)
        tops = []
        for step in range(30):
            transcript.extend(batch(PROSE, step * len(PROSE)))
            app.pane.refresh_tail()
            await pilot.pause()
            tops.append(round(app.pane.scroll_y))
            assert any(line.strip() for line in drawn(app.pane)), "the newest token is in sight"
        jumps = [b - a for a, b in pairwise(tops) if b != a]
        assert jumps
        assert all(jump >= 4 for jump in jumps)

        app.pane.scroll_to(y=3, animate=False)
        await pilot.pause()
        assert not app.pane.following
        assert app.said[-1] == ("follow", False)
        for step in range(30, 60):
            transcript.extend(batch(PROSE, step * len(PROSE)))
            app.pane.refresh_tail()
            await pilot.pause()
        assert round(app.pane.scroll_y) == 3
        assert "↓ live" in drawn(app.pane)[-1]
        transcript.finish(Finished(1, "length", 1, 0.1, 1.0))
        assert "↓ end" in drawn(app.pane)[-1]

        await pilot.press("end")
        assert app.pane.following
        assert app.said[-1] == ("follow", True)
        assert "↓" not in drawn(app.pane)[-1]
        assert any("scattering." in line for line in drawn(app.pane))


async def test_scrolling_back_to_the_bottom_follows_again() -> None:
    app = PaneApp()
    async with app.run_test(size=(60, 10)) as pilot:
        app.pane.show(transcript_of(prose(50)))
        await pilot.pause()
        await pilot.press("pageup")
        await pilot.pause(0.6)
        assert not app.pane.following
        app.pane.scroll_end(animate=False, immediate=True)
        await pilot.pause()
        assert app.pane.following


async def test_the_cursor_walks_by_token_line_and_surprise() -> None:
    app = PaneApp()
    async with app.run_test(size=(60, 10)) as pilot:
        p = [0.95] * 33
        p[5], p[20] = 0.02, 0.04
        app.pane.show(transcript_of(prose(3), p))
        app.pane.focus()
        await pilot.press("h")
        assert app.pane.cursor == 32
        await pilot.press("h", "left", "l")
        assert app.pane.cursor == 31
        await pilot.press("k")
        assert app.pane.cursor == 20
        await pilot.press("up", "k", "k")
        assert app.pane.cursor == 9
        await pilot.press("j")
        assert app.pane.cursor == 20
        await pilot.press("home", "n")
        assert app.pane.cursor == 5
        await pilot.press("n")
        assert app.pane.cursor == 20
        await pilot.press("N")
        assert app.pane.cursor == 5
        assert app.said[-1] == ("cursor", 5)
        await pilot.press("enter")
        assert app.said[-1] == ("opened", 5)
        await pilot.press("a")
        assert app.said[-1] == ("take", 5, 0)
        await pilot.press("end")
        assert app.pane.cursor is None


async def test_the_cursor_is_kept_in_sight_and_seen() -> None:
    app = PaneApp()
    async with app.run_test(size=(60, 10)) as pilot:
        app.pane.show(transcript_of(["a", "\t", "b", "\n", *prose(50)]))
        app.pane.focus()
        await pilot.press("home")
        assert round(app.pane.scroll_y) == 0
        await pilot.press("l")
        assert drawn(app.pane)[0] == "a→   b"
        await pilot.press("l", "l")
        assert drawn(app.pane)[0] == "a    b↵"
        marked = [s.text for s in app.pane.render_line(0) if s.style and s.style.reverse]
        assert marked == ["↵"]


async def test_a_click_finds_the_token_and_a_second_opens_it() -> None:
    app = PaneApp()
    async with app.run_test(size=(60, 10)) as pilot:
        app.pane.show(transcript_of(["日本", "語", " ok", "\n", "next", " line"]))
        await pilot.pause()
        for x, y, token in ((0, 0, 0), (3, 0, 0), (4, 0, 1), (6, 0, 2), (30, 0, 3), (2, 1, 4), (5, 1, 5)):
            await pilot.click(TokenPane, offset=(x, y))
            assert app.pane.cursor == token
        await pilot.click(TokenPane, offset=(5, 1))
        assert app.said[-1] == ("opened", 5)
        before = app.pane.cursor
        await pilot.click(TokenPane, offset=(5, 7))
        assert app.pane.cursor == before


async def test_keys_that_mean_nothing_here_bubble() -> None:
    app = PaneApp()
    async with app.run_test(size=(60, 10)) as pilot:
        app.pane.show(transcript_of(prose(1)))
        app.pane.focus()
        await pilot.press("q", "Z", "question_mark", "1", "escape")
        assert app.keys == ["q", "Z", "question_mark", "1", "escape"]


async def test_tails_that_may_change_are_italic_until_they_settle() -> None:
    app = PaneApp()
    async with app.run_test(size=(60, 10)) as pilot:
        transcript = Transcript(started(2, BEAM))
        app.pane.show(transcript)
        beam_step(transcript, 0, [(0, "one", -1.0), (0, "won", -2.0)])
        beam_step(transcript, 1, [(0, " two", -1.1), (0, " too", -1.2)])
        app.pane.refresh_tail()
        await pilot.pause()

        def italic() -> str:
            return "".join(s.text for s in app.pane.render_line(0) if s.style and s.style.italic)

        assert drawn(app.pane)[0] == "one two"
        assert italic() == " two"
        beam_step(transcript, 2, [(1, " three", -1.3), (0, " four", -2.0)])
        app.pane.refresh_tail()
        assert drawn(app.pane)[0] == "one too three"
        app.pane.cursor = 2
        transcript.finish(Finished(1, "done", 2, 0.1, 1.0, (100, 103)))
        app.pane.refresh_tail()
        assert drawn(app.pane)[0] == "one too"
        assert italic() == ""
        assert app.pane.cursor == 1


async def test_colour_follows_the_number_that_was_asked_for() -> None:
    app = PaneApp()
    async with app.run_test(size=(60, 10)):
        app.pane.show(transcript_of(["a", "b"], [0.001, 0.6]))
        styles = app.pane.token_styles.buckets

        def style_only() -> list[int]:
            return [
                next(
                    i
                    for i, style in enumerate(styles)
                    if s.style is not None and s.style.color == style.color
                )
                for s in app.pane.render_line(0)
                if s.text.strip()
            ]

        assert style_only()[0] in (0, 1)
        assert len(style_only()) == 2
        app.pane.show_final = True
        assert len(style_only()) == 1
        app.pane.show_final = False
        app.pane.colour_by = "rank"
        assert len(style_only()) == 2
        app.pane.colour_by = "entropy"
        assert len(style_only()) == 2


async def test_the_ladder_can_be_read_without_hue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    app = PaneApp()
    async with app.run_test(size=(60, 10)):
        looks = [(s.bold, s.underline, s.reverse) for s in app.pane.token_styles.buckets[:8]]
        assert len(set(looks)) == 4
        assert all(not any(look) for look in looks[6:])
        assert all(looks[i] == looks[i + 1] for i in (0, 2, 4))


async def test_markup_is_text() -> None:
    app = PaneApp()
    async with app.run_test(size=(60, 10)):
        app.pane.show(transcript_of(["[/", "]", "[@click=app.quit]", "x", "[/]", "[link=file:///]"]))
        assert drawn(app.pane)[0] == "[/][@click=app.quit]x[/][link=file:///]"


async def test_hostile_text_reaches_no_strip() -> None:
    app = PaneApp()
    token = st.text(st.characters(exclude_categories=()), max_size=6) | st.sampled_from(
        [
            "\x1b]52;c;aGk=\x07",
            "\x9b31m",
            "\x1b[6n",
            "\u202e",
            "\x1b]0;t\x1b\\",
            "\u200d",
            "\x00",
            "\u0301",
            "🇩",
        ]
    )
    async with app.run_test(size=(30, 8)):
        pane = app.pane

        @settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
        @given(st.lists(token, min_size=1, max_size=12), st.data())
        def check(tokens: list[str], data: st.DataObject) -> None:
            pane.show(transcript_of(tokens))
            pane.cursor = data.draw(st.integers(0, len(tokens) - 1), "cursor")
            for y in range(8):
                strip = pane.render_line(y)
                for segment in strip:
                    assert segment.control is None
                    assert not [c for c in segment.text if category(c) in ("Cc", "Cs", "Zl", "Zp")]
                assert strip.cell_length == pane.scrollable_content_region.width == cell_len(strip.text)

        check()


async def test_a_selection_has_the_breaks_of_the_text_not_of_the_screen() -> None:
    app = PaneApp()
    async with app.run_test(size=(22, 10)):
        app.pane.show(transcript_of([*PROSE, "Next"]))
        assert sum(map(bool, drawn(app.pane))) > 2
        everything = app.pane.get_selection(Selection(None, None))
        assert everything is not None
        assert everything[0] == "".join(PROSE) + "Next"
        part = app.pane.get_selection(Selection.from_offsets(Offset(4, 0), Offset(4, 1)))
        assert part is not None
        assert "".join(PROSE).startswith(part[0], 4)


async def test_resizing_while_streaming_keeps_the_place() -> None:
    app = PaneApp()
    async with app.run_test(size=(60, 10)) as pilot:
        transcript = transcript_of(prose(40))
        app.pane.show(transcript)
        await pilot.pause()
        app.pane.cursor = 100
        await pilot.pause()
        for size in ((30, 10), (80, 24), (12, 3), (200, 50), (1, 1), (40, 12)):
            await pilot.resize_terminal(*size)
            transcript.extend(batch(PROSE, len(transcript)))
            app.pane.refresh_tail()
            await pilot.pause()
        assert app.pane.laid_out == len(transcript)


async def test_a_cursor_in_sight_stays_in_sight_at_another_size() -> None:
    app = PaneApp()
    async with app.run_test(size=(60, 20)) as pilot:
        pane = app.pane
        pane.show(transcript_of(PROSE * 60))
        await laid_out(pane, pilot)
        pane.cursor = 330
        await pilot.pause()
        for size in ((24, 8), (100, 30), (30, 30), (30, 6)):
            await pilot.resize_terminal(*size)
            await laid_out(pane, pilot)
            await pilot.pause()  # the pane scrolls after its refresh
            assert pane.shows_cursor, size
        pane.scroll_to(y=0, animate=False, immediate=True)
        await pilot.resize_terminal(80, 12)
        await laid_out(pane, pilot)
        await pilot.pause()
        assert not pane.shows_cursor  # who has scrolled away looks at something else
        assert round(pane.scroll_y) == 0


async def test_a_long_transcript_is_laid_out_a_part_at_a_time() -> None:
    """`python -m tools.bench_screen` measures the frames of a hundred thousand tokens."""
    app = PaneApp()
    async with app.run_test(size=(80, 24)) as pilot:
        transcript = Transcript(started())
        transcript.extend(synthetic(1, 0, 20_000))
        app.pane.show(transcript)
        assert app.pane.laid_out <= 8_000
        while (before := app.pane.laid_out) < 20_000:
            app.pane.refresh_tail()
            assert app.pane.laid_out - before <= 8_000
            await pilot.pause(0)  # the pane may go on by itself here
        await pilot.resize_terminal(60, 20)
        transcript.extend(synthetic(1, 20_000, 70))
        while app.pane.laid_out < 20_070:
            app.pane.refresh_tail()
            await pilot.pause(0.02)
        assert app.pane.shown_text == transcript.text


class SnapshotApp(PaneApp):
    def on_mount(self) -> None:
        ladder = [0.005, 0.02, 0.1, 0.2, 0.4, 0.6, 0.8, 0.95]
        texts = ["The", " sky", " appears", " blue", " because", " of", " Rayleigh", " scattering"] * 6
        texts[20] = "\n\n\tdef f(x):\n\t\treturn [x]\n"
        texts[30] = " \x1b]0;evil\x07 日本語"
        self.pane.show(transcript_of(texts, [ladder[(i * 5) % 8] for i in range(len(texts))]))
        self.pane.cursor = 12


def test_snapshot(snap_compare) -> None:  # type: ignore[no-untyped-def]
    assert snap_compare(SnapshotApp(), terminal_size=(80, 24))


def test_snapshot_without_hue(snap_compare, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("NO_COLOR", "1")
    assert snap_compare(SnapshotApp(), terminal_size=(60, 16))
