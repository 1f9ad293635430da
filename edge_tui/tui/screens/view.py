"""Lays out the main screen: prompt, tokens, strategies, parameters, gauge."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.screen import Screen
from textual.widgets import Footer, Static, TextArea

from edge_tui import decoders as registry
from edge_tui.engine import events as engine_events
from edge_tui.transcript.colour_buckets import BUCKETS
from edge_tui.tui import run_messages
from edge_tui.tui.compositor import RowCompositor
from edge_tui.tui.services import services
from edge_tui.tui.widgets.beam_board import BeamBoard
from edge_tui.tui.widgets.gauge import Gauge, speed_of
from edge_tui.tui.widgets.header import HeaderBar
from edge_tui.tui.widgets.inspector import Inspector
from edge_tui.tui.widgets.message_line import MessageLine
from edge_tui.tui.widgets.parameters import Parameters
from edge_tui.tui.widgets.prompt import Prompt
from edge_tui.tui.widgets.strategy_error_panel import StrategyErrorPanel
from edge_tui.tui.widgets.strategy_list import StrategyList
from edge_tui.tui.widgets.token_pane import TokenPane
from edge_tui.tui.widgets.tour import TourCard
from edge_tui.tui.widgets.turns import Turns
from edge_tui.util.sanitise import one_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from textual import events
    from textual.app import ComposeResult
    from textual.geometry import Size
    from textual.theme import Theme
    from textual.widget import Widget

    from edge_tui.decoders.base import Decoder
    from edge_tui.engine.events import Event, Failed, Finished, Loaded, Started
    from edge_tui.machine.telemetry import Sample
    from edge_tui.transcript.transcript import Transcript
    from edge_tui.tui.run_params import RunParams
    from edge_tui.tui.session import Session

MINIMUM = (60, 16)
"""Columns and lines below which the screen only asks to be enlarged."""
WIDE, TALL = 150, 34
"""Least columns for an inspector beside the sidebar; least lines for one strategy a line."""
_EMPTY = "ctrl+j runs the prompt.\n1-9 choose a strategy, ? shows every key."


class View(Screen[None]):
    """Lays out and paints the panes; `Workbench` acts on keys and clicks."""

    AUTO_FOCUS = "#prompt"
    HORIZONTAL_BREAKPOINTS = [  # noqa: RUF012 - Textual declares it so
        (0, "-tiny"),
        (MINIMUM[0], "-narrow"),
        (100, "-normal"),
        (WIDE, "-wide"),
    ]
    VERTICAL_BREAKPOINTS = [  # noqa: RUF012
        (0, "-flat"),
        (MINIMUM[1], "-short"),
        (TALL, "-tall"),
    ]

    def __init__(
        self, session: Session, run_params: RunParams, decoders: Sequence[Decoder], size: Size
    ) -> None:
        # Textual tells the size only after it has styled everything, and then would style all of it again.
        super().__init__(classes=" ".join(self._classes_at(size)))
        self._compositor = RowCompositor()
        self.session = session
        self.run_params = run_params
        self.decoders = list(decoders)
        self.header = HeaderBar()
        self.prompt = Prompt(id="prompt")
        self.board = BeamBoard(id="beam-board")
        self.pane = TokenPane(_EMPTY, id="tokens")
        self.strategy_list = StrategyList(self.decoders, id="strategies")
        self.parameters = Parameters(run_params, id="parameters")
        self.inspector = Inspector(session.texts_of, id="inspector")
        self.gauge = Gauge()
        self.messages = MessageLine()
        self.error_panel = StrategyErrorPanel()
        self.tour = TourCard()
        self.turns = Turns(id="turns")
        self._output = Vertical(id="output")
        self._inspect: bool | None = None
        self._cleared: Transcript | None = None
        self._shown: Transcript | None = None
        self._unfocused: Widget | None = None
        """Widget that had the focus until it was hidden."""
        self._ticks = 0
        self._counted = ""

    @classmethod
    def _classes_at(cls, size: Size) -> Iterator[str]:
        """Yields the screen's classes for a size, before the user has folded or opened anything."""
        for length, points in zip(size, (cls.HORIZONTAL_BREAKPOINTS, cls.VERTICAL_BREAKPOINTS), strict=True):
            yield max(point for point in points if point[0] <= length)[1]
        if size.width >= WIDE:
            yield "-inspecting"

    def _compositor_refresh(self) -> None:
        """Renders changes, but not while changes are gathered: the result would be thrown away."""
        if not services(self).gathering:
            super()._compositor_refresh()

    def compose(self) -> ComposeResult:
        yield Static(id="too-small")
        with Vertical(id="workbench"):
            yield self.header
            with Horizontal(id="body"):
                with Vertical(id="left"):
                    yield self.prompt
                    with self._output:
                        yield self.turns
                        yield self.board
                        yield self.pane
                    yield self.error_panel
                with Vertical(id="right"):
                    with Vertical(id="sidebar"):
                        yield self.strategy_list
                        yield self.parameters
                    yield self.inspector
            yield self.gauge
            yield self.messages
            yield Footer(show_command_palette=False, compact=True)
            yield self.tour

    @property
    def too_small(self) -> bool:
        """True where the terminal has no room for the workbench."""
        return self.has_class("-tiny") or self.has_class("-flat")

    def _reset_focus(self, widget: Widget, avoiding: list[Widget] | None = None) -> None:
        """Takes the focus from a removed or hidden widget, unless only the terminal's size hides it.

        Keys would become commands. A terminal may have room again before the widget hears that it is hidden.
        """
        hidden = any(not node.display and node.id != "workbench" for node in widget.ancestors_with_self)
        if avoiding or hidden or not widget.focusable:
            super()._reset_focus(widget, avoiding)
            self._unfocused = widget if hidden and self.focused is None else None

    def _refocus(self) -> None:
        """Restores the focus of a widget that another size had hidden, if no other has it."""
        widget, self._unfocused = self._unfocused, None
        if widget is not None and self.focused is None:
            if widget.region:
                widget.focus()
            else:
                self._unfocused = widget

    def on_mount(self) -> None:
        ui = services(self).settings.ui
        self.draw_ascii(services(self).ascii)
        self.set_class(not ui.sidebar, "-folded")
        self.inspector.border_title = "token"
        self.strategy_list.chosen = self.run_params.decoder.name
        self.app.theme_changed_signal.subscribe(self, self._theme_changed)
        self._title_model()
        self._title_output()
        self._title_parameters()

    def draw_ascii(self, plain: bool) -> None:
        """Draws bars and borders with plain ASCII, or with lines."""
        self.set_class(plain, "-ascii")
        telemetry = services(self).telemetry
        if telemetry is not None and telemetry.host:
            host = one_line(telemetry.host)
            self.gauge.border_title = Content(f"gauge of {host}")
        self.gauge.ascii_only = self.parameters.table.ascii_only = plain
        self.refresh()

    def _theme_changed(self, theme: Theme) -> None:
        """Marks the token pane where a theme has no hue."""
        self.pane.set_class(self.app.no_color or theme.ansi, "-no-hue")

    # Time passes.

    def tick(self, news: Sequence[Event], sample: Sample | None) -> None:
        """Acts on the engine's events, and paints."""
        for event in news:
            self._take(event)
        run = self.session.current
        if run is not None and (news or run.active) and (services(self).settings.stream or not run.active):
            self._paint_tokens()
        self.header.state, self.header.kind = self.session.state()
        self._ticks += 1
        if self._ticks % 8 == 1 or any(isinstance(e, engine_events.Finished) for e in news):
            self._paint_gauge(sample)

    def _paint_tokens(self) -> None:
        run = self.session.current
        if run is None or run.transcript is None or run.transcript is self._cleared:
            return
        if run.transcript is not self._shown:
            if services(self).settings.stream or not run.active:
                self._show(run.transcript)
            return
        self.pane.refresh_tail()
        self.board.refresh_tail()
        self.inspector.refresh_tail()

    def _show(self, transcript: Transcript | None) -> None:
        cursor = self.pane.cursor
        self._shown = transcript
        self.pane.show(transcript)
        self.board.show(transcript)
        competing = transcript is not None and transcript.started.rows > 1
        self.set_class(competing, "-board")
        if transcript is not None and competing:
            # The settled line, a place for each row, and some for what has finished: fixed, so that the
            # tokens below never move.
            self.board.styles.height = 2 + transcript.started.rows + min(transcript.started.rows, 3)
        self.inspector.show(transcript, None)
        if cursor is not None and transcript is not None and transcript.started.prefix_tokens:
            # Continuing from a token: stay on it.
            at = min(cursor, transcript.started.prefix_tokens - 1)
            self.call_after_refresh(self.pane.put_cursor, at)
        self._title_output()

    def _paint_gauge(self, sample: Sample | None) -> None:
        gauge, run, engine = self.gauge, self.session.current, self.session.engine
        device = next((loaded.device for loaded in self.session.loaded.values()), "")
        seen = sample is not None and sample.gpu is not None and sample.gpu.total is not None
        gauge.on_gpu = device.startswith("cuda") or (not device and seen)
        gauge.sample = sample
        telemetry = services(self).telemetry
        if sample is None and telemetry is not None:
            gauge.absent = telemetry.refusal or "measuring …"
        if run is None:
            return
        gauge.speed = speed_of(run, engine)

    def _take(self, event: Event) -> None:
        match event:
            case engine_events.Started():
                self._started(event)
            case engine_events.Finished():
                self._finished(event)
            case engine_events.Failed():
                self._failed(event)
            case engine_events.Loaded():
                self._loaded(event)
            case engine_events.Unloaded():
                self.say(run_messages.unloaded(event), "good")
                self._title_model()
            case engine_events.Loading():
                self.say(f"Loading {event.name} as {event.role} …")
            case engine_events.Noticed():
                self.say(event.message, "warning")
            case engine_events.ParamChanged():
                self.say(f"{event.name} is {event.value:.4g} from token {event.index} on.")

    def _started(self, event: Started) -> None:
        self.tour.done("run")
        if event.strategy != services(self).settings.strategy:
            self.tour.done("strategy")
        if self.error_panel.while_running:
            self.error_panel.show(None)
        if (run := self.session.run) is not None and run.id == event.run:
            run.decoder = next((d for d in self.decoders if d.name == event.strategy), None)
        self.run_params.learn(event.strategy, event.values)
        self.parameters.reload()
        self._title_output()
        if event.notices:
            self.say(" ".join(event.notices), "warning")
        else:
            self.say(run_messages.started(event, self._name_of(event.strategy)))

    def _finished(self, event: Finished) -> None:
        run = self.session.run
        if run is None or run.id != event.run or self.session.waiting:
            return
        if run.decoder is not None and event.new_tokens:
            registry.mark_working(run.decoder)
        kind = "good" if event.reason in ("eos", "stop", "done") else "info"
        self.say(run_messages.finished(event, run), kind)

    def _failed(self, event: Failed) -> None:
        self.say(event.message, "error")
        if event.problem is not None:
            self.error_panel.show(event.problem, while_running=True, reverted=self._reverted(event.run))
        if event.field:
            self.parameters.refuse(event.field, event.message)

    def _reverted(self, failed: int | None) -> bool:
        """Restores the version of a failed run's strategy that last decoded, if there is one."""
        run = self.session.run
        if run is None or run.id != failed or run.decoder is None or not registry.revert(run.decoder):
            return False
        self.take_strategies(set())
        return True

    def _loaded(self, event: Loaded) -> None:
        self.run_params.forget()
        self._title_model()
        self._count_prompt()
        telemetry = services(self).telemetry
        if telemetry is not None and event.device.startswith("cuda"):
            telemetry.watch(event.device)
        if (engine := self.session.engine) is not None:
            refusals = {decoder.name: engine.refusal(decoder.name) for decoder in self.decoders}
            self.strategy_list.refusals = {name: why for name, why in refusals.items() if why}
        self.say(run_messages.loaded(event), "good")

    def say(self, message: str, kind: str = "info") -> None:
        """Puts a sentence on the message line."""
        self.messages.say(message, kind)  # type: ignore[arg-type]

    # Titles.

    def take_strategies(self, files: set[Path]) -> None:
        raise NotImplementedError

    def _title_model(self) -> None:
        decoder = self.run_params.decoder
        main = self.session.main(decoder.name)
        if main is None:
            self.header.model, self.header.facts = services(self).model_name, ()
        else:
            name = run_messages.model_title(main, self.session.loaded, decoder.roles)
            self.header.model = one_line(name)
            self.header.facts = run_messages.model_facts(main)

    def _title_output(self) -> None:
        run = self.session.current
        kind = "final" if self.pane.show_final else "raw"
        title = "tokens"
        if run is not None and run.started is not None and self._shown is not None:
            title = f"tokens · {self._name_of(run.started.strategy)}"
        self._output.border_title = Content(title)
        ladder = [("━━", f"$token-{step}") for step in range(BUCKETS)]
        self._output.border_subtitle = Content.assemble(f"{kind} p <1% ", *ladder, " ≥90%")

    def _title_parameters(self) -> None:
        self.parameters.border_title = Content(one_line(self.run_params.decoder.title))

    def _name_of(self, strategy: str) -> str:
        title = next((d.title for d in self.decoders if d.name == strategy), strategy)
        return one_line(title)

    def on_text_area_changed(self, event: TextArea.Changed) -> None:
        event.stop()
        self.set_timer(0.3, self._count_prompt)

    def _count_prompt(self) -> None:
        engine, text = self.session.engine, self.prompt.text
        if len(text) > 200_000:
            self.prompt.border_subtitle = f"{len(text):,} characters"
            return
        control = services(self).settings.control_tokens
        count = engine.count(text, control) if engine is not None and text else None
        main = self.session.loaded.get("model")
        room = f" of {main.context:,}" if main is not None else ""
        self.prompt.border_subtitle = "" if count is None else f"{count:,}{room} tokens"

    def on_resize(self, event: events.Resize) -> None:
        width, height = event.size
        self.query_one("#too-small", Static).update(
            Content(
                f"edge-tui needs {MINIMUM[0]}×{MINIMUM[1]},\n"
                f"this terminal is {width}×{height}.\n\nPlease enlarge it."
            )
        )
        self.strategy_list.columns = 2 if height < TALL else 1
        self.call_after_refresh(self._refocus)
        if self._inspect is None:
            # The width decides, until the user has.
            self.set_class(width >= WIDE, "-inspecting")
