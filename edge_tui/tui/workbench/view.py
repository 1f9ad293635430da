"""Paints the workbench's panes from the session, the parameters and the conversation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.containers import Horizontal, Vertical
from textual.content import Content

from edge_tui.engine.events import Finished
from edge_tui.transcript.colour_buckets import BUCKETS, LEGENDS
from edge_tui.transcript.curve import QUANTITIES
from edge_tui.tui import run_messages
from edge_tui.tui.widgets.beam_board import BeamBoard
from edge_tui.tui.widgets.curve import Curve
from edge_tui.tui.widgets.gauge import Gauge, speed_of
from edge_tui.tui.widgets.header import HeaderBar
from edge_tui.tui.widgets.inspector import Inspector
from edge_tui.tui.widgets.key_footer import KeyFooter
from edge_tui.tui.widgets.lesson_card import Card, LessonCard
from edge_tui.tui.widgets.message_line import MessageLine
from edge_tui.tui.widgets.parameters import Parameters
from edge_tui.tui.widgets.prompt import Prompt
from edge_tui.tui.widgets.strategy_error_panel import StrategyErrorPanel
from edge_tui.tui.widgets.strategy_list import StrategyList
from edge_tui.tui.widgets.token_pane import TokenPane
from edge_tui.tui.widgets.turns import Turns
from edge_tui.tui.workbench.scene import scene_of
from edge_tui.util.sanitise import one_line

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from textual.app import ComposeResult

    from edge_tui.config.settings import Settings
    from edge_tui.decoders.base import Decoder
    from edge_tui.engine.events import Event
    from edge_tui.engine.explanation import Explanation
    from edge_tui.engine.remote.telemetry import RemoteTelemetry
    from edge_tui.machine.telemetry import Sample, Telemetry
    from edge_tui.transcript.transcript import Transcript
    from edge_tui.tui.conversation import Conversation
    from edge_tui.tui.lessons.facts import Scene
    from edge_tui.tui.run_params import RunParams
    from edge_tui.tui.session import Run, Session
    from edge_tui.tui.widgets.message_line import Kind

_EMPTY = "ctrl+j runs the prompt.\n1-9 choose a strategy, ? shows every key."
_COUNTED = 200_000
"""Most characters of a prompt whose tokens are counted."""


class WorkbenchView:
    """Holds the widgets of the workbench, and paints them; decides nothing about runs.

    Args:
        session: The engine's state and the runs.
        run_params: Values of the next request.
        telemetry: Samples of the machine that decodes; None shows none.
    """

    def __init__(
        self, session: Session, run_params: RunParams, telemetry: Telemetry | RemoteTelemetry | None
    ) -> None:
        self._session = session
        self._run_params = run_params
        self._telemetry = telemetry
        self.header = HeaderBar()
        self.prompt = Prompt(id="prompt")
        self.board = BeamBoard(id="beam-board")
        self.pane = TokenPane(_EMPTY, id="tokens")
        self.curve = Curve(self.pane)
        self.strategy_list = StrategyList((), id="strategies")
        self.parameters = Parameters(run_params, id="parameters")
        self.inspector = Inspector(session.texts_of, id="inspector")
        self.gauge = Gauge()
        self.messages = MessageLine()
        self.error_panel = StrategyErrorPanel()
        self.lesson_cards = LessonCard(False, id="lesson"), LessonCard(True, id="lesson-steps")
        """One below the panes, and one in the sidebar, which is shown where there is room for all steps."""
        self.turns = Turns(id="turns")
        self.output = Vertical(id="output")
        self.transcript: Transcript | None = None
        """The tokens on the screen."""
        self._aside: Transcript | None = None
        """Tokens that were cleared, and come back on request."""
        self._ticks = 0

    def compose(self) -> ComposeResult:
        """Lays the panes out."""
        yield self.header
        with Horizontal(id="body"):
            with Vertical(id="left"):
                yield self.prompt
                with self.output:
                    yield self.turns
                    yield self.board
                    yield self.pane
                    yield self.curve
                yield self.error_panel
            with Vertical(id="right"):
                with Vertical(id="sidebar"):
                    yield self.strategy_list
                    yield self.parameters
                    yield self.lesson_cards[1]
                yield self.inspector
        yield self.lesson_cards[0]
        yield self.gauge
        yield self.messages
        yield KeyFooter()

    def take_settings(self, settings: Settings, key: str) -> None:
        """Applies a setting of the panes that has changed."""
        if key == "ui.curve":
            self.curve.quantity = settings.ui.curve

    def write_titles(self) -> None:
        """Writes the titles of the panes, once they are mounted."""
        self.curve.quantity = self._run_params.settings.ui.curve
        self.inspector.border_title = "token"
        if self._telemetry is not None and self._telemetry.host:
            self.gauge.border_title = Content(f"gauge of {one_line(self._telemetry.host)}")
        self.show_values()

    def say(self, message: str, kind: Kind = "info") -> None:
        """Puts a sentence on the message line."""
        self.messages.say(message, kind)

    # Tokens.

    def paint(self, news: Sequence[Event], sample: Sample | None) -> None:
        """Paints what has changed since the last time.

        Args:
            news: The engine's events since then; `session` holds their outcome.
            sample: The newest of the machine.
        """
        run = self._session.current
        settings = self._run_params.settings
        stream = settings.stream
        if run is not None and (news or run.active) and (stream or not run.active):
            self._paint_tokens(run)
        self.header.state, self.header.kind = self._session.state()
        self._ticks += 1
        if self._ticks % 8 == 1 or any(isinstance(event, Finished) for event in news):
            self._paint_gauge(sample)

    def _paint_tokens(self, run: Run) -> None:
        if run.transcript is None or run.transcript is self._aside:
            return
        if run.transcript is not self.transcript:
            self.show(run.transcript)
            return
        self.pane.refresh_tail()
        self.board.refresh_tail()
        self.curve.refresh_tail()
        self.inspector.refresh_tail()

    def show(self, transcript: Transcript | None) -> None:
        """Shows the tokens of another run, or none."""
        cursor = self.pane.cursor
        self.transcript = transcript
        self.pane.show(transcript)
        self.board.show(transcript)
        self.curve.show(transcript)
        competing = transcript is not None and transcript.is_ranked
        self.output.set_class(competing, "-board")
        if transcript is not None and competing:
            # The settled line, a place for each row, and some for what has finished: fixed, so that the
            # tokens below never move.
            self.board.styles.height = 2 + transcript.started.rows + min(transcript.started.rows, 3)
        self.inspector.show(transcript, None)
        if cursor is not None and transcript is not None and transcript.started.prefix_tokens:
            # Continuing from a token: stay on it.
            at = min(cursor, transcript.started.prefix_tokens - 1)
            self.pane.call_after_refresh(self.pane.put_cursor, at)
        self.title_output()

    @property
    def inspected(self) -> tuple[Transcript, int] | None:
        """The token in the inspector; None where it shows none, or is closed."""
        index = self.inspector.index
        if self.transcript is None or index is None or not self.inspector.display:
            return None
        return (self.transcript, index) if index < len(self.transcript) else None

    def show_reason(self, why: Explanation | None, note: str, watched: Collection[int]) -> None:
        """Shows why the inspected token was taken, or (None) the sentence that says why that is not known."""
        self.inspector.show_reason(why, note, watched)

    def look_at(self, run: Run | None) -> None:
        """Shows another run than the newest one."""
        self._session.viewed = run if run is not self._session.run else None
        self._aside = None
        self.show(run.transcript if run is not None else None)
        self._paint_gauge(self.gauge.sample)

    def follow(self) -> None:
        """Goes to the tokens, which those of a new run will replace."""
        if self.parameters.has_class("-editing") and not self.parameters.field.has_focus:
            self.parameters.close()
        self._aside = None
        self.pane.focus()

    def focus_tokens(self) -> None:
        """Goes to the tokens at once, and again when a dialog has given the focus back to where it was."""
        self.pane.screen.set_focus(self.pane)
        self.pane.call_after_refresh(self.pane.focus)

    def look_at_token(self, index: int) -> None:
        """Puts the cursor on a token of the run on the screen, once the pane has its lines."""
        self.focus_tokens()
        self.pane.call_after_refresh(setattr, self.pane, "cursor", index)

    def clear(self) -> bool:
        """Clears the tokens; False where there are none."""
        if self.transcript is None:
            return False
        self._aside = self.transcript
        self.show(None)
        return True

    def restore(self) -> bool:
        """Brings cleared tokens back; False where there are none."""
        if self.transcript is not None or self._aside is None:
            return False
        self.show(self._aside)
        self._aside = None
        return True

    def toggle_final(self) -> None:
        """Colours by the probabilities that the strategy drew from, or by the model's own again."""
        self.pane.show_final = self.inspector.show_final = not self.pane.show_final
        self.title_output()

    def cycle_colours(self) -> None:
        """Colours by the next number of a token."""
        order = list(LEGENDS)
        self.pane.colour_by = order[(order.index(self.pane.colour_by) + 1) % len(order)]
        self.title_output()

    def toggle_board(self) -> None:
        """Shows the board of beams, or the text alone."""
        if self.transcript is not None and self.transcript.is_ranked:
            self.output.toggle_class("-board")
        else:
            self.say("Only beam search has several hypotheses to show.")

    def draw_ascii(self, plain: bool) -> None:
        """Draws bars with plain ASCII, or with blocks."""
        self.gauge.ascii_only = self.curve.ascii_only = self.parameters.table.ascii_only = plain

    def show_next_curve(self) -> None:
        """Shows the next number of each token as a curve, or none."""
        name = self.curve.show_next()
        if (quantity := QUANTITIES.get(name)) is None:
            self.say("The curve is off.")
        else:
            self.say(f"The curve shows {name}: {quantity.scale}.")

    def toggle_thoughts(self) -> None:
        """Folds what the model thought before its answer, or unfolds it."""
        self.pane.folding = not self.pane.folding
        hidden = self.transcript.thoughts.hidden_count if self.transcript is not None else 0
        if self.pane.folding:
            self.say(f"Thoughts are folded: {hidden:,} tokens; ←→ in the pane still reach them.")
        else:
            self.say("Thoughts are shown.")

    def answer(self) -> str:
        """Reads the answer on the screen, as the model wrote it; "" after a message where there is none."""
        if self.transcript is None or not len(self.transcript):
            self.say("There is no answer yet; ctrl+j runs the prompt.", "warning")
            return ""
        return self.transcript.text

    def title_output(self) -> None:
        """Names the strategy of the tokens, and their colours."""
        run = self._session.current
        name, steps = LEGENDS[self.pane.colour_by]
        if self.pane.colour_by == "probability":
            name = f"{'final' if self.pane.show_final else 'raw'} {name}"
        title = "tokens"
        if run is not None and run.started is not None and self.transcript is not None:
            title = f"tokens · {self.title_of(run.started.strategy)}"
        self.output.border_title = Content(title)
        ladder = [("━━", f"$token-{step}") for step in range(BUCKETS)]
        self.output.border_subtitle = Content.assemble(f"{name} {steps[0]} ", *ladder, f" {steps[-1]}")

    # The gauge.

    def _paint_gauge(self, sample: Sample | None) -> None:
        gauge, run = self.gauge, self._session.current
        device = next((loaded.device for loaded in self._session.loaded.values()), "")
        seen = sample is not None and sample.gpu is not None and sample.gpu.total is not None
        gauge.on_gpu = device.startswith("cuda") or (not device and seen)
        gauge.sample = sample
        if sample is None and self._telemetry is not None:
            gauge.absent = self._telemetry.refusal or "measuring …"
        if run is not None:
            gauge.speed = speed_of(run, self._session.engine)

    # Strategy, values and model.

    def show_strategies(self, decoders: Sequence[Decoder], refusals: Mapping[str, str]) -> None:
        """Lists other strategies, and those of them that the engine refuses."""
        self.strategy_list.decoders = list(decoders)
        self.strategy_list.refusals = dict(refusals)
        self.strategy_list.refresh(layout=True)

    def show_values(self) -> None:
        """Reads strategy and values again."""
        self.strategy_list.choose(self._run_params.decoder)
        self.parameters.reload()
        self.parameters.border_title = Content(one_line(self._run_params.decoder.title))
        self.title_output()
        self.show_model()

    def refuse(self, key: str, message: str) -> None:
        """Shows at a value why it is refused."""
        self.parameters.refuse(key, message)

    def show_model(self) -> None:
        """Names the model in the header."""
        decoder = self._run_params.decoder
        main = self._session.main(decoder.name)
        if main is None:
            self.header.model, self.header.facts = one_line(self._run_params.settings.models.name), ()
        else:
            name = run_messages.model_title(main, self._session.loaded, decoder.roles)
            self.header.model = one_line(name)
            self.header.facts = run_messages.model_facts(main)

    def title_of(self, strategy: str) -> str:
        """Returns the title of a strategy; its name where it is not listed."""
        titles = {decoder.name: decoder.title for decoder in self.strategy_list.decoders}
        return one_line(titles.get(strategy, strategy))

    @property
    def strategies(self) -> Sequence[str]:
        """Names in the order of their digits."""
        return [decoder.name for decoder in self.strategy_list.decoders]

    def scene(self, pressing: bool = False) -> Scene:
        """Describes the screen, as lessons ask about it; while they press keys, also what hears them."""
        return scene_of(self.pane, self.inspector, self.curve, self.parameters.table, pressing)

    def show_lesson(self, card: Card | None) -> None:
        """Shows a lesson, or none."""
        if card is None and any(each.has_focus for each in self.lesson_cards):
            self.focus_tokens()
        for each in self.lesson_cards:
            each.show(card)

    def focus_lesson(self) -> None:
        """Goes to the card of the lesson."""
        for each in self.lesson_cards:
            if each.focusable and each.region:
                each.focus()

    # Prompt and conversation.

    def count_prompt(self) -> None:
        """Writes the prompt's length below it."""
        engine, text = self._session.engine, self.prompt.text
        if len(text) > _COUNTED:
            self.prompt.border_subtitle = f"{len(text):,} characters"
            return
        control = self._run_params.settings.control_tokens
        count = engine.count(text, control) if engine is not None and text else None
        main = self._session.loaded.get("model")
        room = f" of {main.context:,}" if main is not None else ""
        self.prompt.border_subtitle = "" if count is None else f"{count:,}{room} tokens"

    def show_conversation(self, talk: Conversation | None, changing: int | None) -> None:
        """Shows the turns and the prompt's title. Changes the layout only with a turn.

        Args:
            talk: The conversation; None where prompts are completed on their own.
            changing: Number of the exchange whose prompt is being changed.
        """
        self.output.set_class(talk is not None and bool(talk.exchanges), "-talking")
        if talk is not None:
            self.turns.show(talk.exchanges, talk.number_of(self._session.current))
        if talk is None:
            title, hint = "prompt", "Type a prompt, ctrl+j runs it"
        elif changing is not None:
            title, hint = (
                f"message {changing + 1}, changed · esc leaves it",
                "Type another message in its place",
            )
        else:
            title, hint = f"message {len(talk.exchanges) + 1}", "Type a message, ctrl+j sends it"
        self.prompt.border_title, self.prompt.placeholder = title, hint
