"""Queues keys that arrive together, so that each takes effect before the next.

A slow line delivers what was typed during a stall in one piece. Textual hands each key to whatever has the
focus when it arrives, before the key in front of it has moved that: `e` and then an arrow would turn no
parameter, but move through the tokens. So a key waits here until the one before it has had its effect.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import TYPE_CHECKING

from textual.events import Key, Paste
from textual.message import Message
from textual.widgets import Input, TextArea

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from textual.app import App
    from textual.message_pump import MessagePump
    from textual.timer import Timer

PASSES = 2
"""Rounds of a follower: a key's action may post a message, whose effect ends with the second round."""
REPEATABLE = frozenset(("left", "right", "up", "down", "pageup", "pagedown", "backspace", "delete", *"hjkl"))
"""Keys that users hold down; they need not wait for the screen while the focus stays."""
TIMEOUT = 1.0
"""Seconds after which a key no longer waits: a widget that is removed takes the follower with it."""


class Follower(Message, verbose=True):
    """Follows a key from the focus up to the app, right behind it."""

    def __init__(self, number: int, pass_number: int) -> None:
        super().__init__()
        self.number = number
        self.pass_number = pass_number


class KeyQueue:
    """Holds keys until the one before them has taken effect.

    Args:
        app: The app, which passes every `Follower` that reaches it to `advance`.
        hand_on: Gives a key, or a paste, to Textual.
    """

    def __init__(self, app: App[object], hand_on: Callable[[Key | Paste], Awaitable[None]]) -> None:
        self._app = app
        self._hand_on = hand_on
        self._waiting: deque[Key | Paste] = deque()
        self._number = 0
        self._key = ""
        self._printable = False
        self._target: MessagePump | None = None
        self.busy = False
        """True while a key has not taken effect yet."""
        self._timeout: Timer | None = None

    async def take(self, event: Key | Paste) -> None:
        """Passes a key or a paste to Textual, now or in its turn."""
        if self.busy:
            self._waiting.append(event)
            self._start_timeout()
            return
        target = self._receiver
        await self._hand_on(event)
        if not event.is_forwarded:
            target = self._receiver  # a binding with priority took it, and may have closed a screen
        elif isinstance(target, TextArea) and _is_text(event):
            return  # what is typed moves nothing: a paste that is not bracketed goes through at full speed
        self._number += 1
        self._key, self._printable = (
            (event.key, event.is_printable) if isinstance(event, Key) else ("", False)
        )
        self._target, self.busy = target, True
        if not target.post_message(Follower(self._number, 1)):
            self._app.call_later(self._next, self._number)

    def advance(self, follower: Follower) -> None:
        """Notes that a follower has reached the app, so that its key has taken effect."""
        if follower.number != self._number:
            return
        if self._repeats() and self._receiver is self._target:
            self._app.call_later(self._next, follower.number)
        elif follower.pass_number < PASSES:
            self._app.call_later(self._follow, follower.number, follower.pass_number + 1)
        else:
            # A screen that was just opened takes its focus with its first refresh.
            self._receiver.call_after_refresh(self._app.call_later, self._next, follower.number)

    def _repeats(self) -> bool:
        """Tells whether the next key repeats this one, held down or typed into a line."""
        following = self._waiting[0] if self._waiting else None
        if not isinstance(following, Key):
            return False
        if isinstance(self._target, Input) and self._printable:
            return following.is_printable
        return following.key == self._key and self._key in REPEATABLE

    @property
    def _receiver(self) -> MessagePump:
        """The target of the next key; without a screen, the app."""
        return (self._app.focused or self._app.screen) if self._app.screen_stack else self._app

    def _follow(self, number: int, pass_number: int) -> None:
        if number == self._number and not self._receiver.post_message(Follower(number, pass_number)):
            self._app.call_later(self._next, number)

    async def _next(self, number: int) -> None:
        if number != self._number or not self.busy or not self._app.screen_stack:
            return
        self.busy = False
        if self._timeout is not None:
            self._timeout.stop()
            self._timeout = None
        while self._waiting and not self.busy:
            await self.take(self._waiting.popleft())
        if self._waiting:
            self._start_timeout()

    def _start_timeout(self) -> None:
        if self._timeout is None:
            self._timeout = self._app.set_timer(TIMEOUT, partial(self._next, self._number))


def _is_text(event: Key | Paste) -> bool:
    """Tells whether a text area merely inserts it."""
    return isinstance(event, Paste) or event.is_printable or event.key == "enter"
