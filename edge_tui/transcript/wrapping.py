"""Makes display text of tokens, wraps it to lines as it grows, and finds the token at a cell.

Plain data, no widget. A line is stored as the place where it starts, so a transcript of 100,000 tokens
costs eight bytes a line beside its text; the pieces of a line are worked out when it is drawn.
"""

from __future__ import annotations

import re
from array import array
from bisect import bisect_left
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple

from rich.cells import cell_len, split_graphemes

from edge_tui.util.sanitise import PICTOGRAPH, sanitise

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

TAB = 4
"""Cells of a tab, the same everywhere on a line."""
_ZWJ = "\u200d"
_PICTOGRAPH = re.compile(f"[{PICTOGRAPH}]")
_TONES = "\U0001f3fb\U0001f3fc\U0001f3fd\U0001f3fe\U0001f3ff"
_FLAG = re.compile("[\U0001f1e6-\U0001f1ff]+$")
_PARTS = re.compile(r"\n|\t| +|[^\n\t ]+")
_LONGEST_CLUSTER = 32
"""Code points on one cell; the display leaves out any more."""


class Piece(NamedTuple):
    """Describes the part of one token that lies on one line."""

    token: int
    text: str
    """Text to draw; tabs are still tabs."""
    newline: bool
    """True where the token ends the line here."""

    @property
    def cells(self) -> int:
        """Width on the screen."""
        return cell_len(self.text.replace("\t", " " * TAB))


class TokenText:
    """Holds the display text of tokens, cut so that no character on the screen belongs to two of them.

    A combining mark, a variation selector or the second half of a flag that arrives as a token of its own
    is drawn with the character that it changes, and belongs to the token that began it.
    """

    def __init__(self) -> None:
        self.display: list[str] = []
        self._joins: list[tuple[int, int, int]] = []
        self._dangling: set[int] = set()
        self._last = -1

    def __len__(self) -> int:
        return len(self.display)

    def extend(self, raws: Iterable[str]) -> int:
        """Adds tokens; returns the first index whose display text is new or changed."""
        display = self.display
        first = len(display)
        for raw in raws:
            if raw.isascii() and raw.isprintable():
                if raw:
                    self._last = len(display)
                elif display and len(display) - 1 in self._dangling:
                    self._dangling.add(len(display))
                display.append(raw)
            else:
                first = min(first, self._add(raw))
        return first

    def truncate(self, count: int) -> int:
        """Keeps the first `count` tokens; returns the first index whose display text is gone or changed."""
        first = count
        while self._joins and self._joins[-1][0] >= count:
            _, owner, length = self._joins.pop()
            self.display[owner] = self.display[owner][:length]
            first = min(first, owner)
        del self.display[count:]
        self._dangling = {i for i in self._dangling if i < count}
        self._last = next((i for i in range(count - 1, -1, -1) if self.display[i]), -1)
        return first

    def _add(self, raw: str) -> int:
        """Adds the display text of one token."""
        index = len(self.display)
        # A joiner or a tone makes sense only beside its emoji, which may be in the token before.
        rest = raw.lstrip(_ZWJ + _TONES)
        text = _normal(raw[: len(raw) - len(rest)] + sanitise(rest, tab="\t"))
        pending = index - 1 in self._dangling
        if raw.endswith(_ZWJ) or (pending and not text):
            self._dangling.add(index)
            text = text.removesuffix(_ZWJ)
        before = self.display[self._last] if self._last >= 0 else ""
        head, text = _split_head(before, text, pending)
        first = index
        if head and len(head) + _cluster_length(before) <= _LONGEST_CLUSTER:
            self._joins.append((index, self._last, len(before)))
            self.display[self._last] = before + head
            first = self._last
        self.display.append(text)
        if text:
            self._last = index
        return first


