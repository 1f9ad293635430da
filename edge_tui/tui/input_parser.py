"""Splits a terminal's input into pastes, escape sequences and text before anything of it becomes a key.

Textual's parser knows what each sequence means, but takes whatever follows an Esc for part of one, also
inside a paste, and dies of numbers that it does not expect. So it is given one whole sequence at a time, and
never a paste. Both ends of a paste are found however the input is cut.
"""

from __future__ import annotations

import logging
import math
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from textual import constants, events
from textual._xterm_parser import XTermParser
from textual.message import Message

from edge_tui.tui.terminal import parse_reply

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator

START, END = "\x1b[200~", "\x1b[201~"
"""Brackets that a terminal puts around a paste."""
PASTE_PAUSE = 2.0
"""Seconds of silence inside a paste after which the text so far is posted."""
LONGEST_PASTE = 4_000_000
"""Most characters of a paste, so that one without an end cannot fill the memory."""
_TORN_SECONDS = 1.0
"""Seconds that the beginning of a sequence waits for its rest before a single key counts as one."""
_SEQUENCE = re.compile(
    r"\x1b(?:"
    r"\[(?:M[\s\S]{3}|\[[A-E]|\d{1,2}\$|[\x20-\x3f]{0,1024}[\x40-\x4c\x4e-\x5a\x5c-\x7e]|[\x20-\x3f]{1,1024}M)"
    r"|O[A-DFHMP-Sa-dj-y]"
    r"|\]\d{1,4};[^\x07\x1b]{0,4096}(?:\x07|\x1b\\)"
    r")"
)
_PARTIAL = re.compile(
    r"\x1b(?:\[(?:M[\s\S]{0,2}|\[|[\x20-\x3f]{0,1024})|O|\](?:\d{0,4}|\d{1,4};[^\x07\x1b]{0,4096}\x1b?))?\Z"
)
_CUT = re.compile(r"\x1b\[[\x20-\x3f]{1,1024}(?=[\x00-\x1f])")
"""The beginning of a sequence that something else interrupts."""
_MOST = 32
"""Characters of the longest sequence that Textual takes from its input; it makes keys of longer ones."""
_log = logging.getLogger(__name__)


@dataclass
class PasteOpen(Message):
    """Reports that a paste has paused without its end; the text so far was posted before."""


@dataclass
class PasteRefused(Message):
    """Reports a paste longer than `LONGEST_PASTE` characters, in place of its text."""

    length: int


