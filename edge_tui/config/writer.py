"""Changes single keys of a user's TOML file and leaves all else as it was written, comments included.

A file that is no valid TOML is never touched. A change is written beside the file, brought to the disk, and
put in its place, so that whatever happens one of the two versions is there whole.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_tui.errors import EdgeError
from edge_tui.util import user_file

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tomlkit import TOMLDocument
    from tomlkit.container import Container
    from tomlkit.items import Table

_HEADING = re.compile(r"^\s*\[([^\[\]]+)\]\s*(#.*)?$")


class ConfigError(EdgeError):
    """The file could not be changed; one sentence for the user."""

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

    path = Path(os.path.realpath(path))  # `resolve` fails at a link to itself
    try:
        raw = user_file.read_text(path)
    except FileNotFoundError:
        raw = ""
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read ({user_file.reason(error)}); mend it first.") from error
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
    """Puts a text in a file's place; the file before it stays whole until the new one is.

    Raises:
        ConfigError: it cannot be written.
    """
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        mode = path.stat().st_mode & 0o777 if path.exists() else 0o600
        with os.fdopen(
            os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w", encoding="utf-8"
        ) as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except OSError as error:
        fresh.unlink(missing_ok=True)
        raise ConfigError(
            f"{path} cannot be written ({user_file.reason(error)}); nothing was changed."
        ) from error


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
    """The text with a commented-out key brought to life, if it has that and no living one."""
    table, _, name = key.rpartition(".")
    pattern = re.compile(rf'^(#\s?)?({re.escape(name)}|"{re.escape(name)}")\s*=')
    here, found = "", -1
    lines = text.splitlines(keepends=True)
    for number, line in enumerate(lines):
        if heading := _HEADING.match(line):
            here = heading[1].strip()
        elif here == table and (match := pattern.match(line)):
            if match[1] is None:
                return text
            found = number
    if found < 0:
        return text
    lines[found] = re.sub(r"^#\s?", "", lines[found])
    return "".join(lines)
