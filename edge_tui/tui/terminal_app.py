"""Adapts Textual's app to terminals: driver, input queue, line filters and clipboard."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, cast

from textual import events
from textual.app import App

from edge_tui.tui import ascii_filter, clipboard, pastes, theme
from edge_tui.tui.control_filter import CONTROLS
from edge_tui.tui.key_queue import Follower, KeyQueue
from edge_tui.tui.keymap import Keymap

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from textual.driver import Driver
    from textual.filter import LineFilter

    from edge_tui.tui.terminal import ClipboardReply


class TerminalApp(App[int]):
    """Reads input through our own driver and queue, and paints through our own filters.

    Args:
        ascii_only: True paints marks as ASCII.
    """

    def __init__(self, ascii_only: bool) -> None:
        super().__init__()
        self.ascii = ascii_only
        self._clipboard_reply: bool | None = None
        self.keymap = Keymap({})
        self.keys_typed = 0
        """Number of keys and pastes that came from the terminal."""
        self.key_queue = KeyQueue(cast("App[object]", self), super().on_event)

    def get_driver_class(self) -> type[Driver]:
        """Replaces Textual's driver for POSIX terminals by the one that also queries them."""
        default = super().get_driver_class()
        if default.__name__ != "LinuxDriver":
            return default
        from edge_tui.tui.driver import TerminalDriver

        return TerminalDriver

    def get_line_filters(self) -> Sequence[LineFilter]:
        """Adds the filter of control characters, and with the ASCII setting the one of marks."""
        filters = [*super().get_line_filters(), CONTROLS]
        return [*filters, ascii_filter.EVERYWHERE] if self.ascii else filters

    def get_theme_variable_defaults(self) -> dict[str, str]:
        """Adds the ladder of probabilities, and the variables that Textual lacks in ANSI themes."""
        ansi = dict.fromkeys(("ansi-background", "ansi-foreground"), "ansi_default")
        return {**theme.FALLBACK.variables, **ansi}

    @property
    def gathering(self) -> bool:
        """True while changes are gathered, to be painted together."""
        return self._batch_count > 0

    @property
    def exiting(self) -> bool:
        """True once the user, a signal or a test has ended the app."""
        return self._exit

    # Input.

    async def on_event(self, event: events.Event) -> None:
        """Queues keys and pastes, so that each takes effect before the next; drops them without a screen."""
        if isinstance(event, (events.InputEvent, events.Paste)) and not self.screen_stack:
            return
        if isinstance(event, (events.Key, events.Paste)) and not event.is_forwarded:
            self.keys_typed += 1
            if isinstance(event, events.Paste):
                self.app_focus = True  # a terminal may paste while another one has the focus
                event.text = pastes.clean(event.text)
            await self.key_queue.take(event)
        else:
            await super().on_event(event)

    def is_bound(self, key: str) -> bool:
        """Tells whether the user has bound a key to an action."""
        return any(key in keys.split(",") for keys in self.keymap.keys.values())

    def press(self, key: str, character: str | None) -> None:
        """Presses a key for the user."""
        self.call_later(self.key_queue.take, events.Key(key, character))

    def on_follower(self, event: Follower) -> None:
        """Tells the queue that its key has reached the app."""
        if self.screen_stack:
            self.key_queue.advance(event)

    # The clipboard.

    def on_clipboard_reply(self, event: ClipboardReply) -> None:
        """Notes what the terminal says of its clipboard."""
        self._clipboard_reply = event.supported

    def copy_to_clipboard(self, text: str) -> None:
        """Sends a text to the clipboard of the user's own machine."""
        self._clipboard = text
        if self._driver is not None:
            self._driver.write(clipboard.sequence(text, os.environ))

    def clipboard_support(self) -> clipboard.Clipboard:
        """Judges the way to the user's clipboard."""
        return clipboard.support(os.environ, self._clipboard_reply)

    # Lending the terminal.

    @contextlib.contextmanager
    def suspend(self) -> Iterator[None]:
        """Lends the terminal, and takes it back after an exception too, which Textual does not."""
        problem: Exception | None = None
        with super().suspend():
            try:
                yield
            except Exception as error:
                problem = error
        if problem is not None:
            raise problem