def _split_head(before: str, text: str, pending: bool) -> tuple[str, str]:
    """Divides `text` into the part that changes the last character of `before`, and the rest."""
    if text.startswith(_ZWJ) or pending:
        text = text.lstrip(_ZWJ)
        if _PICTOGRAPH.match(text) and before and _PICTOGRAPH.match(before[-1]):
            end = _cluster_end(text, 1)
            return _ZWJ + text[:end], text[end:]
    flag = _FLAG.search(before)
    if flag and len(flag.group()) % 2 and _FLAG.match(text[:1]):
        return text[0], text[1:]
    end = _cluster_end(text, 0)
    orphan = not before or before[-1] in " \n\t" or (text[:1] in _TONES and not _PICTOGRAPH.match(before[-1]))
    if end and orphan:
        return "", "◌" + text[:end].strip(_TONES + _ZWJ) + text[end:]
    return text[:end], text[end:]


def _normal(text: str) -> str:
    """Gives marks without a character a place to stand, and cuts piles of them."""

    def mend(match: re.Match[str]) -> str:
        word = match.group()
        if word.isascii():
            return word
        if match.start() and _zero_width(word):
            word = "◌" + word.lstrip(_TONES)
        return "".join(cluster[:_LONGEST_CLUSTER] for cluster, _ in clusters(word))

    return _PARTS.sub(mend, text)


def _zero_width(text: str) -> int:
    """Counts leading characters that add no cell of their own."""
    end = 0
    while end < len(text) and text[end] not in "\n\t" and cell_len(text[end]) == 0:
        end += 1
    return end


def _cluster_end(text: str, end: int) -> int:
    """Finds the end of the character that goes on at `end`: marks belong to it, and emoji after a joiner."""
    while step := _zero_width(text[end:]):
        end += step
        if text[end - 1] == _ZWJ and _PICTOGRAPH.match(text[end:]):
            end += 1
    return end


def _cluster_length(text: str) -> int:
    length = 0
    while length < min(len(text), _LONGEST_CLUSTER) and cell_len(text[-1 - length]) == 0:
        length += 1
    return length + 1


def clusters(text: str) -> Iterator[tuple[str, int]]:
    """Splits a text into characters as the terminal draws them, with their cells; flags stay whole."""
    half = ""
    for start, end, cells in split_graphemes(text)[0]:
        cluster = text[start:end]
        is_flag = "\U0001f1e6" <= cluster[0] <= "\U0001f1ff"
        if half and is_flag:
            cluster, half, is_flag = half + cluster, "", False
            cells = cell_len(cluster)
        elif half:
            yield half, cell_len(half)
            half = ""
        if is_flag:
            half = cluster
        else:
            yield cluster, cells
    if half:
        yield half, cell_len(half)


