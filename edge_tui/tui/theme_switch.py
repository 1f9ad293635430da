"""Switches the app between its themes, and takes over themes whose files have changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_tui.tui import theme

if TYPE_CHECKING:
    from textual.app import App

    from edge_tui.tui.theme import Themes


class ThemeSwitch:
    """Registers the themes with the app and shows one of them.

    Args:
        app: The app.
        themes: The themes.
        dark: True if the terminal is dark, as far as its environment tells.
    """

    def __init__(self, app: App[int], themes: Themes, dark: bool) -> None:
        self._app = app
        self._dark = dark
        self.themes = themes
        self._register()

    def _register(self) -> None:
        for each in self.themes.themes.values():
            self._app.register_theme(each)

    @property
    def names(self) -> list[str]:
        """Names that the settings take."""
        return [theme.AUTO, *self.themes.themes]

    def choose(self, name: str) -> None:
        """Shows a theme, or the default one where there is none of that name."""
        if name == theme.AUTO:
            name = theme.DEFAULT if self._dark else theme.LIGHT
        self._app.theme = name if name in self.themes.themes else theme.DEFAULT

    def set_dark(self, dark: bool, name: str) -> None:
        """Takes the terminal's word for its brightness; the theme `name` may follow from it."""
        self._dark = dark
        if name == theme.AUTO:
            self.choose(name)

    def reload(self, themes: Themes) -> None:
        """Replaces the themes, and paints anew: the theme in use may have changed under its name."""
        app, before, self.themes = self._app, self.themes, themes
        self._register()
        removed = [name for name in before.themes if name not in themes.themes]
        if app.theme in removed:
            app.theme = theme.DEFAULT
        for name in removed:
            app.unregister_theme(name)
        app.refresh_css(animate=False)
        app.theme_changed_signal.publish(app.current_theme)
