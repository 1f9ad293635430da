"""Reads a TOML file that people write by hand: values, the line of each key, and what is wrong with it.

Whatever the file holds, nothing is raised and nothing is written: the worst case is no values and one notice.
"""

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
    """Something the user should read about a setting. `str(notice)` is the whole sentence.

    Attributes:
        message: What is wrong and what was done instead.
        origin: Where it was said: a file's path, an environment variable, a flag.
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
        """The same with the column, for who is about to mend it."""
        return self._placed(self.line, self.column)

    def _placed(self, *numbers: int) -> str:
        place = ":".join([self.origin, *(str(number) for number in numbers if number)])
        return ": ".join(part for part in (place, self.key, self.message) if part)


@dataclass(frozen=True, slots=True)
class Document:
    """A parsed file.

    Attributes:
        path: Where it was read from.
        values: Leaves by dotted path; arrays are leaves, tables are not, but for those inside `[template]`.
        lines: 1-based line of each key that stands at the start of a line.
        texts: The file's lines.
    """

    path: Path
    values: Mapping[str, Any] = field(default_factory=dict)
    lines: Mapping[str, int] = field(default_factory=dict)
    texts: tuple[str, ...] = field(default=(), repr=False)

    def line(self, key: str) -> int:
        """The line of a dotted key; of the table that holds it, where it stands inside an inline table."""
        while key:
            if key in self.lines:
                return self.lines[key]
            key = key.rpartition(".")[0]
        return 0

    def place(self, key: str) -> tuple[int, int]:
        """The line and column of a dotted key, 1-based; zeros where it stands nowhere."""
        line = self.line(key)
        if not line:
            return 0, 0
        text = self.texts[line - 1]
        start = len(text) - len(text.lstrip())
        if key not in self.lines and (found := re.search(_name(key) + r"\s*=", text)):
            start = found.start()  # inside an inline table
        return line, start + 1


def _name(key: str) -> str:
    """A pattern for the last part of a dotted key, as it is written."""
    return rf"""(?<![\w"'-])["']?{re.escape(key.rpartition(".")[2])}["']?"""


def read(path: Path, *, required: bool = False) -> tuple[Document, list[Notice]]:
    """Parses a TOML file.

    Args:
        path: The file.
        required: Whether its absence is worth a notice.

    Returns:
        The document, empty when unusable, and what went wrong.
    """

    def refused(reason: str, line: int = 0, column: int = 0) -> tuple[Document, list[Notice]]:
        notice = Notice(f"{reason}; the defaults are used.", str(path), line, column=column)
        return Document(path), [notice]

    try:
        raw = user_file.read_bytes(path)
    except FileNotFoundError:
        return refused("there is no such file") if required else (Document(path), [])
    except IsADirectoryError:
        return refused("this is a folder, but a TOML file was expected")
    except OSError as error:
        return refused(f"cannot be read ({user_file.reason(error)})")
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        return refused("is encoded as UTF-16, but TOML must be UTF-8")
    # Windows editors put a UTF-8 byte order mark in front; the content is sound.
    raw = raw.removeprefix(b"\xef\xbb\xbf")
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        return refused("is not UTF-8", raw.count(b"\n", 0, error.start) + 1)

    import tomli

    try:
        data = tomli.loads(text)
    except tomli.TOMLDecodeError as error:
        # "Overwrite" and "declare … twice" are its words for a key or a table that stands there already.
        again = error.msg.startswith(("Cannot overwrite", "Cannot declare", "Cannot mutate"))
        stated = text.split("\n")[error.lineno - 1].split("=")[0].strip() if again and error.lineno else ""
        reason = f"{stated} stands in the file twice; keep one of them" if stated else error.msg
        return refused(f"not valid TOML at column {error.colno} ({reason})", error.lineno, error.colno)
    except RecursionError:
        return refused("nested too deeply")
    return Document(path, dict(flatten(data)), _lines(text), tuple(text.split("\n"))), []


def flatten(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves of nested tables as (dotted path, value). A template variable is a leaf, also as a table."""
    for name, value in table.items():
        if isinstance(value, dict) and prefix != TEMPLATE:
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _lines(text: str) -> dict[str, int]:
    """Where each key stands. tomli keeps no positions; keys of valid TOML begin a line, which is enough."""
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
    """The comment above each key of a TOML file, in one line each; what cannot be read has none."""
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
