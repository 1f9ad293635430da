from __future__ import annotations

from rich.cells import cell_len
from textual.app import App, ComposeResult
from textual.style import Style

from edge_tui.engine.events import Finished
from edge_tui.transcript.transcript import Transcript
from edge_tui.tui import theme
from edge_tui.tui.widgets.beam_board import BeamBoard
from tests.tui.transcripts import BEAM, beam_step, started


class BoardApp(App[None]):
    CSS = "BeamBoard { width: 1fr; height: 8; }"

    def compose(self) -> ComposeResult:
        yield BeamBoard()

    @property
    def board(self) -> BeamBoard:
        return self.query_one(BeamBoard)


def race() -> Transcript:
    transcript = Transcript(started(3, BEAM))
    beam_step(transcript, 0, [(0, "The", -0.5), (0, "A", -1.9), (0, "An", -2.5)])
    beam_step(transcript, 1, [(0, " sky", -1.0), (0, " sea", -1.2), (0, " sun", -1.4)])
    return transcript


def drawn(board: BeamBoard) -> list[str]:
    return [board.render_line(y).text for y in range(board.size.height)]


def painted(board: BeamBoard, y: int, part: str) -> str:
    """Text on a line that is in a style."""
    style = (board.visual_style + Style.parse(part)).rich_style
    return "".join(segment.text for segment in board.render_line(y) if segment.style == style)


async def test_places_are_sorted_and_the_shared_beginning_is_said_once() -> None:
    app = BoardApp()
    async with app.run_test(size=(80, 24)):
        app.board.show(race())
        lines = drawn(app.board)
        assert lines[0].startswith("settled 1 The")
        assert [line.split()[0] for line in lines[1:4]] == ["1", "2", "3"]
        assert [line.split()[-1] for line in lines[1:4]] == ["sky", "sea", "sun"]
        assert "-0.500" in lines[1]
        assert "Σ -1.00" in lines[1]
        assert "2 tok" in lines[1]
        assert all(cell_len(line) == 80 for line in lines)


async def test_what_differs_from_the_best_stands_out() -> None:
    app = BoardApp()
    async with app.run_test(size=(80, 24)):
        transcript = race()
        beam_step(transcript, 2, [(0, " is", -1.1), (0, " was", -1.2), (1, " is", -1.3)])
        app.board.show(transcript)
        assert painted(app.board, 2, "$text-muted italic") == " sky "
        assert painted(app.board, 2, "$foreground italic").strip() == "was"
        assert painted(app.board, 1, "$text-muted italic") == ""
        assert painted(app.board, 3, "$foreground italic").split() == ["sea", "is"]


async def test_a_row_that_moved_says_whom_it_continues() -> None:
    app = BoardApp()
    async with app.run_test(size=(80, 24)):
        transcript = race()
        beam_step(transcript, 2, [(1, " is", -1.3), (1, " was", -1.4), (2, " set", -1.5)])
        app.board.show(transcript)
        assert [painted(app.board, y, "$warning bold").strip() for y in (1, 2, 3)] == ["↰2", "", ""]


async def test_finished_ones_stay_below_with_their_scores() -> None:
    app = BoardApp()
    async with app.run_test(size=(80, 24)):
        transcript = race()
        beam_step(transcript, 2, [(0, " is", -1.1), (0, " was", -1.2), (1, " is", -1.3)], ended=(-0.42, 1))
        app.board.show(transcript)
        lines = drawn(app.board)
        assert "✓" in lines[4]
        assert "-0.420" in lines[4]
        assert lines[4].rstrip().endswith("sea")
        transcript.finish(Finished(1, "done", 3, 0.1, 1.0, (100, 104, 99), "The sea", -0.42))
        app.board.refresh_tail()
        assert drawn(app.board)[1:5] == lines[1:5]


async def test_narrow_and_low_boards_keep_what_matters() -> None:
    app = BoardApp()
    async with app.run_test(size=(40, 24)) as pilot:
        transcript = race()
        long = " and so the story goes on and on 日本語 for ever"
        beam_step(
            transcript, 2, [(0, long, -1.1), (0, " was\x1b[2J\n", -1.2), (1, " is", -1.3)], ended=(-0.4, 1)
        )
        app.board.show(transcript)
        lines = drawn(app.board)
        assert all(cell_len(line) == 40 for line in lines)
        assert "Σ" not in lines[1]
        assert lines[1].rstrip().endswith("for ever")
        assert "…" in lines[1]
        assert lines[2].rstrip().endswith("was␛[2J↵")
        app.board.styles.height = 4
        await pilot.pause()
        lines = drawn(app.board)
        assert [line.split()[0] for line in lines] == ["settled", "1", "2", "1"]
        assert "✓" in lines[3]


async def test_nothing_is_painted_again_without_news() -> None:
    app = BoardApp()
    async with app.run_test(size=(80, 24)) as pilot:
        transcript = race()
        app.board.show(transcript)
        await pilot.pause()
        asked: list[int] = []
        original = app.board.render_line

        def spy(y: int):  # type: ignore[no-untyped-def]
            asked.append(y)
            return original(y)

        app.board.render_line = spy  # type: ignore[method-assign]
        app.board.refresh_tail()
        await pilot.pause()
        assert asked == []
        beam_step(transcript, 2, [(0, " is", -1.1), (1, " is", -1.25), (2, " is", -1.45)])
        app.board.refresh_tail()
        await pilot.pause()
        assert set(asked) == {1, 2, 3}
        app.board.show(None)
        assert all(not line.strip() for line in drawn(app.board))


class SnapshotApp(BoardApp):
    CSS = "BeamBoard { height: 9; }"

    def on_mount(self) -> None:
        self.register_theme(theme.FALLBACK)
        self.theme = theme.FALLBACK.name
        transcript = race()
        beam_step(transcript, 2, [(0, " is", -1.1), (0, " was", -1.2), (1, " is", -1.3)], ended=(-0.42, 1))
        beam_step(
            transcript, 3, [(1, " blue", -1.4), (0, " blue", -1.5), (0, " grey", -1.9)], ended=(-0.6, 0)
        )
        self.board.show(transcript)


def test_snapshot(snap_compare) -> None:  # type: ignore[no-untyped-def]
    assert snap_compare(SnapshotApp(), terminal_size=(80, 12))
