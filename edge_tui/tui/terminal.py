"""Queries the terminal and parses its answers: brightness, clipboard, width of marks.

Three questions go out when the app takes the screen, and a terminal that knows them answers in its own time:
the colour of its background (OSC 11), its attributes (DA1), in which 52 stands for a clipboard, and where the
cursor is after a line of one cell, which East Asian settings make two cells wide. One that changes between
light and dark later says so (mode 2031). No answer is waited for.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from textual.message import Message

if TYPE_CHECKING:
    from collections.abc import Mapping

QUERIES = "\x1b]11;?\x1b\\\x1b[c\x1b[2;1H─\x1b[6n"
WATCH, UNWATCH = "\x1b[?2031h", "\x1b[?2031l"
"""Begin and end reports of changes between light and dark."""
_REPLY = re.compile(
    r"\x1b\]11;(?:rgba?:(?P<red>[0-9a-f]{1,4})/(?P<green>[0-9a-f]{1,4})/(?P<blue>[0-9a-f]{1,4})[^\x07\x1b]*)?"
    r"(?:\x07|\x1b\\)"
    r"|\x1b\[\?(?P<attributes>[\d;]*)c"
    r"|\x1b\[\?997;(?P<scheme>[12])n"
    # In the second line, because in the first it would be what shift+f3 sends.
    r"|\x1b\[2;(?P<column>[23])R",
    re.IGNORECASE,
)
_CLIPBOARD = "52"
_DUMB = ("dumb", "linux", "vt", "ansi", "cygwin", "sun")


@dataclass
class BackgroundReply(Message):
    """Reports the terminal's brightness, or a change of it."""

    dark: bool


@dataclass
class ClipboardReply(Message):
    """Reports the terminal's attributes."""

    supported: bool
    """True where it reports that programs may write its clipboard; many can without reporting it."""


@dataclass
class WidthReply(Message):
    """Reports the width in which the terminal draws a line's character."""

    wide: bool


def parse_reply(sequence: str) -> list[Message] | None:
    """Parses a terminal's answer into messages; None for any other sequence."""
    found = _REPLY.fullmatch(sequence)
    if found is None:
        return None
    messages: list[Message] = []
    if found["red"] is not None:
        messages.append(BackgroundReply(_dark(found["red"], found["green"], found["blue"])))
    if found["attributes"] is not None:
        messages.append(ClipboardReply(_CLIPBOARD in found["attributes"].split(";")))
    if found["column"] is not None:
        messages.append(WidthReply(found["column"] == "3"))
    if found["scheme"] is not None:
        messages.append(BackgroundReply(found["scheme"] == "1"))
    return messages


def _dark(*channels: str) -> bool:
    """Tells whether a colour is nearer to black, as eyes see it; channels are hexadecimal, 1–4 digits."""
    red, green, blue = (int(channel, 16) / (16 ** len(channel) - 1) for channel in channels)
    return bool(0.2126 * red + 0.7152 * green + 0.0722 * blue < 0.5)


def ignores_unknown_queries(env: Mapping[str, str]) -> bool:
    """Tells whether a terminal ignores queries that it does not understand."""
    return not env.get("TERM", "dumb").startswith(_DUMB)


def guess_dark(env: Mapping[str, str]) -> bool:
    """Guesses the brightness before the terminal has answered: by COLORFGBG, else dark."""
    background = env.get("COLORFGBG", "").rpartition(";")[2]
    return not (background.isdigit() and int(background) in (7, *range(9, 16)))


def wants_ascii(env: Mapping[str, str]) -> bool:
    """Tells whether a terminal is known to lack lines and blocks; others are asked for their width."""
    return env.get("TERM", "").startswith(_DUMB)
