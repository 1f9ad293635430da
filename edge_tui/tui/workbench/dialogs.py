"""Opens the dialogs of the workbench, and hands what they return to its controllers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_tui.decoders.registry.chain_text import AROUND
from edge_tui.tui.chain_editor import ChainEditor
from edge_tui.tui.services import services

if TYPE_CHECKING:
    from collections.abc import Callable

    from textual.screen import Screen

    from edge_tui.tui.prompt_reader import PromptReader
    from edge_tui.tui.screens.history import HistoryChoice
    from edge_tui.tui.workbench.duel_controller import DuelController
    from edge_tui.tui.workbench.lesson_controller import LessonController
    from edge_tui.tui.workbench.prompt_controller import PromptController
    from edge_tui.tui.workbench.run_controller import RunController
    from edge_tui.tui.workbench.strategy_controller import StrategyController
    from edge_tui.tui.workbench.view import WorkbenchView
    from edge_tui.tui.workbench.why_controller import WhyController


class WorkbenchDialogs:
    """Pushes dialogs over the workbench. Imports a dialog on its first use.

    Args:
        screen: The workbench.
        view: Its panes; takes the sentence where a dialog has nothing to show.
        prompts: Takes prompts.
        strategies: Takes strategies and presets.
        runs: Sends values to the run in progress.
        reader: Has the model read the prompt.
        why: Says why tokens were taken.
        reopen: Shows a stored run, or (True) runs it again.
    """

    def __init__(
        self,
        screen: Screen[None],
        view: WorkbenchView,
        prompts: PromptController,
        strategies: StrategyController,
        runs: RunController,
        reader: PromptReader,
        why: WhyController,
        reopen: Callable[[int, bool], object],
    ) -> None:
        self._screen = screen
        self._view = view
        self._prompts = prompts
        self._strategies = strategies
        self._reopen = reopen
        self._runs = runs
        self._reader = reader
        self._why = why
        self._chain = ChainEditor(strategies.run_params, strategies.switch, self._take_value)

    def _take_value(self, key: str) -> None:
        """Shows a value that a dialog has changed, and sends it to the run in progress."""
        self._view.parameters.reload()
        self._runs.send_value(key)

    def show_past_prompts(self) -> None:
        """Searches the prompts of earlier runs."""
        from edge_tui.tui.screens.prompts import PromptsScreen

        if services(self._screen).history() is None:
            sentence = "No history is kept; up and down in the prompt recall this session's."
            self._view.say(sentence, "warning")
        else:
            self._screen.app.push_screen(PromptsScreen(self._prompts.search), self._prompts.put)

    def show_files(self) -> None:
        """Chooses a file as the prompt."""
        from edge_tui.tui.screens.files import FilesScreen

        self._screen.app.push_screen(FilesScreen(), self._prompts.load)

    def show_read_prompt(self) -> None:
        """Shows the prompt as the model reads it."""
        from edge_tui.tui.screens.read_prompt import ReadPromptScreen

        self._reader.begin()
        self._screen.app.push_screen(ReadPromptScreen(self._reader))

    def show_strategies(self) -> None:
        """Chooses a strategy."""
        from edge_tui.tui.screens.strategies import StrategiesScreen

        strategies = self._strategies
        # A chain around a strategy is not listed.
        chosen = strategies.run_params.decoder.name.partition(AROUND)[0]
        screen = StrategiesScreen(strategies.decoders, chosen, strategies.refusals)
        self._screen.app.push_screen(screen, strategies.choose)

    def show_rivals(self, duels: DuelController) -> None:
        """Chooses the other strategy of a duel, and shows the two runs side by side."""
        from edge_tui.tui.screens.compare import CompareScreen
        from edge_tui.tui.screens.strategies import RivalsScreen

        strategies = self._strategies

        def begin(name: str | None) -> None:
            if name is not None and (runs := duels.begin(name)) is not None:
                self._screen.app.push_screen(CompareScreen(*runs, strategies.session, "duel"), duels.end)

        screen = RivalsScreen(strategies.decoders, "", strategies.refusals)
        self._screen.app.push_screen(screen, begin)

    def show_chain(self) -> None:
        """Edits the chain of the chosen strategy; the prompt runs again with another one."""
        from edge_tui.tui.screens.chain import ChainScreen

        strategies = self._strategies
        before = strategies.run_params.decoder
        self._screen.app.push_screen(ChainScreen(self._chain), lambda _: strategies.follow_choice(before))

    def show_explanation(self) -> None:
        """Turns parameters, and shows what becomes of the token under the cursor."""
        from edge_tui.tui.screens.explain import ExplainScreen

        view = self._view
        self._screen.app.push_screen(ExplainScreen(view.parameters.table, view.pane, self._why))

    def watch(self, token: int) -> None:
        """Asks for a text whose token is listed at every position, or takes a token off that list.

        Args:
            token: Id of the one that is taken off; −1 for none.
        """
        from edge_tui.tui.screens.watch import WatchScreen

        if token >= 0:
            self._why.unwatch(token)
            return

        def take(text: str | None) -> None:
            if text:
                self._why.watch(text)

        self._screen.app.push_screen(WatchScreen(tuple(self._why.watched.values())), take)

    def show_lessons(self, lessons: LessonController) -> None:
        """Chooses a lesson."""
        from edge_tui.tui.screens.lessons import Chosen, LessonsScreen

        def begin(chosen: Chosen | None) -> None:
            if chosen is not None:
                lessons.begin(*chosen)

        self._screen.app.push_screen(LessonsScreen(lessons.progress), begin)

    def show_presets(self) -> None:
        """Chooses a preset."""
        from edge_tui.tui.screens.presets import PresetsScreen

        self._screen.app.push_screen(PresetsScreen(), self._strategies.take_preset)

    def save_preset(self) -> None:
        """Asks for the name of a preset that holds the values of the next request."""
        from edge_tui.tui.screens.presets import NameScreen

        screen = NameScreen("save preset", self._strategies.describe_values())
        self._screen.app.push_screen(screen, self._strategies.save_preset)

    def show_history(self) -> None:
        """Chooses a stored run, to be shown or run again."""
        from edge_tui.tui.screens.history import HistoryScreen

        def take(choice: HistoryChoice | None) -> None:
            if choice is not None:
                self._reopen(choice.run, choice.action == "again")

        if (store := services(self._screen).history()) is None:
            recorder = self._strategies.session.recorder
            why = recorder.problem if recorder is not None else ""
            why = why or "No history is kept: keep = true under [history] in config.toml starts one."
            self._view.say(why, "warning")
            return
        titles = {decoder.name: decoder.title for decoder in self._strategies.decoders}
        self._screen.app.push_screen(HistoryScreen(store, titles, self._strategies.session), take)

    def show_settings(self) -> None:
        """Lists the settings, to be changed."""
        from edge_tui.tui.screens.settings import SettingsScreen

        self._screen.app.push_screen(SettingsScreen(services(self._screen).preferences()))
