"""Opens the dialogs that the whole app needs: models, themes, help, and two questions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from edge_tui.tui.actions import scopes_heard

if TYPE_CHECKING:
    from collections.abc import Callable

    from textual.app import App

    from edge_tui.config.settings import Settings
    from edge_tui.engine.events import Died
    from edge_tui.history.runs import Entry
    from edge_tui.tui.keymap import Keymap
    from edge_tui.tui.preferences import Preferences
    from edge_tui.tui.run_params import RunParams
    from edge_tui.tui.screens.models import ModelsScreen
    from edge_tui.tui.session import Session
    from edge_tui.tui.theme_switch import ThemeSwitch
    from edge_tui.tui.widgets.message_line import Kind


class Host(Protocol):
    """Lists what the dialogs ask of the app."""

    settings: Settings
    keymap: Keymap
    theme_switch: ThemeSwitch

    def preferences(self) -> Preferences:
        """Returns the settings as their screen lists and changes them."""

    def take_settings(self, settings: Settings, key: str) -> None:
        """Replaces the settings, of which the one named `key` has changed."""

    def say(self, message: str, kind: Kind = "info") -> None:
        """Puts a sentence on the message line."""


class Dialogs:
    """Pushes dialogs onto the app's screens and takes their answers. Imports a dialog on its first use.

    Args:
        app: The app, as Textual has it.
        host: The app, as the dialogs need it.
    """

    def __init__(self, app: App[int], host: Host) -> None:
        self._app = app
        self._host = host
        self._models: ModelsScreen | None = None

    @property
    def models(self) -> ModelsScreen | None:
        """The list of models, while it is open."""
        return self._models if self._models is not None and self._models.opened else None

    def show_models(self, session: Session, run_params: RunParams) -> None:
        """Shows the models; the list counts the memory of the strategy's rows."""
        from edge_tui.tui.screens.models import ModelsScreen

        self._models = ModelsScreen(session, self._host.settings, run_params)
        self._app.push_screen(self._models)

    def show_help(self) -> None:
        """Shows the keys that work where the user is, then the others."""
        from edge_tui.tui.screens.help import HelpScreen

        scopes = scopes_heard(self._app.screen.focused or self._app.screen)
        self._app.push_screen(HelpScreen(scopes, self._host.keymap.keys))

    def show_themes(self) -> None:
        """Shows the themes, each on the whole app while it is under the cursor."""
        from edge_tui.tui.screens.themes import ThemesScreen

        switch = self._host.theme_switch
        screen = ThemesScreen(switch.themes, self._host.settings.ui.theme, switch.choose)
        self._app.push_screen(screen, self._keep_theme)

    def _keep_theme(self, name: str | None) -> None:
        """Writes the chosen theme into the user's file, so that the next start has it too."""
        from edge_tui.config.writer import ConfigError

        if not name or name == self._host.settings.ui.theme:
            return
        preferences = self._host.preferences()
        say = self._host.say
        try:
            preferences.set("ui.theme", name)
        except (ConfigError, ValueError) as error:
            say(f"The theme holds until you leave: {error}", "warning")
            return
        self._host.take_settings(preferences.settings, "ui.theme")
        if source := preferences.winning_source("ui.theme"):
            say(f"The theme is kept, but {source} wins over your file.", "warning")
        else:
            say(f"The theme is kept in {preferences.settings.file}.", "good")

    def offer_interrupted(self, found: Entry, reopen: Callable[[int], object]) -> None:
        """Offers to open a run that a vanished process left unfinished."""
        from edge_tui.tui.screens.confirm import ConfirmScreen
        from edge_tui.tui.widgets.run_list import short_time

        def answer(yes: bool | None) -> None:
            if yes:
                reopen(found.id)

        facts = (short_time(found.created), found.strategy, f"{found.tokens:,} tokens kept", found.model)
        hint = "Opened, c goes on from its last token. It stays in the history either way."
        question = f"{' · '.join(facts)}\n\n{found.prompt}\n\n{hint}"
        self._app.push_screen(ConfirmScreen("a run was interrupted", question, "open it"), answer)

    def offer_restart(self, event: Died, restart: Callable[[], None]) -> None:
        """Offers another engine in place of one whose thread has ended."""
        from edge_tui.tui.screens.confirm import ConfirmScreen

        def answer(yes: bool | None) -> None:
            if yes:
                restart()

        question = f"{event.message}\n\nPrompt and tokens are kept."
        self._app.push_screen(ConfirmScreen("the engine stopped", question, "restart"), answer)
