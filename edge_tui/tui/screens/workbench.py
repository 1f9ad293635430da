"""The main screen: prompt, tokens, strategies, parameters, gauge, and the keys that move them."""

from __future__ import annotations

from random import getrandbits
from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.screen import Screen
from textual.widgets import Footer, Input, Static, TextArea

from decoders.base import ParamError
from edge_tui.engine import events as engine_events
from edge_tui.sanitise import sanitise
from edge_tui.tui import format
from edge_tui.tui.actions import bindings
from edge_tui.tui.widgets.beam_board import BeamBoard
from edge_tui.tui.widgets.gauge import Gauge, Speed
from edge_tui.tui.widgets.header import HeaderBar
from edge_tui.tui.widgets.inspector import Inspector
from edge_tui.tui.widgets.message_line import MessageLine
from edge_tui.tui.widgets.parameters import Parameters, ParameterTable
from edge_tui.tui.widgets.prompt import Prompt
from edge_tui.tui.widgets.strategy_list import StrategyList
from edge_tui.tui.widgets.token_pane import TokenPane

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual import events
    from textual.app import ComposeResult
    from textual.theme import Theme

    from decoders.base import Decoder
    from edge_tui.engine.events import Event, Failed, Finished, Loaded, Started
    from edge_tui.engine.port import Request
    from edge_tui.telemetry import Sample
    from edge_tui.transcript import Transcript
    from edge_tui.tui.app import EdgeApp
    from edge_tui.tui.knobs import Knobs
    from edge_tui.tui.session import Session

MINIMUM = (60, 16)
"""Columns and lines below which the screen only asks to be enlarged."""
_REASONS = {
    "eos": "end of sequence",
    "stop": "stop string",
    "length": "max_length reached",
    "cancelled": "stopped",
    "context": "context full",
    "done": "every hypothesis finished",
}
_EMPTY = "ctrl+j runs the prompt.\n1-9 choose a strategy, ? shows every key."


