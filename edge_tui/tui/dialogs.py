"""Opens the dialogs that the whole app needs: models, settings, themes, help, and two questions."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from edge_tui.tui.actions import INNER, SCOPES, scope_of

if TYPE_CHECKING:
    from textual.app import App

    from edge_tui.engine.events import Died
    from edge_tui.history.runs import Entry
    from edge_tui.tui.actions import Scope
    from edge_tui.tui.screens.models import ModelsScreen
    from edge_tui.tui.services import Services


class Dialogs:
    """Pushes dialogs onto the app's screens and takes their answers. Imports a dialog on its first use.

    Args:
        app: The app.
    """

    def __init__(self, app: App[int]) -> None:
        self._app = app
        self._services = cast("Services", app)
        self._models: ModelsScreen | None = None

    @property
    def models(self) -> ModelsScreen | None:
        """The list of models, while it is open."""
        return self._models if self._models is not None and self._models.opened else None

    def show_models(self) -> None:
        from edge_tui.tui.screens.models import ModelsScreen

        workbench = self._services.workbench
        self._models = ModelsScreen(workbench.session, self._services.settings, workbench.run_params)
        self._app.push_screen(self._models)

    def show_help(self) -> None:
        """Shows the keys that work where the user is, then the others."""
        from edge_tui.tui.screens.help import HelpScreen

        scopes: list[Scope] = []
        for node in (self._app.screen.focused or self._app.screen).ancestors_with_self:
            bound = [each for found in node._bindings.key_to_bindings.values() for each in found]
            # A list's own keys come before those that all lists have.
            scopes += sorted(filter(SCOPES.__contains__, map(scope_of, bound)), key=INNER.__contains__)
        self._app.push_screen(HelpScreen(list(dict.fromkeys(scopes)), self._services.keymap.keys))

    def show_settings(self) -> None:
        from edge_tui.tui.screens.settings import SettingsScreen

        self._app.push_screen(SettingsScreen(self._services.preferences()))

    def show_themes(self) -> None:
        from edge_tui.tui.screens.themes import ThemesScreen

        switch = self._services.theme_switch
        screen = ThemesScreen(switch.themes, self._services.settings.ui.theme, switch.choose)
        self._app.push_screen(screen, self._keep_theme)

    def _keep_theme(self, name: str | None) -> None:
        """Writes the chosen theme into the user's file, so that the next start has it too."""
        from edge_tui.config.writer import ConfigError

        if not name or name == self._services.settings.ui.theme:
            return
        preferences = self._services.preferences()
        say = self._services.workbench.say
        try:
            preferences.set("ui.theme", name)
        except (ConfigError, ValueError) as error:
            say(f"The theme holds until you leave: {error}", "warning")
            return
        self._services.take_settings(preferences.settings, "ui.theme")
        if source := preferences.outranked("ui.theme"):
            say(f"The theme is kept, but {source} wins over your file.", "warning")
        else:
            say(f"The theme is kept in {preferences.settings.file}.", "good")

    def offer_interrupted(self, found: Entry) -> None:
        """Offers to open a run that a vanished process left unfinished."""
        from edge_tui.tui.screens.confirm import ConfirmScreen
        from edge_tui.tui.widgets.run_list import short_time

        def answer(yes: bool | None) -> None:
            if yes:
                self._services.workbench.reopen(found.id)

        facts = (short_time(found.created), found.strategy, f"{found.tokens:,} tokens kept", found.model)
        hint = "Opened, c goes on from its last token. It stays in the history either way."
        question = f"{' · '.join(facts)}\n\n{found.prompt}\n\n{hint}"
        self._app.push_screen(ConfirmScreen("a run was interrupted", question, "open it"), answer)

    def offer_restart(self, event: Died) -> None:
        """Offers another engine in place of one whose thread has ended."""
        from edge_tui.tui.screens.confirm import ConfirmScreen

        self._services.workbench.say(event.message, "error")

        def answer(yes: bool | None) -> None:
            if yes:
                self._services.start_engine()

        question = f"{event.message}\n\nPrompt and tokens are kept."
        self._app.push_screen(ConfirmScreen("the engine stopped", question, "restart"), answer)
