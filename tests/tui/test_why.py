"""The inspector says why a token was taken, by the engine's own numbers."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from rich.cells import cell_len

from edge_tui.engine.events import Explained, Resolved
from edge_tui.engine.port import Question
from edge_tui.engine.token_fields import KEPT
from edge_tui.errors import RequestError
from edge_tui.transcript.transcript import Transcript
from edge_tui.tui.screens.explain import ExplainScreen
from tests.transcript.explanations import of_top_p
from tests.tui.engines import WORDS, PictureEngine
from tests.tui.rendered import is_open, notices, settle, strips, until
from tests.tui.test_inspector import InspectorApp, drawn, sky
from tests.tui.transcripts import batch, started

if TYPE_CHECKING:
    from edge_tui.engine.explanation import Explanation


class ExplainingEngine(PictureEngine):
    """Explains every token by the same draw."""

    def explain(self, question: Question) -> int:
        self.questions.append(question)
        number = -len(self.questions)
        self.events.append(Explained(number, of_top_p()))
        return number


def ladder(workbench: Any) -> str:
    return "\n".join(drawn(workbench.inspector))


async def opened(pilot: Any) -> Any:
    """Runs a prompt to its end, and goes to the inspector of its first token."""
    bench = pilot.app.workbench
    bench.prompt.insert("Why is the sky blue?")
    await pilot.press("ctrl+j")
    await until(pilot, lambda: bench.pane.laid_out and not pilot.app.session.busy)
    await pilot.press("home", "enter")
    await until(pilot, lambda: bench.focused is bench.inspector)
    return bench


async def test_the_ladder_takes_the_place_of_the_record(picture: Any) -> None:
    engine = ExplainingEngine()
    app = picture(engine)
    async with app.run_test(size=(80, 24)) as pilot:
        bench = await opened(pilot)
        await until(pilot, lambda: "╌ top-p 0.9 stops" in ladder(bench))
        assert str(bench.inspector.border_title) == f"why “{WORDS[0]}” · #0"
        assert "“hire” lacked 1.01" in ladder(bench), "the first other token is marked"
        await pilot.press("down", "o")
        assert "“burg” lacked" in ladder(bench), "the mark stays on its token"
        assert ladder(bench).index("“wood”") < ladder(bench).index("“burg”"), "by probability now"
        await pilot.press("right")
        await until(pilot, lambda: len(engine.questions) == 2)
        assert engine.questions[-1].request.prefix == (0,)
        await pilot.press("left")
        await settle(pilot)
        assert len(engine.questions) == 2, "the first answer is kept"


async def test_enter_takes_the_marked_token_and_unfolds_the_others(picture: Any) -> None:
    engine = ExplainingEngine()
    app = picture(engine)
    async with app.run_test(size=(80, 24)) as pilot:
        bench = await opened(pilot)
        await until(pilot, lambda: "⋮" in ladder(bench))
        while not bench.inspector.ladder.marks[bench.inspector.marked].unfolds:
            await pilot.press("down")
        before = {line.id for line in bench.inspector.ladder.marks if not line.unfolds}
        await pilot.press("enter")
        assert before < {line.id for line in bench.inspector.ladder.marks}
        assert len(engine.requests) == 1
        bench.inspector.marked = bench.inspector.ladder.number_of(1)
        await pilot.press("enter")
        await until(pilot, lambda: len(engine.requests) == 2)
        assert engine.requests[-1].prefix == (1,)


async def test_a_run_in_progress_shows_its_record_and_says_why(picture: Any) -> None:
    engine = ExplainingEngine()
    engine.held = True
    app = picture(engine)
    async with app.run_test(size=(80, 24)) as pilot:
        bench = app.workbench
        bench.prompt.insert("Why?")
        await pilot.press("ctrl+j")
        await until(pilot, lambda: bench.pane.laid_out)
        await pilot.press("home", "enter")
        await until(pilot, lambda: "The full reason comes" in ladder(bench))
        assert "run has ended." in ladder(bench)
        assert "the model's own" in ladder(bench)
        assert not engine.questions
        engine.events.append(engine.finish(1))
        await until(pilot, lambda: "╌ top-p 0.9 stops" in ladder(bench))


async def test_what_cannot_be_explained_says_so_and_nothing_else_does(picture: Any) -> None:
    app = picture(PictureEngine())
    async with app.run_test(size=(80, 24)) as pilot:
        bench = await opened(pilot)
        await until(pilot, lambda: "Nothing is computed here." in ladder(bench))
        assert not notices(app)
        assert "Nothing is computed" not in bench.view.messages.message


@pytest.mark.parametrize(
    ("size", "least"),
    [
        ((80, 24), 76),
        pytest.param((120, 40), 66, marks=pytest.mark.proof),
        pytest.param((160, 45), 88, marks=pytest.mark.proof),
    ],
)
async def test_the_ladder_widens_to_a_column_for_each_stage(
    picture: Any, size: tuple[int, int], least: int
) -> None:
    app = picture(ExplainingEngine())
    async with app.run_test(size=size) as pilot:
        bench = await opened(pilot)
        await pilot.press("W")
        await until(pilot, lambda: bench.inspector.size.width >= least)
        await until(pilot, lambda: "top-p 0.9    log p" in ladder(bench))
        assert bench.pane.size.height >= 3
        assert "rank" in str(bench.inspector.border_title)
        await pilot.press("W")
        await until(pilot, lambda: "log p" not in ladder(bench))


@pytest.mark.parametrize(("key", "text"), [("p", ""), ("space", " ")])
async def test_going_to_a_prompt_that_the_wide_ladder_hides_shows_it(
    picture: Any, key: str, text: str
) -> None:
    app = picture(ExplainingEngine())
    async with app.run_test(size=(80, 24)) as pilot:
        bench = await opened(pilot)
        bench.pane.focus()
        await pilot.press("W")
        await until(pilot, lambda: not bench.prompt.display)
        await pilot.press(key)
        await until(pilot, lambda: bench.prompt.display and bench.focused is bench.prompt)
        await pilot.press("W")
        assert bench.prompt.text == f"Why is the sky blue?{text}W"


async def test_a_watched_token_is_asked_for_until_it_is_not(picture: Any) -> None:
    engine = ExplainingEngine()
    app = picture(engine)
    async with app.run_test(size=(80, 24)) as pilot:
        bench = await opened(pilot)
        await until(pilot, lambda: bench.inspector.ladder.marks)
        await pilot.press("plus")
        await pilot.press(*"sky", "enter")
        at = WORDS.index("sky ")
        await until(pilot, lambda: engine.questions[-1].ids == (at,))
        assert "“sky ” is listed at every token." in bench.view.messages.message
        await pilot.press("right")
        await until(pilot, lambda: len(engine.questions[-1].request.prefix) == 1)
        assert engine.questions[-1].ids == (at,)
        bench.why.unwatch(at)
        await until(pilot, lambda: engine.questions[-1].ids == ())
        await pilot.press("plus")
        await pilot.press(*"absent", "enter")
        await until(pilot, lambda: bench.view.messages.message == "That is no token.")


async def test_a_text_that_is_read_elsewhere_is_listed_when_it_is_known(picture: Any) -> None:
    engine = ExplainingEngine()
    answers: list[tuple[int, ...] | RequestError | None] = [None, None, (5,), RequestError("It reads none.")]

    def ids(text: str) -> tuple[int, ...] | None:
        answer = answers.pop(0)
        if isinstance(answer, RequestError):
            raise answer
        return answer

    engine.ids = ids  # type: ignore[method-assign]
    async with picture(engine).run_test(size=(80, 24)) as pilot:
        bench = await opened(pilot)
        bench.why.watch("sky")
        assert bench.view.messages.message == "“sky” is listed as soon as the model's tokenizer has read it."
        assert not bench.why.watched
        await until(pilot, lambda: engine.questions[-1].ids == (5,))
        assert list(bench.why.watched) == [5]
        bench.why.watch("sky")
        assert bench.view.messages.message == "It reads none."
        await pilot.pause()
        assert not answers, "and no text is asked for again"


async def test_the_marked_line_has_one_style_from_edge_to_edge() -> None:
    app = InspectorApp()
    async with app.run_test(size=(80, 24)):
        app.inspector.show(sky(), 2)
        app.inspector.focus()
        app.inspector.show_reason(of_top_p(), "")
        lines = [app.inspector.render_line(y) for y in range(app.inspector.size.height)]
        (marked,) = [line for line in lines if line.text.startswith("  “hire”")]
        assert all(part.style is not None and part.style.reverse for part in marked)
        assert all(cell_len(line.text) == app.inspector.size.width for line in lines)


@pytest.mark.parametrize("height", [8, 12, 16, 40])
async def test_the_marked_line_stays_in_sight(height: int) -> None:
    app = InspectorApp()
    async with app.run_test(size=(80, 50)) as pilot:
        app.inspector.styles.height = height
        await pilot.pause()
        app.inspector.show(sky(), 2)
        app.inspector.focus()
        app.inspector.show_reason(of_top_p(), "")
        for _ in range(2 * len(app.inspector.ladder.marks)):
            lines = [app.inspector.render_line(y) for y in range(height)]
            assert any(part.style is not None and part.style.reverse for line in lines for part in line)
            await pilot.press("down")
        assert "…" not in "".join(drawn(app.inspector))


async def test_colours_go_round_the_numbers_of_a_token(picture: Any) -> None:
    app = picture()
    async with app.run_test(size=(80, 24)) as pilot:
        bench = await opened(pilot)
        legends = []
        for _ in range(5):
            legends.append(str(bench.view.output.border_subtitle).split()[0])
            await pilot.press("F")
        assert legends == ["raw", "rank", "nats", "margin", "raw"]


async def test_a_record_tells_margin_kept_and_what_cut_a_token() -> None:
    app = InspectorApp()
    async with app.run_test(size=(80, 24)):
        tokens = batch(["sky"], probabilities=[0.5])
        removing = np.full(tokens.top_ids.shape, KEPT, np.int32)
        removing[0, 2] = 2
        whole = replace(
            tokens,
            margin=np.array([0.25], np.float32),
            candidate_count=np.array([5], np.int32),
            removing_stage=removing,
        )
        transcript = Transcript(replace(started(), strategy="top_p", values={"top_p": Resolved(0.9, "user")}))
        transcript.extend(whole)
        app.inspector.show(transcript, 0)
        text = "\n".join(drawn(app.inspector))
        assert "margin 0.25  kept 5" in text
        (cut,) = [line for line in drawn(app.inspector) if "cut by" in line]
        assert "cut by top-p" in cut


async def test_the_parameters_have_lines_beside_the_ladder(picture: Any) -> None:
    app = picture(ExplainingEngine())
    async with app.run_test(size=(100, 34)) as pilot:
        bench = await opened(pilot)
        assert bench.parameters.table.size.height >= 8
        assert bench.inspector.size.height >= 12
        await pilot.press("i")
        await until(pilot, lambda: bench.view.strategy_list.display)


async def test_a_ladder_is_drawn_in_ascii_where_a_terminal_has_no_more(picture: Any) -> None:
    app = picture(ExplainingEngine(), ascii=True)
    async with app.run_test(size=(80, 24)) as pilot:
        bench = await opened(pilot)
        await until(pilot, lambda: "top-p 0.9 stops" in ladder(bench))
        painted = [strip.text for strip in strips(app)]
        assert any("- top-p 0.9 stops, S 90.6 % -" in line for line in painted)
        assert any('* "b"' in line for line in painted)
        assert not set("·“”╌⋮Σ●") & set("".join(painted))


# On the real engine.


async def run_on_demo(pilot: Any, strategy: str) -> Any:
    app = pilot.app
    await until(pilot, lambda: app.session.loaded.get("model"))
    bench = app.workbench
    bench.prompt.insert("The old dog")
    await pilot.press("ctrl+j")
    await until(pilot, lambda: app.session.run is not None and app.session.run.finished is not None)
    await until(pilot, lambda: bench.pane.laid_out and bench.focused is bench.pane)
    assert app.session.run.started.strategy == strategy
    return bench


async def explained(pilot: Any, bench: Any, index: int) -> Explanation:
    bench.pane.cursor = index
    await until(pilot, lambda: bench.inspector.index == index and bench.inspector.ladder.why is not None)
    found: Explanation = bench.inspector.ladder.why
    return found


async def test_ladder_and_record_agree_and_a_turned_stage_changes_it(demo: Any) -> None:
    app = demo(strategy="top_p", max_length=4, seed=7)
    async with app.run_test(size=(80, 24)) as pilot:
        bench = await run_on_demo(pilot, "top_p")
        await pilot.press("home", "enter")
        for index in range(4):
            why = await explained(pilot, bench, index)
            token = bench.pane.transcript.token(index)
            assert why.token == why.winner == token.id
            assert why.candidates[0].raw_logp == pytest.approx(token.raw_logp, abs=1e-4)
            assert why.candidates[0].logps[-1] == pytest.approx(token.final_logp, abs=1e-4)
            assert f"margin {why.margin:.2f}" in ladder(bench)
        bench.parameters.table.choose("top_p")
        await pilot.press("space")
        await until(pilot, lambda: is_open(app, ExplainScreen) and "It stays." in said(app.screen))
        await pilot.press("shift+left", *["left"] * 6)
        await until(pilot, lambda: "top p 0.74" in said(app.screen) and "asked" not in said(app.screen))
        now, _ = bench.why.turned(bench.pane.transcript, 3, why)
        assert now is not None
        assert now.candidate_count < why.candidate_count
        assert ("It stays." in said(app.screen)) is (now.winner == why.token)


def said(screen: Any) -> str:
    return str(screen.picture.render())