class InputParser:
    """Turns decoded input into Textual's messages. Never raises.

    An Esc and what follows it are two keys unless both together are a sequence that terminals send. A
    sequence of which no sense can be made is left out.

    Args:
        clock: Seconds, from anywhere.
        is_bound: True for a key, such as "alt+x", that the user has given to an action. Most terminals send
            Esc and x for it, which then is no longer two keys.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        is_bound: Callable[[str], bool] | None = None,
    ) -> None:
        self._clock = clock
        self._is_bound = is_bound
        self._sequences = _SequenceParser()
        self._pending = ""
        self._emitted = 0
        """Characters at the beginning of `_pending` that have already become keys."""
        self._last = 0.0
        self._paste: list[str] | None = None
        self._tail = ""
        """End of a paste's text that may be the beginning of its closing bracket."""
        self._length = 0
        self._paused = False

    def feed(self, data: str) -> Iterator[Message]:
        """Parses input that has arrived; yields keys, pastes, mouse events and answers."""
        if not data:
            return
        now = self._clock()
        late, self._last = now - self._last > _TORN_SECONDS, now
        if self._paused and not END.startswith(self._tail + data) and _ends_paste(data):
            yield from self._end_paste()
        while data:
            if self._paste is not None:
                data = yield from self._take_paste(data)
            else:
                data = yield from self._take(data, late)
                late = False

    def tick(self) -> Iterator[Message]:
        """Ends pending input after a time: an Esc that nothing followed, a paste that has paused."""
        waited, pending = self._clock() - self._last, self._pending[self._emitted :]
        if self._paste is not None:
            if self._paused and self._tail == "\x1b" and waited >= constants.ESCAPE_DELAY:
                self._tail = ""
                yield from self._end_paste()
                yield from self._keys("\x1b")
            elif waited >= PASTE_PAUSE and not self._paused:
                self._paused = True
                yield from self._hand_on()
                yield PasteOpen()
        elif pending and waited >= self._timeout(len(pending)):
            # It may still be the beginning of a paste: the keys go out, but it is not forgotten.
            yield from self._keys(pending)
            self._emitted = len(self._pending)

    def _timeout(self, pending: int) -> float:
        """Computes the seconds after which pending characters become keys; a cut sequence never does."""
        if self._emitted:
            return constants.ESCAPE_DELAY if pending == 1 else _TORN_SECONDS
        return constants.ESCAPE_DELAY if pending <= 2 else math.inf

    def _take(self, data: str, late: bool) -> Generator[Message, None, str]:
        """Parses the input before the next paste; returns the input behind that paste's opening bracket."""
        pending, self._pending = self._pending, ""
        emitted, self._emitted = self._emitted, 0
        if emitted and not (START.startswith(pending + data) or (pending + data).startswith(START)):
            pending = pending[emitted:]
            emitted = 0
        elif late and len(pending) > 2 and len(data) == 1 and pending + data != START:
            pending = ""
        data = pending + data
        at = 0
        while at < len(data):
            escape = data.find("\x1b", at)
            if escape < 0:
                escape = len(data)
            yield from self._sequences.convert(data[at:escape])
            at = escape
            if data.startswith(START, at):
                self._paste, self._tail, self._length, self._paused = [], "", 0, False
                return data[at + len(START) :]
            if sequence := _SEQUENCE.match(data, at):
                yield from self._sequences.convert(sequence.group())
                at = sequence.end()
            elif _PARTIAL.match(data, at):
                self._pending, self._emitted = data[at:], emitted
                return ""
            elif cut := _CUT.match(data, at):
                at = cut.end()
            elif at < len(data):
                yield from (alt := self._alt(data[at + 1 : at + 2])) or self._keys("\x1b")
                at += 2 if alt else 1
        return ""

    def _keys(self, text: str) -> Iterator[Message]:
        """Yields keys of which none is part of a sequence."""
        for character in text:
            if character == "\x1b":
                yield events.Key("escape", character)
            else:
                yield from self._sequences.convert(character)

    def _alt(self, character: str) -> list[events.Key]:
        """Builds the key of alt and a letter or digit, if the user has bound it."""
        if self._is_bound is None or not character.isascii() or not character.isalnum():
            return []
        key = f"alt+shift+{character.lower()}" if character.isupper() else f"alt+{character}"
        return [events.Key(key, None)] if self._is_bound(key) else []

    # Pastes.

    def _take_paste(self, data: str) -> Generator[Message, None, str]:
        """Gathers a paste; returns the input behind its closing bracket."""
        data = self._tail + data
        end = data.find(END)
        if end < 0:
            self._tail = _partial_end(data)
            self._gather(data[: len(data) - len(self._tail)])
            self._paused = self._paused and data == "\x1b"
            return ""
        self._tail = ""
        self._gather(data[:end])
        yield from self._end_paste()
        return data[end + len(END) :]

    def _gather(self, text: str) -> None:
        self._length += len(text)
        if self._paste is not None:
            self._paste.append(text)
            if self._length > LONGEST_PASTE:
                self._paste.clear()

    def _hand_on(self) -> Iterator[Message]:
        """Yields the text of the paste since the last call."""
        gathered, self._paste = self._paste, []
        if self._length <= LONGEST_PASTE:
            self._length = 0
            if text := "".join(gathered or ()):
                yield events.Paste(text)

    def _end_paste(self) -> Iterator[Message]:
        if self._tail:
            self._gather(self._tail)
            self._tail = ""
        yield from self._hand_on()
        self._paste, self._paused = None, False
        if self._length > LONGEST_PASTE:
            yield PasteRefused(self._length)


class _SequenceParser(XTermParser):
    """Runs Textual's parser on one sequence at a time, and survives its errors."""

    def convert(self, data: str) -> Iterable[Message]:
        """Converts one whole sequence, or a text without any, to messages."""
        if not data:
            return ()
        if (answer := parse_reply(data)) is not None:
            return answer
        if data.startswith("\x1b]"):
            return ()
        long = data.startswith("\x1b") and len(data) > _MOST
        try:
            # A long one can only be the text that an input method has composed.
            found = list(self._sequence_to_key_events(data) if long else self.feed(data))
        except Exception:
            # Numbers out of every range, kinds of key events that were not asked for.
            _log.debug("not understood: %r", data, exc_info=True)
            found = []
            self._restart()
        if self._awaiting.timeout is not None:
            self._restart()
        return [each for each in found if not _is_broken(each)]

    def _restart(self) -> None:
        """Resets the parser after an unknown sequence, but not the terminal's modes."""
        self._tokens.clear()
        self._gen = self.parse(self._tokens.append)
        self._awaiting = next(self._gen)
        self._timeout_time = None


def _is_broken(message: Message) -> bool:
    """Tells whether a message is a key for half a character, which no encoding can write."""
    return (
        isinstance(message, events.Key)
        and message.character is not None
        and any("\ud800" <= each <= "\udfff" for each in message.character)
    )


def _ends_paste(data: str) -> bool:
    """Tells whether an input ends a paste that has paused: a lone key or click, or another paste.

    A terminal sends the rest of a paste in larger pieces than a person types.
    """
    return len(data) == 1 or _SEQUENCE.fullmatch(data) is not None or data.startswith(START)


def _partial_end(data: str) -> str:
    """Returns the longest end of a text that may be the beginning of a paste's closing bracket."""
    for length in range(min(len(END) - 1, len(data)), 0, -1):
        if data.endswith(END[:length]):
            return data[-length:]
    return ""
