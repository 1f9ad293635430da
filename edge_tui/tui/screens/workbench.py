"""Acts on the keys of the main screen. `View` paints; `Talking` and `Crafting` hold turns and prompts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from textual.widgets import Input, TextArea

from edge_tui import decoders as registry
from edge_tui.decoders.base import ParamError
from edge_tui.engine import seeds
from edge_tui.tui import clipboard
from edge_tui.tui.actions import bindings
from edge_tui.tui.screens.crafting import Crafting
from edge_tui.tui.services import services
from edge_tui.tui.widgets.inspector import Inspector
from edge_tui.tui.widgets.parameters import ParameterTable
from edge_tui.util import user_file

if TYPE_CHECKING:
    from textual import events
    from textual.binding import Binding

    from edge_tui.config.settings import Settings
    from edge_tui.engine.port import Request
    from edge_tui.transcript.transcript import Transcript
    from edge_tui.tui.session import Run
    from edge_tui.tui.widgets.strategy_list import StrategyList
    from edge_tui.tui.widgets.token_pane import TokenPane


class Workbench(Crafting):
    """Starts, stops and repeats runs, and opens the other screens."""

    BINDINGS: ClassVar[list[Binding]] = bindings("main")  # type: ignore[assignment]

    def on_key(self, event: events.Key) -> None:
        """Types a printable key that has no binding into the prompt."""
        if (
            event.is_printable
            and event.character
            and not isinstance(self.focused, (Input, TextArea))
            and event.key not in self.active_bindings
        ):
            event.stop()
            self.prompt.append(event.character)

    def action_run(self) -> None:
        # This key overtakes those before it, which may still wait to be typed into the prompt.
        self.prompt.call_later(self._run_prompt)

    def _run_prompt(self) -> None:
        prompt = self.prompt.text
        prompt_messages = self._messages_for(prompt)
        if prompt_messages is None:
            return
        if prompt:
            self.past.add(prompt)
        self._start(self.run_params.request(prompt_messages))

    def _start(self, request: Request, previous: Transcript | None = None) -> None:
        if self.parameters.has_class("-editing") and self.focused is not self.parameters.field:
            self.parameters.close()
        running = self.session.run is not None and self.session.run.active
        self._cleared = self.session.viewed = None
        self.session.start(request, previous, self._turn_position(request))
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
        elif self.leave_change():
            self.say("It stays as it was.")
        elif self.error_panel.problem is not None:
            self.error_panel.show(None)
        elif isinstance(self.focused, (TextArea, ParameterTable, Inspector)):
            self.pane.focus()

    def action_digit(self, number: int) -> None:
        if number <= len(self.decoders):
            self.choose(self.decoders[number - 1].name)

    def on_strategy_list_selected(self, event: StrategyList.Selected) -> None:
        self.choose(event.name)

    def choose(self, name: str) -> None:
        """Takes another strategy; the prompt that runs, or has just run, runs again under it."""
        if why := self.strategy_list.refusals.get(name):
            self.say(why, "warning")
            return
        decoder = next(d for d in self.decoders if d.name == name)
        changed = decoder is not self.run_params.decoder
        self.run_params.decoder = decoder
        self.strategy_list.chosen = name
        self.parameters.reload()
        self._title_parameters()
        self._title_model()
        run = self.session.run
        if changed and run is not None and (self.session.busy or self._has_just_run(run)):
            self._start(self.run_params.request(run.request.prompt, seed=run.seed))
        else:
            hint = ""
            if changed and run is not None and run is self.session.current and self._is_as_sent(run):
                hint = "r runs the prompt again with its seed. "
            elif changed and run is not None and self.prompt.text.strip():
                hint = "^j runs it. "
            self.say(f"{self._name_of(name)}: {hint}{decoder.summary}")

    def _has_just_run(self, run: Run) -> bool:
        """Tells whether a run came to its own end, and the prompt has not changed since."""
        ended = run.finished is not None and run.finished.reason != "cancelled"
        return ended and run is self.session.current and self._is_as_sent(run)

    def _is_as_sent(self, run: Run) -> bool:
        """Tells whether the prompt is still the run's; a conversation clears the prompt that it has sent."""
        prompt = run.request.prompt
        return self.prompt.text == (prompt if isinstance(prompt, str) else "")

    def show_strategy_error(self) -> None:
        """Shows the error of the first of the user's own strategies that does not work, if any."""
        folders = registry.folders()
        faults = (fault for fault in registry.problems() if Path(fault.source).parent in folders)
        self.error_panel.show(next(faults, None))

    def take_strategies(self, files: set[Path]) -> None:
        """Goes on with the strategies as they are now, after these files have changed."""
        chosen, known = self.run_params.decoder.name, {decoder.name for decoder in self.decoders}
        self.decoders = self.strategy_list.decoders = registry.strategies()
        names = {decoder.name for decoder in self.decoders}
        if chosen not in names and self.session.busy:
            self.session.stop()
        # A strategy that was renamed is found again by its file; one that is gone gives way to the first.
        fresh = next((d.name for d in self.decoders if d.name not in known), self.decoders[0].name)
        self.run_params.decoder = registry.find(chosen if chosen in names else fresh)
        self.strategy_list.chosen = self.run_params.decoder.name
        self.strategy_list.refresh(layout=True)
        self.parameters.reload()
        self._title_parameters()
        self.show_strategy_error()
        if not files:
            return
        written = ", ".join(sorted(file.name for file in files))
        if self.error_panel.problem is None:
            self.say(f"{written} was read again: r runs the same prompt with it.", "good")
        else:
            self.say(f"{written} was read again, but something in it is wrong.", "error")

    def _foreign(self, run: Run) -> bool:
        """Refuses to continue a run of another model, whose ids are other tokens; False without one."""
        loaded = self.session.main(self.run_params.decoder.name)
        if not run.model or loaded is None or loaded.name == run.model:
            return False
        self.say(f"{run.model} wrote this: load it (m) to go on from its tokens.", "warning")
        return True

    def action_resume(self) -> None:
        run = self.session.current
        if run is None or run.transcript is None or not len(run.transcript):
            self.say("There is nothing to continue yet; ctrl+j runs the prompt.", "warning")
        elif run.active:
            self.say("It is still running.", "info")
        elif run.finished is not None and run.finished.reason == "eos":
            self.say("The model ended its answer; g runs the prompt again with another seed.", "warning")
        elif not self._foreign(run):
            request = self.run_params.request(run.request.prompt, run.transcript.ids(), run.seed)
            self._start(request, run.transcript)

    def action_rerun(self) -> None:
        run = self.session.current
        if run is None:
            self.action_run()
            return
        self._start(self.run_params.request(run.request.prompt, seed=run.seed))

    def action_again(self) -> None:
        run = self.session.current
        if run is None:
            self.action_run()
            return
        self._start(self.run_params.request(run.request.prompt, seed=seeds.draw()))

    def on_token_pane_take_alternative(self, event: TokenPane.TakeAlternative) -> None:
        """Cuts the run before a token, puts another one there, and goes on."""
        event.stop()
        run = self.session.current
        # The screen may be a moment behind: what was pointed at must be what is cut.
        if run is None or run.transcript is None or run.transcript is not self._shown or self._foreign(run):
            return
        transcript = run.transcript
        prefix = (*transcript.ids(event.index), event.token_id)
        self._start(self.run_params.request(run.request.prompt, prefix, run.seed), transcript)

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
        self._inspect = self.has_class("-inspecting")
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
            self._inspect = False
            self.remove_class("-inspecting")
        self.parameters.table.focus()

    def on_token_pane_cursor_moved(self, event: TokenPane.CursorMoved) -> None:
        self.inspector.show(self.pane.transcript, event.index)
        if event.index is not None:
            self.tour.done("token")

    def on_token_pane_opened(self, event: TokenPane.Opened) -> None:
        self._inspect = True
        self.add_class("-inspecting")
        self.inspector.show(self.pane.transcript, event.index)
        self.call_after_refresh(self.inspector.focus)

    def on_inspector_move_token(self, event: Inspector.MoveToken) -> None:
        if event.step < 0:
            self.pane.action_cursor_left()
        else:
            self.pane.action_cursor_right()

    def on_parameter_table_changed(self, event: ParameterTable.Changed) -> None:
        """Sends a changed value to the run in progress, where the parameter allows that."""
        self.tour.done("parameter")
        run, engine = self.session.run, self.session.engine
        param = self.run_params.param(event.key)
        if run is None or engine is None or not run.active or param is None or not param.live:
            return
        if run.request.strategy != self.run_params.decoder.name:
            return
        own = {p.name for p in self.run_params.decoder.params}
        if event.key in own:
            try:
                engine.set(run.id, event.key, self.run_params.value(param)[0])
            except ParamError as error:
                self.parameters.refuse(event.key, str(error))

    def on_parameter_table_explain(self) -> None:
        from edge_tui.tui.screens.explain import ExplainScreen

        self.app.push_screen(ExplainScreen(self.parameters.table, self.pane, self.session))

    # Elsewhere.

    def action_strategies(self) -> None:
        from edge_tui.tui.screens.strategies import StrategiesScreen

        def take(name: str | None) -> None:
            if name:
                self.choose(name)

        refusals = self.strategy_list.refusals
        self.app.push_screen(StrategiesScreen(self.decoders, self.run_params.decoder.name, refusals), take)

    def action_models(self) -> None:
        services(self).show_models()

    def action_settings(self) -> None:
        from edge_tui.tui.screens.settings import SettingsScreen

        self.app.push_screen(SettingsScreen(services(self).preferences()))

    def take_settings(self, settings: Settings, key: str) -> None:
        """Applies settings of which one has changed, where that is possible at once."""
        self.run_params.settings = settings
        self.decoders = self.strategy_list.decoders = registry.strategies()
        self.run_params.decoder = registry.find(self.run_params.decoder.name)
        if key == "strategy":
            self.choose(settings.strategy)
        elif key == "ui.sidebar":
            self.set_class(not settings.ui.sidebar, "-folded")
        elif key.startswith("parameters.") or "." not in key:
            self.run_params.follow(key.rpartition(".")[2])
        elif key.startswith("template."):
            self.run_params.follow("template")
        self.parameters.reload()

    def action_themes(self) -> None:
        services(self).show_themes()

    def action_help(self) -> None:
        self.tour.done("help")
        services(self).action_show_help()

    def action_tour(self) -> None:
        self.tour.toggle()

    # Taking the text elsewhere.

    def action_copy(self) -> None:
        """Copies the answer through the terminal, and tells whether it will arrive."""
        if not (text := self._text()):
            return
        support = services(self).clipboard_support()
        size = len(text.encode())
        if support.works == "no":
            self.say(f"{support.advice} Y writes the answer to a file.", "warning")
            return
        self.app.copy_to_clipboard(text)
        limit = clipboard.LIMIT
        long = f" It is long: some terminals take {limit:,} bytes at most." if size > limit else ""
        if support.works == "yes":
            self.say(f"Copied {len(text):,} characters.{long}", "good")
        else:
            sent = f"Sent {len(text):,} characters to the terminal."
            self.say(f"{sent} {support.advice}{long} Y writes a file.")

    def action_save(self) -> None:
        """Writes the answer to a file in the folder that the app was started in."""
        if not (text := self._text()):
            return
        try:
            self.say(f"Written to {clipboard.save(text)}.", "good")
        except OSError as error:
            self.say(f"The answer could not be written: {user_file.error_reason(error)}.", "error")

    def _text(self) -> str:
        """Reads the answer on the screen, as the model wrote it."""
        transcript = self.pane.transcript
        if transcript is None or not len(transcript):
            self.say("There is no answer yet; ctrl+j runs the prompt.", "warning")
            return ""
        return transcript.text