class Wrap:
    """Finds the places where lines start, for one width.

    Breaks after spaces and around wide characters, else in the middle of a word. One space may hang over
    in the column after the last (`width` + 1), which the owner keeps free. Feeding tokens one by one gives
    the same lines as feeding them at once.

    Args:
        width: Cells of a line.
    """

    def __init__(self, width: int) -> None:
        self.width = max(width, 1)
        self._tokens = array("i", [0])
        self._chars = array("i", [0])
        self._next = (0, 0)
        self._begin()

    def __len__(self) -> int:
        return len(self._tokens)

    @property
    def wrapped_count(self) -> int:
        """Tokens that are wrapped so far."""
        return self._next[0]

    def feed(self, display: Sequence[str], budget: float | None = None) -> bool:
        """Wraps the texts that are new in `display`.

        Args:
            display: Display texts of all tokens (`TokenText.display`).
            budget: Seconds after which to stop.

        Returns:
            True if everything is wrapped.
        """
        deadline = None if budget is None else monotonic() + budget
        first, char = self._next
        for token in range(first, len(display)):
            if text := display[token]:
                self._feed(token, text, char)
            char = 0
            if deadline is not None and not token & 255 and monotonic() > deadline:
                self._next = (token + 1, 0)
                return token + 1 == len(display)
        self._next = (len(display), 0)
        return True

    def truncate(self, count: int) -> int:
        """Forgets all but the first `count` tokens; returns the first line that may now differ."""
        if count >= self.wrapped_count:
            return len(self) - 1
        # The word that ended a line may have begun on the one before: one line more has to be wrapped again.
        line = max(self.line_of(count) - 1, 0)
        del self._tokens[line + 1 :], self._chars[line + 1 :]
        self._next = (self._tokens[line], self._chars[line])
        self._begin()
        return line

    def line_of(self, token: int) -> int:
        """Finds the line on which a token begins."""
        line = bisect_left(self._tokens, token)
        if line < len(self._tokens) and self._tokens[line] == token and self._chars[line] == 0:
            return line
        return max(line - 1, 0)

    def pieces(self, display: Sequence[str], line: int) -> list[Piece]:
        """Lists the pieces of a line, left to right. Tokens that draw nothing have none."""
        token, char = self._tokens[line], self._chars[line]
        if line + 1 < len(self._tokens):
            last, stop = self._tokens[line + 1], self._chars[line + 1]
        else:
            last, stop = self.wrapped_count, 0
        found: list[Piece] = []
        while token < last or (token == last and char < stop):
            text = display[token][char : stop if token == last else None]
            if text:
                newline = text.endswith("\n")
                found.append(Piece(token, text[:-1] if newline else text, newline))
            token, char = token + 1, 0
        return found

    def hit(self, display: Sequence[str], line: int, x: int) -> int | None:
        """Finds the token that owns a cell; right of the text it is the last token of the line."""
        if not 0 <= line < len(self):
            return None
        pieces = self.pieces(display, line)
        for piece in pieces:
            x -= piece.cells
            if x < 0:
                return piece.token
        return pieces[-1].token if pieces else None

    def _begin(self) -> None:
        self._x = 0
        self._has_text = False
        self._break: tuple[int, int, int] | None = None

    def _line(self, token: int, char: int) -> None:
        self._tokens.append(token)
        self._chars.append(char)
        self._begin()

    def _feed(self, token: int, text: str, start: int) -> None:
        """Wraps one token."""
        for part in _PARTS.finditer(text, start):
            word = part.group()
            at = part.start()
            if word == "\n":
                self._line(token, at + 1)
            elif word == "\t":
                self._space(token, at, TAB)
            elif word[0] == " ":
                for i in range(len(word)):
                    self._space(token, at + i, 1)
            elif word.isascii():
                self._word(token, at, len(word))
            else:
                for cluster, cells in clusters(word):
                    self._cluster(token, at, len(cluster), cells)
                    at += len(cluster)

    def _space(self, token: int, at: int, cells: int) -> None:
        if self._x and self._x + cells > self.width + 1:
            self._line(token, at)
        self._x += cells
        if self._has_text:
            self._break = (token, at + 1, self._x)

    def _word(self, token: int, at: int, cells: int) -> None:
        """Adds a run of narrow characters."""
        if self._x + cells > self.width and self._break is not None:
            self._take_break()
        while self._x + cells > self.width:
            fits = max(self.width - self._x, 0)
            at, cells = at + fits, cells - fits
            self._line(token, at)
        self._x += cells
        self._has_text = True

    def _cluster(self, token: int, at: int, length: int, cells: int) -> None:
        if cells > 1 and self._has_text:
            self._break = (token, at, self._x)
        if self._x + cells > self.width and self._x:
            if self._break is not None:
                self._take_break()
            if self._x + cells > self.width and self._x:
                self._line(token, at)
        self._x += cells
        self._has_text = True
        if cells > 1:
            self._break = (token, at + length, self._x)

    def _take_break(self) -> None:
        assert self._break is not None
        token, char, x = self._break
        rest = self._x - x
        self._line(token, char)
        self._x, self._has_text = rest, rest > 0