class Workbench(Screen[None]):
    """Where decoding is watched."""

    app: EdgeApp
    AUTO_FOCUS = "#prompt"
    BINDINGS: ClassVar[list[Binding]] = bindings("main")  # type: ignore[assignment]
    HORIZONTAL_BREAKPOINTS: ClassVar[list[tuple[int, str]] | None] = [
        (0, "-tiny"),
        (MINIMUM[0], "-narrow"),
        (100, "-normal"),
        (150, "-wide"),
    ]
    VERTICAL_BREAKPOINTS: ClassVar[list[tuple[int, str]] | None] = [
        (0, "-flat"),
        (MINIMUM[1], "-short"),
        (34, "-tall"),
    ]

    def __init__(self, session: Session, knobs: Knobs, decoders: Sequence[Decoder]) -> None:
        super().__init__()
        self.session = session
        self.knobs = knobs
        self.decoders = list(decoders)
        self._cleared: Transcript | None = None
        self._shown: Transcript | None = None
        self._ticks = 0
        self._counted = ""

    def compose(self) -> ComposeResult:
        yield Static(id="too-small")
        with Vertical(id="workbench"):
            yield HeaderBar()
            with Horizontal(id="body"):
                with Vertical(id="left"):
                    yield Prompt(id="prompt")
                    with Vertical(id="output"):
                        yield BeamBoard(id="beam-board")
                        yield TokenPane(_EMPTY, id="tokens")
                with Vertical(id="right"):
                    with Vertical(id="sidebar"):
                        yield StrategyList(self.decoders, id="strategies")
                        yield Parameters(self.knobs, id="parameters")
                    yield Inspector(self._decode, id="inspector")
            yield Gauge()
            yield MessageLine()
            yield Footer(show_command_palette=False, compact=True)

    def on_mount(self) -> None:
        ui = self.app.settings.ui
        self.set_class(not ui.sidebar, "-folded")
        self.set_class(ui.ascii, "-ascii")
        self.query_one("#inspector").border_title = "token"
        self.gauge.ascii_only = self.parameters.table.ascii_only = ui.ascii
        self.strategy_list.chosen = self.knobs.decoder.name
        self.app.theme_changed_signal.subscribe(self, self._theme_changed)
        self._title_model()
        self._title_output()
        self._title_parameters()

    def _theme_changed(self, theme: Theme) -> None:
        """Without hue the token pane needs other means than colour."""
        self.pane.set_class(self.app.no_color or theme.ansi, "-no-hue")

    # The parts.

    @property
    def header(self) -> HeaderBar:
        return self.query_one(HeaderBar)

    @property
    def prompt(self) -> Prompt:
        return self.query_one(Prompt)

    @property
    def pane(self) -> TokenPane:
        return self.query_one(TokenPane)

    @property
    def board(self) -> BeamBoard:
        return self.query_one(BeamBoard)

    @property
    def inspector(self) -> Inspector:
        return self.query_one(Inspector)

    @property
    def parameters(self) -> Parameters:
        return self.query_one(Parameters)

    @property
    def strategy_list(self) -> StrategyList:
        return self.query_one(StrategyList)

    @property
    def gauge(self) -> Gauge:
        return self.query_one(Gauge)

    @property
    def messages(self) -> MessageLine:
        return self.query_one(MessageLine)

    def _decode(self, ids: Sequence[int]) -> list[str]:
        engine = self.session.engine
        return engine.decode(ids) if engine is not None else [""] * len(ids)

    # Time passes.

    def tick(self, news: Sequence[Event], sample: Sample | None) -> None:
        """Paints what has happened since the last tick."""
        for event in news:
            self._take(event)
        run = self.session.run
        if run is not None and (news or run.active) and (self.app.settings.stream or not run.active):
            self._paint_tokens()
        self.header.state, self.header.kind = self.session.state()
        self._ticks += 1
        if self._ticks % 8 == 1 or any(isinstance(e, engine_events.Finished) for e in news):
            self._paint_gauge(sample)

    def _paint_tokens(self) -> None:
        run = self.session.run
        if run is None or run.transcript is None:
            return
        if run.transcript is not self._shown:
            if self.app.settings.stream or not run.active:
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
        self.inspector.show(transcript, None)
        if cursor is not None and transcript is not None and transcript.started.prefix_tokens:
            # Continuing from a token: stay on it.
            at = min(cursor, transcript.started.prefix_tokens - 1)
            self.call_after_refresh(setattr, self.pane, "cursor", at)
        self._title_output()

    def _paint_gauge(self, sample: Sample | None) -> None:
        gauge, run, engine = self.gauge, self.session.run, self.session.engine
        device = next((loaded.device for loaded in self.session.loaded.values()), "")
        seen = sample is not None and sample.gpu is not None and sample.gpu.total is not None
        gauge.on_gpu = device.startswith("cuda") or (not device and seen)
        gauge.sample = sample
        if run is None:
            return
        meter = run.meter
        peak = run.finished.peak_bytes if run.finished is not None else None
        if peak is None and run.active and engine is not None:
            peak = engine.memory().peak
        gauge.speed = Speed(
            now=meter.now,
            mean=run.finished.tokens_per_second or meter.mean if run.finished is not None else meter.mean,
            history=tuple(meter.history),
            first=run.first_token,
            read=run.started.prompt_tokens if run.started is not None else None,
            written=meter.total if run.started is not None else None,
            peak=peak,
        )

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
                back = event.before_bytes - event.after_bytes
                self.say(f"{event.name} unloaded: {format.size(back)} came back.", "good")
                self._title_model()
            case engine_events.Loading():
                self.say(f"Loading {event.name} as {event.role} …")
            case engine_events.ParamChanged():
                self.say(f"{event.name} is {event.value:.4g} from token {event.index} on.")
            case engine_events.Died():
                self.app.offer_restart(event)
            case _:
                pass

    def _started(self, event: Started) -> None:
        self.knobs.learn(event.strategy, event.values)
        self.parameters.reload()
        self._title_output()
        if event.notices:
            self.say(" ".join(event.notices), "warning")
        else:
            self.say(f"{self._name_of(event.strategy)} · seed {event.seed} · at most {event.max_new_tokens} tokens")

    def _finished(self, event: Finished) -> None:
        run = self.session.run
        if run is None or run.id != event.run or self.session.waiting:
            return
        said = [
            _REASONS.get(event.reason, event.reason),
            f"{event.new_tokens:,} tokens",
            f"{format.rate(event.tokens_per_second)} tok/s",
        ]
        if event.score is not None:
            said.append(f"score {event.score:.3f}")
        if run.started is not None:
            said.append(f"seed {run.started.seed}")
        self.say(" · ".join(said), "good" if event.reason in ("eos", "stop", "done") else "info")

    def _failed(self, event: Failed) -> None:
        self.say(event.message, "error")
        self.app.notify(sanitise(event.message), severity="error", markup=False, timeout=8)
        if event.field:
            self.parameters.refuse(event.field, event.message)

    def _loaded(self, event: Loaded) -> None:
        self.knobs.forget()
        self._title_model()
        self._count_prompt()
        note = f" {' '.join(event.notices)}" if event.notices else ""
        self.say(
            f"{event.name} ready as {event.role} in {format.seconds(event.seconds)}: {event.architecture}, "
            f"{format.size(event.weight_bytes)}.{note}",
            "warning" if event.notices else "good",
        )

    def say(self, message: str, kind: str = "info") -> None:
        """Puts a sentence on the message line."""
        self.messages.say(message, kind)  # type: ignore[arg-type]

    # Titles.

    def _title_model(self) -> None:
        loaded = self.session.loaded
        main = loaded.get("model")
        header = self.header
        if main is None:
            header.model, header.facts = self.app.model_name, ()
            return
        name = main.name
        other = [event.name for role, event in loaded.items() if role != "model"]
        if other and "amateur" in self.knobs.decoder.roles:
            name = f"{name} − {other[0]}"
        header.model = sanitise(name, keep_newlines=False)
        header.facts = (main.precision, main.device)

    def _title_output(self) -> None:
        run = self.session.run
        kind = "final" if self.pane.show_final else "raw"
        output = self.query_one("#output")
        title = "tokens"
        if run is not None and run.started is not None and self._shown is not None:
            title = f"tokens · {self._name_of(run.started.strategy)}"
        output.border_title = Content(title)
        output.border_subtitle = f"{kind} probabilities"

    def _title_parameters(self) -> None:
        self.parameters.border_title = Content(sanitise(self.knobs.decoder.title, keep_newlines=False))

    def _name_of(self, strategy: str) -> str:
        found = next((d.title for d in self.decoders if d.name == strategy), strategy)
        return sanitise(found, keep_newlines=False)

    def on_text_area_changed(self, event: TextArea.Changed) -> None:
        event.stop()
        self.set_timer(0.3, self._count_prompt)

    def _count_prompt(self) -> None:
        engine, text = self.session.engine, self.prompt.text
        if len(text) > 200_000:
            self.prompt.border_subtitle = f"{len(text):,} characters"
            return
        count = engine.count(text) if engine is not None and text else None
        self.prompt.border_subtitle = "" if count is None else f"{count:,} token{'s' * (count != 1)}"

    # Keys.

    def on_key(self, event: events.Key) -> None:
        """A printable key that is no binding belongs to the prompt."""
        if (
            event.is_printable
            and event.character
            and not isinstance(self.focused, (Input, TextArea))
            and event.key not in self.active_bindings
        ):
            event.stop()
            self.prompt.type(event.character)

    def action_run(self) -> None:
        prompt = self.prompt.text
        if not prompt.strip():
            self.say("The prompt is empty: type something, then ctrl+j.", "error")
            self.prompt.focus()
            return
        self._start(self.knobs.request(prompt))

    def _start(self, request: Request, previous: Transcript | None = None) -> None:
        if self.parameters.has_class("-editing") and self.focused is not self.parameters.field:
            self.parameters.close()
        running = self.session.run is not None and self.session.run.active
        self._cleared = None
        self.session.start(request, previous)
        if self.session.engine is None:
            self.say("Queued: the engine is starting.", "info")
        elif self.session.loading:
            self.say("Queued: runs as soon as the model is loaded.", "info")
        elif running:
            self.say("Queued: the run in progress is stopping.", "info")
        self.pane.focus()

    def action_stop(self) -> None:
        if self.session.stop():
            self.say("Stopping …")
        elif isinstance(self.focused, (TextArea, ParameterTable, Inspector)):
            self.pane.focus()

    def action_digit(self, number: int) -> None:
        if number <= len(self.decoders):
            self.choose(self.decoders[number - 1].name)

    def on_strategy_list_picked(self, event: StrategyList.Picked) -> None:
        self.choose(event.name)

    def choose(self, name: str) -> None:
        """Takes another strategy; a run in progress starts again under it."""
        decoder = next(d for d in self.decoders if d.name == name)
        changed = decoder is not self.knobs.decoder
        self.knobs.decoder = decoder
        self.strategy_list.chosen = name
        self.parameters.reload()
        self._title_parameters()
        self._title_model()
        run = self.session.run
        if changed and self.session.busy and run is not None:
            self._start(self.knobs.request(self._prompt_of(run.request)))
        else:
            self.say(f"{self._name_of(name)}: {decoder.summary}")

    @staticmethod
    def _prompt_of(request: Request) -> str:
        return request.prompt if isinstance(request.prompt, str) else request.prompt[-1].content

    def action_resume(self) -> None:
        run = self.session.run
        if run is None or run.transcript is None or not len(run.transcript):
            self.say("There is nothing to continue yet; ctrl+j runs the prompt.", "warning")
        elif run.active:
            self.say("It is still running.", "info")
        elif run.finished is not None and run.finished.reason == "eos":
            self.say("The model ended its answer; g runs the prompt again with another seed.", "warning")
        else:
            seed = run.started.seed if run.started is not None else None
            request = self.knobs.request(self._prompt_of(run.request), run.transcript.ids(), seed)
            self._start(request, run.transcript)

    def action_again(self) -> None:
        run = self.session.run
        if run is None:
            self.action_run()
            return
        self._start(self.knobs.request(self._prompt_of(run.request), seed=getrandbits(32)))

    def on_token_pane_take_alternative(self, event: TokenPane.TakeAlternative) -> None:
        """Cuts before a token, puts another one there, goes on."""
        event.stop()
        run = self.session.run
        if run is None or run.transcript is None:
            return
        transcript = run.transcript
        seed = run.started.seed if run.started is not None else None
        prefix = (*transcript.ids(event.index), event.token_id)
        self._start(self.knobs.request(self._prompt_of(run.request), prefix, seed), transcript)

    def action_clear(self) -> None:
        if self._shown is None and self._cleared is not None:
            self._show(self._cleared)
            self._cleared = None
        elif self._shown is not None:
            self.session.stop()
            self._cleared = self._shown
            self._show(None)
            self.say("Cleared; x brings it back.")

    # Looking.

    def action_toggle_final(self) -> None:
        final = not self.pane.show_final
        self.pane.show_final = self.inspector.show_final = final
        self._title_output()

    def action_inspector(self) -> None:
        self.toggle_class("-inspecting")
        if not self.has_class("-inspecting"):
            if self.focused is None or self.focused is self.inspector:
                self.pane.focus()
        elif self.pane.cursor is None:
            self.pane.action_cursor_left()

    def action_sidebar(self) -> None:
        self.toggle_class("-folded")
        if self.has_class("-folded") and self.parameters.has_focus_within:
            self.pane.focus()

    def action_board(self) -> None:
        if self._shown is not None and self._shown.started.rows > 1:
            self.toggle_class("-board")
        else:
            self.say("Only beam search has several hypotheses to show.", "info")

    def action_focus_prompt(self) -> None:
        self.prompt.focus()

    def action_focus_parameters(self) -> None:
        self.remove_class("-folded")
        if not self.has_class("-wide"):
            self.remove_class("-inspecting")
        self.parameters.table.focus()

    def on_token_pane_cursor_moved(self, event: TokenPane.CursorMoved) -> None:
        self.inspector.show(self.pane.transcript, event.index)

    def on_token_pane_opened(self, event: TokenPane.Opened) -> None:
        self.add_class("-inspecting")
        self.inspector.show(self.pane.transcript, event.index)
        self.call_after_refresh(self.inspector.focus)

    def on_inspector_move_token(self, event: Inspector.MoveToken) -> None:
        if event.step < 0:
            self.pane.action_cursor_left()
        else:
            self.pane.action_cursor_right()

    def on_parameter_table_turned(self, event: ParameterTable.Turned) -> None:
        """A value was changed: at once where a run can take it."""
        run, engine = self.session.run, self.session.engine
        param = self.knobs.param(event.key)
        if run is None or engine is None or not run.active or param is None or not param.live:
            return
        if run.request.strategy != self.knobs.decoder.name:
            return
        own = {p.name for p in self.knobs.decoder.params}
        if event.key in own:
            try:
                engine.set(run.id, event.key, self.knobs.value(param)[0])
            except ParamError as error:
                self.parameters.refuse(event.key, str(error))

    # Elsewhere.

    def action_strategies(self) -> None:
        from edge_tui.tui.screens.strategies import StrategiesScreen

        def picked(name: str | None) -> None:
            if name:
                self.choose(name)

        self.app.push_screen(StrategiesScreen(self.decoders, self.knobs.decoder.name), picked)

    def action_models(self) -> None:
        self.app.show_models()

    def action_themes(self) -> None:
        self.app.show_themes()

    def action_help(self) -> None:
        from edge_tui.tui.screens.help import HelpScreen

        self.app.push_screen(HelpScreen())

    def on_resize(self, event: events.Resize) -> None:
        width, height = event.size
        self.query_one("#too-small", Static).update(
            Content(f"edge-tui needs {MINIMUM[0]}×{MINIMUM[1]}\nthis terminal is {width}×{height}\n\nplease enlarge it")
        )
        self.strategy_list.columns = 2 if height < 34 else 1
