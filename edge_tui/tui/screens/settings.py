"""Lists every setting, parameter and key with its source, and changes them in the user's file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.content import Content
from textual.widgets import Static

from edge_tui.config.writer import ConfigError
from edge_tui.tui.actions import bindings
from edge_tui.tui.screens.dialog import Dialog
from edge_tui.tui.screens.filter_list import FilterListScreen, Item
from edge_tui.tui.services import services
from edge_tui.tui.widgets.line_panel import pad
from edge_tui.util.formatting import clip
from edge_tui.util.sanitise import one_line

if TYPE_CHECKING:
    from collections.abc import Iterable

    from textual import events
    from textual.widget import Widget
    from textual.widgets import Input, OptionList

    from edge_tui.tui.preferences import Entry, Preferences

_KEY, _SOURCE = 36, 15
"""Cells of the first and last column."""


class KeyScreen(Dialog[str]):
    """Waits for one key and returns it; esc leaves, since no action can have it here."""

    heading = "a key of your own"
    hint = "esc leave"

    def __init__(self, action: str) -> None:
        super().__init__()
        self._action = action

    def content(self) -> Iterable[Widget]:
        """Yields the request for a key."""
        yield Static(Content(f"Press the key for “{self._action}”."))

    def on_key(self, event: events.Key) -> None:
        """Closes with the key."""
        event.stop()
        event.prevent_default()
        self.dismiss(None if event.key == "escape" else event.key)


class SettingsScreen(FilterListScreen[None]):
    """Lists settings; stays open while they change; esc leaves."""

    BINDINGS = bindings("settings")
    heading = "settings"
    hint = "↵ change · ←→ step · ^x default · esc leave"

    def __init__(self, preferences: Preferences) -> None:
        super().__init__()
        self._preferences = preferences
        self._entries: dict[str, Entry] = {}
        self._editing = ""
        self._query = ""
        self._message = ("", "", "")
        """Key, sentence and style of the last message."""

    # The list.

    def items(self) -> list[Item]:
        """Lists the settings with their values and sources."""
        room = max(self.options.size.width - _KEY - _SOURCE - 4, 12)
        self._entries = {entry.key: entry for entry in self._preferences.entries()}
        return [self._item(entry, room) for entry in self._entries.values()]

    @staticmethod
    def _item(entry: Entry, room: int) -> Item:
        own = entry.source != "default"
        shown = clip(one_line(entry.shown) or '""', room)
        source = clip(one_line(entry.source), _SOURCE) if own else ""
        content = Content.assemble(
            ("• " if own else "  ", "$accent"),
            (f"{clip(one_line(entry.key), _KEY):<{_KEY}} ", "bold" if own else ""),
            (pad(shown, room + 1), "$primary" if own else "$foreground"),
            (source, "$text-muted"),
        )
        # Of what help says, only what the key of an action is for is looked for.
        return Item(entry.key, entry.key, content, help=entry.help if entry.kind == "key" else "")

    def on_resize(self) -> None:
        """Lists the settings for the new width."""
        self.reload()

    def _filter(self, query: str) -> None:
        if self._editing:
            return
        self._query = query
        super()._filter(query)

    def on_option_list_option_highlighted(self, event: OptionList.OptionHighlighted) -> None:
        """Explains the setting under the cursor."""
        self._explain()

    def _explain(self) -> None:
        """Writes help, range and source of a setting, and the last message about it."""
        key = self._editing or self.highlighted
        if not key:
            self.about.update("Nothing matches.")
            return
        entry = self._entries[key]
        when = "" if entry.live else " · from the next start on"
        about, sentence, style = self._message
        facts = f"{entry.range} · {entry.source}{when}"
        self.about.update(
            Content.assemble(
                (one_line(entry.help) + "\n", "$foreground"),
                (one_line(facts) + "\n", "$text-muted"),
                (one_line(sentence) if about == key else "", style),
            )
        )

    # Changing.

    def choose(self, id: str) -> None:
        """Steps a value of few choices, asks for a key, or edits the value as text."""
        entry = self._entries[id]
        if entry.kind == "key":
            self._ask_key(id)
        elif entry.choices and len(entry.choices) <= 3:
            self.action_step(1)
        else:
            self._edit(entry)

    def _ask_key(self, id: str) -> None:
        def pressed(key: str | None) -> None:
            if key:
                self._write(id, key)

        self.app.push_screen(KeyScreen(id.removeprefix("keys.")), pressed)

    def _edit(self, entry: Entry) -> None:
        """Edits the value in the filter's line."""
        self._editing = entry.key
        field = self.field
        field.value = entry.shown
        field.placeholder = entry.range
        field.action_select_all()
        self.box.border_subtitle = "↵ keep · esc leave it as it was"
        self._explain()

    def _end_edit(self) -> None:
        self._editing = ""
        field = self.field
        field.placeholder = self.placeholder
        field.value = self._query
        self.box.border_subtitle = self.hint

    def on_input_changed(self, event: Input.Changed) -> None:
        """Checks the value that is typed; filters only where none is edited."""
        if not self._editing:
            return
        # The list's own handlers would take it for the filter's.
        event.prevent_default()
        event.stop()
        try:
            self._preferences.check(self._editing, event.value)
        except ValueError as error:
            self._message = (self._editing, str(error), "$error")
        else:
            self._message = ("", "", "")
        self._explain()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Writes the value that was typed."""
        if not self._editing:
            return
        event.prevent_default()
        event.stop()
        key = self._editing
        if self._write(key, event.value):
            self._end_edit()
            self.reload()

    def action_step(self, steps: int) -> None:
        """Steps the value under the cursor; moves in the field where a value is edited."""
        if self._editing:
            self.field.action_cursor_right() if steps > 0 else self.field.action_cursor_left()
        elif (text := self._preferences.step(self.highlighted, steps)) is not None:
            self._write(self.highlighted, text)

    def action_unset(self) -> None:
        """Removes the key from the user's file."""
        key = self.highlighted
        if key and not self._editing:
            self._write(key, None)

    def action_leave(self) -> None:
        """Ends the edit, or closes."""
        if self._editing:
            self._message = ("", "", "")
            self._end_edit()
            self._explain()
        else:
            super().action_leave()

    def _write(self, key: str, text: str | None) -> bool:
        """Writes a value, or (None) its default; False if it cannot be used."""
        preferences = self._preferences
        try:
            notices = preferences.unset(key) if text is None else preferences.set(key, text)
        except (ValueError, ConfigError) as error:
            self._message = (key, str(error), "$error")
            self._explain()
            self.app.bell()
            return False
        services(self).take_settings(preferences.settings, key)
        self._preferences = services(self).preferences()
        where = preferences.settings.file
        sentence, style = f"Kept in {where}." if text is not None else "The default holds again.", "$success"
        if source := preferences.winning_source(key):
            sentence, style = f"Kept in {where}, but {source} wins over it in this session.", "$warning"
        elif notices:
            sentence, style = str(notices[0]), "$warning"
        if not self._editing:
            # The list is written anew; the cursor stays where it was.
            at = self.options.highlighted
            self.reload()
            self.options.highlighted = at
        self._message = (key, sentence, style)
        self._explain()
        return True
