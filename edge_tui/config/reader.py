"""Parses a TOML file that people write by hand: values, the line of each key, and what is wrong with it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edge_tui.util import user_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

TEMPLATE = "template."
"""Path under which the chat template's variables stand."""
_PART = r"""(?:[A-Za-z0-9_-]+|"[^"\n]*"|'[^'\n]*')"""
_KEY = rf"{_PART}(?:\s*\.\s*{_PART})*"
_TABLE_LINE = re.compile(rf"^\s*\[\s*({_KEY})\s*\]")
_KEY_LINE = re.compile(rf"^\s*({_KEY})\s*=")


@dataclass(frozen=True, slots=True)
class Notice:
    """Tells the user something about a setting. `str(notice)` is the whole sentence.

    Attributes:
        message: The fault, and what was done instead.
        origin: Place of the value: a file's path, an environment variable, a flag.
        line: 1-based line in the file, 0 where it has none.
        key: Dotted path of the setting, "" where the file as a whole is meant.
        column: 1-based column of the key in that line, 0 where it has none.
    """

    message: str
    origin: str = ""
    line: int = 0
    key: str = ""
    column: int = 0

    def __str__(self) -> str:
        return self._placed(self.line)

    def precise(self) -> str:
        """Returns the sentence with the column, for an editor."""
        return self._placed(self.line, self.column)

    def _placed(self, *numbers: int) -> str:
        place = ":".join([self.origin, *(str(number) for number in numbers if number)])
        return ": ".join(part for part in (place, self.key, self.message) if part)


@dataclass(frozen=True, slots=True)
class Document:
    """Holds a parsed file.

    Attributes:
        path: The file.
        values: Leaves by dotted path; arrays are leaves, tables are not, but for those inside `[template]`.
        lines: 1-based line of each key that stands at the start of a line.
        texts: The file's lines.
    """

    path: Path
    values: Mapping[str, Any] = field(default_factory=dict)
    lines: Mapping[str, int] = field(default_factory=dict)
    texts: tuple[str, ...] = field(default=(), repr=False)

    def line(self, key: str) -> int:
        """Returns the line of a dotted key, or of the inline table that holds it; 0 where it is missing."""
        while key:
            if key in self.lines:
                return self.lines[key]
            key = key.rpartition(".")[0]
        return 0

    def position(self, key: str) -> tuple[int, int]:
        """Returns the line and column of a dotted key, 1-based; zeros where it is missing."""
        line = self.line(key)
        if not line:
            return 0, 0
        text = self.texts[line - 1]
        start = len(text) - len(text.lstrip())
        if key not in self.lines and (found := re.search(_name(key) + r"\s*=", text)):
            start = found.start()  # inside an inline table
        return line, start + 1


def _name(key: str) -> str:
    """Returns a pattern for the last part of a dotted key, as it is written."""
    return rf"""(?<![\w"'-])["']?{re.escape(key.rpartition(".")[2])}["']?"""


class UnreadableFile(Exception):
    """Refuses a TOML file.

    Args:
        reason: The rest of a sentence about the file, without a full stop.
        line: 1-based line at fault, 0 where there is none.
        column: 1-based column, 0 where there is none.
    """

    def __init__(self, reason: str, line: int = 0, column: int = 0) -> None:
        super().__init__(reason)
        self.line = line
        self.column = column


class MissingFile(UnreadableFile):
    """Reports that there is no such file."""


def parse(path: Path) -> Document:
    """Parses a TOML file.

    Raises:
        UnreadableFile: it is missing, cannot be read, or is not TOML.
    """
    try:
        raw = user_file.read_bytes(path)
    except FileNotFoundError as error:
        raise MissingFile("there is no such file") from error
    except IsADirectoryError as error:
        raise UnreadableFile("this is a folder, but a TOML file was expected") from error
    except OSError as error:
        raise UnreadableFile(f"cannot be read ({user_file.error_reason(error)})") from error
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UnreadableFile("is encoded as UTF-16, but TOML must be UTF-8")
    # Windows editors put a UTF-8 byte order mark in front; the content is sound.
    raw = raw.removeprefix(b"\xef\xbb\xbf")
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise UnreadableFile("is not UTF-8", raw.count(b"\n", 0, error.start) + 1) from error

    import tomli

    try:
        data = tomli.loads(text)
    except tomli.TOMLDecodeError as error:
        # tomli has no code for a key or a table that stands there already; these are its words.
        again = error.msg.startswith(("Cannot overwrite", "Cannot declare", "Cannot mutate"))
        stated = text.split("\n")[error.lineno - 1].split("=")[0].strip() if again and error.lineno else ""
        reason = f"{stated} stands in the file twice; keep one of them" if stated else error.msg
        message = f"not valid TOML at column {error.colno} ({reason})"
        raise UnreadableFile(message, error.lineno, error.colno) from error
    except RecursionError as error:
        raise UnreadableFile("nested too deeply") from error
    return Document(path, dict(flatten(data)), _lines(text), tuple(text.split("\n")))


def read(path: Path, *, required: bool = False) -> tuple[Document, list[Notice]]:
    """Parses a TOML file; one that cannot be used is an empty document and a notice.

    Args:
        path: The file.
        required: True if its absence is worth a notice.
    """
    try:
        return parse(path), []
    except MissingFile as error:
        refusal: UnreadableFile = error
        if not required:
            return Document(path), []
    except UnreadableFile as error:
        refusal = error
    notice = Notice(f"{refusal}; the defaults are used.", str(path), refusal.line, column=refusal.column)
    return Document(path), [notice]


def flatten(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields leaves of nested tables as (dotted path, value); a template variable is always a leaf."""
    for name, value in table.items():
        if isinstance(value, dict) and prefix != TEMPLATE:
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _lines(text: str) -> dict[str, int]:
    """Finds the line of each key. tomli keeps no positions, but keys of valid TOML begin a line."""
    lines: dict[str, int] = {}
    table, quote = "", ""
    for number, line in enumerate(text.split("\n"), 1):
        if quote:
            if line.count(quote) % 2:
                quote = ""
            continue
        if found := _TABLE_LINE.match(line):
            table = _path(found[1])
            lines.setdefault(table, number)
        elif found := _KEY_LINE.match(line):
            lines.setdefault(f"{table}.{_path(found[1])}".lstrip("."), number)
        quote = next((q for q in ('"""', "'''") if line.count(q) % 2), "")
    return lines


def _path(key: str) -> str:
    return ".".join(part.strip("\"'") for part in re.findall(_PART, key))


def comments(path: Path) -> dict[str, str]:
    """Returns the comment above each key of a TOML file in one line; none of a file that cannot be read."""
    document, notices = read(path)
    if notices:
        return {}
    lines = user_file.read_text(path).splitlines()
    found = {}
    for key, number in document.lines.items():
        start = number - 1
        while start and lines[start - 1].startswith("#"):
            start -= 1
        found[key] = " ".join(line.lstrip("# ") for line in lines[start : number - 1])
    return found
