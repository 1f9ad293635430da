"""Changes single keys of a user's TOML file and leaves the rest as it is, comments included.

A file that is no valid TOML is never touched.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from edge_tui.errors import EdgeError
from edge_tui.util import user_file
from edge_tui.util.atomic_write import replace_file

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tomlkit import TOMLDocument
    from tomlkit.container import Container
    from tomlkit.items import Table

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_HEADING = re.compile(r"^\s*\[([^\[\]]+)\]\s*(#.*)?$")


class ConfigError(EdgeError):
    """Refuses to change a file that cannot be read, understood or written."""

    code = "config"


def change(path: Path, values: Mapping[str, Any]) -> None:
    """Sets keys, or removes those whose value is None.

    A key that stands in the file as a comment (`# theme = "dark"`) is set in its place.

    Args:
        path: The file; it and its folder are made where they are missing. A link is followed.
        values: TOML values by dotted key.

    Raises:
        ConfigError: the file cannot be read, is not valid TOML, or cannot be written.
    """
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    try:
        raw = user_file.read_text(path)
    except FileNotFoundError:
        raw = ""
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path} cannot be read ({user_file.error_reason(error)}); mend it first."
        ) from error
    for key, value in values.items():
        raw = _uncommented(raw, key) if value is not None else raw
    try:
        document = tomlkit.parse(raw)
        for key, value in values.items():
            _put(document, key.split("."), value)
        text = tomlkit.dumps(document)
    except TOMLKitError as error:
        raise ConfigError(
            f"{path} is not valid TOML ({error}), so it is left alone; mend it first."
        ) from error
    write(path, text)


def write(path: Path, text: str) -> None:
    """Puts a text in a file's place, all or nothing.

    Raises:
        ConfigError: it cannot be written.
    """
    try:
        replace_file(path, text)
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be written ({user_file.error_reason(error)}); nothing was changed."
        ) from error


def toml_text(value: Any) -> str:
    """Writes a value in TOML's syntax; None is "auto", as in `seed`."""
    import tomlkit

    value = "auto" if value is None else list(value) if isinstance(value, tuple) else value
    if isinstance(value, dict):
        value = tomlkit.inline_table() | {name: each for name, each in value.items() if each is not None}
    return str(tomlkit.item(value).as_string())


def table_text(table: str) -> str:
    """Writes a table's dotted path as a heading has it: the name of a chain stands in quotes."""
    return ".".join(part if _BARE.fullmatch(part) else f'"{part}"' for part in table.split("."))


def _put(document: TOMLDocument, parts: list[str], value: Any) -> None:
    import tomlkit

    table: Container | Table = document
    for name in parts[:-1]:
        if name not in table:
            if value is None:
                return
            table.add(name, tomlkit.table(is_super_table=name != parts[-2]))
        table = table[name]
    if value is None:
        table.pop(parts[-1], None)
    else:
        table[parts[-1]] = list(value) if isinstance(value, tuple) else value


def _uncommented(text: str, key: str) -> str:
    """Uncomments a key, unless it already stands uncommented."""
    table, _, name = key.rpartition(".")
    pattern = re.compile(rf'^(#\s?)?({re.escape(name)}|"{re.escape(name)}")\s*=')
    here, found = "", -1
    lines = text.splitlines(keepends=True)
    for number, line in enumerate(lines):
        if heading := _HEADING.match(line):
            here = ".".join(part.strip("\"' ") for part in heading[1].split("."))
        elif here == table and (match := pattern.match(line)):
            if match[1] is None:
                return text
            found = number
    if found < 0:
        return text
    lines[found] = re.sub(r"^#\s?", "", lines[found])
    return "".join(lines)
