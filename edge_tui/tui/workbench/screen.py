"""Lays out the main screen, and routes keys and events to its view and controllers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from textual import work
from textual.containers import Vertical
from textual.widgets import Input, Static, TextArea

from edge_tui.engine import seeds
from edge_tui.history.schema import HistoryError
from edge_tui.tui.actions import bindings
from edge_tui.tui.keyboard import Keyboard
from edge_tui.tui.prompt_reader import PromptReader
from edge_tui.tui.services import services
from edge_tui.tui.stored_runs import read_turns
from edge_tui.tui.widgets.inspector import Inspector
from edge_tui.tui.widgets.parameters import ParameterTable
from edge_tui.tui.workbench.answer_controller import AnswerController
from edge_tui.tui.workbench.conversation_controller import ConversationController
from edge_tui.tui.workbench.dialog_actions import DialogActions
from edge_tui.tui.workbench.dialogs import WorkbenchDialogs
from edge_tui.tui.workbench.duel_controller import DuelController
from edge_tui.tui.workbench.lesson_controller import LessonController
from edge_tui.tui.workbench.lesson_keys import LessonKeys
from edge_tui.tui.workbench.prompt_controller import PromptController
from edge_tui.tui.workbench.run_controller import RunController
from edge_tui.tui.workbench.sized_screen import HIGH, TALL, WIDE, SizedScreen
from edge_tui.tui.workbench.strategy_controller import StrategyController
from edge_tui.tui.workbench.view import WorkbenchView
from edge_tui.tui.workbench.why_controller import WhyController

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual import events
    from textual.app import ComposeResult
    from textual.geometry import Size
    from textual.theme import Theme

    from edge_tui.config.settings import Settings
    from edge_tui.engine.events import Event
    from edge_tui.machine.telemetry import Sample
    from edge_tui.tui.run_params import RunParams
    from edge_tui.tui.session import Session
    from edge_tui.tui.widgets.prompt import Prompt
    from edge_tui.tui.widgets.strategy_list import StrategyList
    from edge_tui.tui.widgets.token_pane import TokenPane
    from edge_tui.tui.widgets.turns import Turns


class WorkbenchScreen(DialogActions, LessonKeys, SizedScreen):
    """Connects the view with the controllers.

    Args:
        session: Engine and runs.
        run_params: Values of the next request.
        view: The panes.
        size: Columns and lines of the terminal.
    """

    AUTO_FOCUS = "#prompt"
    BINDINGS = bindings("main")

    def __init__(self, session: Session, run_params: RunParams, view: WorkbenchView, size: Size) -> None:
        super().__init__(size)
        self.session = session
        self.run_params = run_params
        self.view = view
        self.prompt, self.pane = view.prompt, view.pane
        self.inspector, self.parameters = view.inspector, view.parameters
        self.conversation = ConversationController(session, view.prompt, view)
        self.prompts = PromptController(view.prompt, view, lambda: services(self).history())
        self.strategies = StrategyController(
            session, run_params, view.prompt, view, view.error_panel, lambda run: self.runs.start(run)
        )
        self.runs = RunController(
            session, run_params, view.prompt, view, self.conversation, self.strategies.take_values
        )
        self.answer = AnswerController(view, lambda: services(self))
        reader = PromptReader(session, run_params, lambda: self.conversation.preview(view.prompt.text))
        self.why = WhyController(session, run_params, view)
        self.dialogs = WorkbenchDialogs(
            self, view, self.prompts, self.strategies, self.runs, reader, self.why, self.reopen
        )
        self.duels = DuelController(
            session, run_params, view.prompt, view, self.strategies, self.conversation, self._run_prompt
        )
        self.lessons = LessonController(
            session, run_params, self.prompts, view.prompt, view, Keyboard(lambda: services(self))
        )
        self._inspect: bool | None = None
        """True where the user wants the inspector; None leaves it to the width."""

    def compose(self) -> ComposeResult:
        """Lays the panes out, and the notice of a terminal that is too small."""
        yield Static(id="too-small")
        with Vertical(id="workbench"):
            yield from self.view.compose()

    def on_mount(self) -> None:
        """Draws ASCII or lines, folds the sidebar as the settings say, and follows the theme."""
        self.draw_ascii(services(self).ascii)
        self.set_class(not self.run_params.settings.ui.sidebar, "-folded")
        self.app.theme_changed_signal.subscribe(self, self._theme_changed)
        self.view.write_titles()

    def draw_ascii(self, plain: bool) -> None:
        """Draws bars and borders with plain ASCII, or with lines."""
        self.set_class(plain, "-ascii")
        self.view.draw_ascii(plain)
        self.refresh()

    def _theme_changed(self, theme: Theme) -> None:
        """Marks the token pane where a theme has no hue."""
        self.pane.set_class(self.app.no_color or theme.ansi, "-no-hue")

    def on_resize(self, event: events.Resize) -> None:
        """Divides the room: columns of strategies, turns in sight, the inspector."""
        width, height = event.size
        self.view.turns.limit = 4 if height < TALL else 10
        self._show_inspector(width >= WIDE if self._inspect is None else self._inspect)

    def _show_inspector(self, shown: bool) -> None:
        """Opens or closes the inspector; the strategies above it leave their lines to the parameters."""
        self.set_class(shown, "-inspecting")
        width, height = self.app.size
        self.set_class(shown and width < WIDE and height < HIGH, "-crowded")
        self.view.strategy_list.columns = 2 if height < TALL or (shown and width < WIDE) else 1

    # Events and settings from the app.

    def tick(self, news: Sequence[Event], sample: Sample | None) -> None:
        """Acts on the engine's events, and paints."""
        for event in news:
            self.strategies.apply(event)
            self.runs.apply(event)
            self.conversation.apply(event)
            self.why.apply(event)
        self.view.paint(news, sample)
        self.lessons.tick()
        if self.is_current:
            self.why.follow()

    def take_settings(self, settings: Settings, key: str) -> None:
        """Applies settings of which one has changed, where that is possible at once."""
        self.run_params.settings = settings
        self.strategies.apply_strategies(set())
        if key == "strategy":
            self.strategies.choose(settings.strategy)
        elif key == "ui.sidebar":
            self.set_class(not settings.ui.sidebar, "-folded")
        elif key.startswith("parameters.") or "." not in key:
            self.run_params.follow(key.rpartition(".")[2])
        elif key.startswith("template."):
            self.run_params.follow("template")
        self.view.take_settings(settings, key)
        self.parameters.reload()

    @work(exclusive=True, group="reopen")
    async def reopen(self, run: int, again: bool = False) -> None:
        """Shows a stored run as it was, with its settings; or runs its prompt again with them."""
        if (store := services(self).history()) is None:
            return
        try:
            turns = await asyncio.to_thread(read_turns, store, run)
        except HistoryError as error:
            self.view.say(str(error), "error")
        else:
            self.runs.reopen(turns, again)

    # Runs.

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
        """Runs the prompt."""
        # This key overtakes those before it, which may still wait to be typed into the prompt.
        self.prompt.call_later(self._run_prompt)

    def _run_prompt(self) -> None:
        prompt = self.prompt.text
        messages = self.conversation.messages_for(prompt)
        if messages is not None:
            self.prompts.remember(prompt)
            self.runs.start(self.run_params.request(messages))

    def action_stop(self) -> None:
        """Stops the run; without one leaves an edit, an error or a field."""
        if self.session.stop():
            self.view.say("Stopping …")
        elif self.conversation.leave_edit():
            self.view.say("It stays as it was.")
        elif self.view.error_panel.problem is not None:
            self.view.error_panel.show(None)
        elif self.focused is not self.pane:
            self.pane.focus()

    def action_digit(self, number: int) -> None:
        """Chooses a strategy by its digit."""
        self.strategies.choose_number(number)

    def on_strategy_list_selected(self, event: StrategyList.Selected) -> None:
        """Chooses the strategy that was clicked."""
        self.strategies.choose(event.name)

    def action_resume(self) -> None:
        """Goes on from the end of the run on the screen."""
        self.runs.resume()

    def action_rerun(self) -> None:
        """Runs the prompt on the screen again with the same seed."""
        if not self.runs.repeat():
            self.action_run()

    def action_again(self) -> None:
        """Runs the prompt on the screen again with another seed."""
        if not self.runs.repeat(seeds.draw()):
            self.action_run()

    def action_duel(self) -> None:
        """Chooses a second strategy for the prompt on the screen."""
        self.dialogs.show_rivals(self.duels)

    def on_token_pane_take_alternative(self, event: TokenPane.TakeAlternative) -> None:
        """Goes on from an alternative."""
        event.stop()
        self.runs.take_alternative(event.index, event.token_id)

    def action_clear(self) -> None:
        """Clears the tokens and stops their run, or brings them back."""
        if not self.view.restore() and self.view.clear():
            self.session.stop()
            self.view.say("Cleared; x brings it back.")

    # Panes.

    def action_toggle_final(self) -> None:
        """Colours by the other probabilities."""
        self.view.toggle_final()

    def action_colours(self) -> None:
        """Colours by another number."""
        self.view.cycle_colours()

    def action_inspector(self) -> None:
        """Opens or closes the inspector."""
        self._inspect = not self.has_class("-inspecting")
        self._show_inspector(self._inspect)
        if not self._inspect and self.focused in (None, self.inspector):
            self.pane.focus()
        elif self._inspect and self.pane.cursor is None:
            self.pane.action_cursor_left()
        self.why.follow()

    def action_widen(self) -> None:
        """Gives the inspector more room, or takes it back; opens it where it is closed."""
        shown = self.has_class("-inspecting")
        self.set_class(not shown or not self.has_class("-widened"), "-widened")
        if not shown:
            self.action_inspector()

    def action_sidebar(self) -> None:
        """Folds the sidebar, or unfolds it."""
        self.toggle_class("-folded")
        if self.has_class("-folded") and self.parameters.has_focus_within:
            self.pane.focus()

    def action_board(self) -> None:
        """Shows the board of beams, or the text alone."""
        self.view.toggle_board()

    def action_curve(self) -> None:
        """Shows the next curve under the tokens, or none."""
        self.view.show_next_curve()

    def action_fold(self) -> None:
        """Folds the thoughts, or unfolds them."""
        self.view.toggle_thoughts()

    def action_focus_prompt(self) -> None:
        """Goes to the prompt."""
        self.prompt.focus()

    def action_focus_parameters(self) -> None:
        """Goes to the parameters; closes the inspector where both have no room."""
        self.remove_class("-folded")
        if not self.has_class("-wide"):
            self._inspect = False
            self._show_inspector(False)
        self.parameters.table.focus()

    def on_token_pane_cursor_moved(self, event: TokenPane.CursorMoved) -> None:
        """Inspects the token under the cursor."""
        self.inspector.show(self.pane.transcript, event.index)
        self.why.follow()

    def on_token_pane_opened(self, event: TokenPane.Opened) -> None:
        """Opens the inspector and goes there."""
        self._inspect = True
        self._show_inspector(True)
        self.inspector.show(self.pane.transcript, event.index)
        self.call_after_refresh(self.inspector.focus)
        self.why.follow()

    def on_inspector_move_token(self, event: Inspector.MoveToken) -> None:
        """Moves the cursor of the tokens."""
        self.pane.action_cursor_left() if event.step < 0 else self.pane.action_cursor_right()

    def on_parameter_table_changed(self, event: ParameterTable.Changed) -> None:
        """Sends the value to the run in progress."""
        self.runs.send_value(event.key)

    # The conversation.

    def action_conversation(self) -> None:
        """Begins a conversation, or ends it."""
        self.conversation.toggle()

    def action_new_conversation(self) -> None:
        """Begins another conversation."""
        self.conversation.restart()

    def action_focus_turns(self) -> None:
        """Goes to the turns of the conversation."""
        if self.conversation.talk is None or not self.conversation.talk.exchanges:
            self.view.say("There is no conversation: v begins one.")
        else:
            self.view.turns.focus()

    def on_turns_chosen(self, event: Turns.Chosen) -> None:
        """Shows the answer of a turn."""
        self.conversation.choose(event.number)

    def on_turns_read(self) -> None:
        """Goes to the tokens."""
        self.pane.focus()

    def on_turns_edit(self, event: Turns.Edit) -> None:
        """Puts the prompt of a turn into the field."""
        self.conversation.edit(event.number)

    # The prompt.

    def on_text_area_changed(self, event: TextArea.Changed) -> None:
        """Counts the prompt's tokens a moment later."""
        event.stop()
        self.set_timer(0.3, self.view.count_prompt)

    def on_prompt_recall(self, event: Prompt.Recall) -> None:
        """Puts an earlier prompt into the field, or a later one."""
        event.stop()
        self.prompts.recall(event.step)

    def action_editor(self) -> None:
        """Opens the prompt in the user's editor, after the keys that still wait to be typed into it."""
        self.prompt.call_later(self._edit)

    def _edit(self) -> None:
        self.prompts.edit(self.app.suspend)
        self.app.refresh(layout=True)  # over what the editor left on the screen

    # Other screens.

    def action_models(self) -> None:
        """Opens the list of models."""
        services(self).show_models()

    def action_themes(self) -> None:
        """Opens the list of themes."""
        services(self).show_themes()

    def action_help(self) -> None:
        """Opens the help."""
        services(self).action_show_help()

    # Taking the answer elsewhere.

    def action_copy(self) -> None:
        """Copies the answer."""
        self.answer.copy()

    def action_save(self) -> None:
        """Writes the answer to a file."""
        self.answer.save()
