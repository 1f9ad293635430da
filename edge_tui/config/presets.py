"""Reads and writes presets: a strategy with its values under a name, one TOML file each.

Four come along; the user's own lie in `presets/` of the configuration folder and win by name. A file may
also set `mode`, `max_length`, `stop`, `system`, and hold a `prompt` to begin with.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edge_tui.config import resources
from edge_tui.config.reader import UnreadableFile, parse
from edge_tui.config.schema import SCHEMA, STRING
from edge_tui.errors import EdgeError
from edge_tui.util.atomic_write import replace_file
from edge_tui.util.user_file import error_reason, list_files

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from edge_tui.decoders.base import Value
    from edge_tui.engine.port import Mode

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")
_TYPES = {key: SCHEMA[key] for key in ("strategy", "mode", "max_length", "stop", "system")}
_TYPES |= dict.fromkeys(("title", "summary", "prompt"), STRING)


class PresetError(EdgeError, ValueError):
    """Refuses a preset that cannot be read or written."""

    code = "preset"


@dataclass(frozen=True, slots=True)
class Preset:
    """Holds a strategy and the values that are set with it.

    Attributes:
        name: Its file's name without the ending.
        strategy: Registry name.
        title: As lists show it.
        summary: One line.
        parameters: Values by name.
        mode: None leaves it, as do the others.
        max_length: Most new tokens.
        stop: Stop strings.
        system: System prompt.
        prompt: Text to begin with.
        own: True if it is the user's.
    """

    name: str
    strategy: str
    title: str = ""
    summary: str = ""
    parameters: Mapping[str, Value] = field(default_factory=dict)
    mode: Mode | None = None
    max_length: int | None = None
    stop: tuple[str, ...] | None = None
    system: str | None = None
    prompt: str = ""
    own: bool = False


def user_folder() -> Path:
    """Returns the folder of the user's own presets."""
    from edge_tui.config.settings import user_config

    return user_config().parent / "presets"


def load(own: Path | None = None) -> tuple[list[Preset], list[str]]:
    """Returns every preset, the user's own first, and a sentence for each file that cannot be used."""
    own = own or user_folder()
    found: dict[str, Preset] = {}
    problems: list[str] = []
    for folder in (own, resources.presets()):
        paths, problem = list_files(folder, "*.toml")
        problems += [problem] if problem else []
        for path in paths:
            try:
                found.setdefault(path.stem, read_preset(path, own=folder == own))
            except PresetError as error:
                problems.append(str(error))
    return list(found.values()), problems


def read_preset(path: Path, *, own: bool = False) -> Preset:
    """Reads one file.

    Raises:
        PresetError: naming the file, the line and the key at fault.
    """
    try:
        document = parse(path)
    except UnreadableFile as error:
        place = f"{path.name}:{error.line}" if error.line else path.name
        raise PresetError(f"Preset {place}: {error}.") from error

    def refuse(key: str, reason: str) -> PresetError:
        line = document.line(key)
        return PresetError(f"Preset {path.name}{f':{line}' if line else ''}: {key} {reason}")

    fields: dict[str, Any] = {}
    parameters: dict[str, Value] = {}
    for key, value in document.values.items():
        if key.startswith("parameters."):
            if isinstance(value, bool):
                value = "on" if value else "off"
            if isinstance(value, list) and all(isinstance(item, str) for item in value):
                value = tuple(value)
            if not isinstance(value, int | float | str | tuple):
                raise refuse(key, "must be a number, a text or a list of texts.")
            parameters[key.removeprefix("parameters.")] = value
        elif key not in _TYPES:
            raise refuse(key, f"is unknown; there are {', '.join(_TYPES)} and [parameters].")
        else:
            try:
                fields[key] = _TYPES[key](value)
            except ValueError as error:
                raise refuse(key, str(error)) from error
    if "strategy" not in fields:
        raise PresetError(f"Preset {path.name}: it needs a strategy.")
    return Preset(path.stem, parameters=parameters, own=own, **fields)


def name_of(title: str) -> str:
    """Makes a file name of a title; "" if nothing of it can be one."""
    name = re.sub(r"[^a-z0-9_-]+", "-", title.lower()).strip("-")[:40]
    return name if _NAME.fullmatch(name) else ""


def save(preset: Preset, folder: Path | None = None) -> Path:
    """Writes one of the user's own, all or nothing.

    Raises:
        PresetError: it cannot be written.
    """
    import tomlkit

    folder = folder or user_folder()
    document = tomlkit.document()
    for key in ("title", "strategy", "mode", "max_length", "system", "prompt"):
        if getattr(preset, key):
            document[key] = getattr(preset, key)
    if preset.stop:
        document["stop"] = list(preset.stop)
    if preset.parameters:
        values = preset.parameters.items()
        document["parameters"] = {k: list(v) if isinstance(v, tuple) else v for k, v in values}
    path = folder / f"{preset.name}.toml"
    try:
        replace_file(path, tomlkit.dumps(document))
    except OSError as error:
        raise PresetError(f"{path} cannot be written: {error_reason(error)}.") from error
    return path


def remove(preset: Preset, folder: Path | None = None) -> None:
    """Removes one of the user's own.

    Raises:
        PresetError: it cannot be removed.
    """
    path = (folder or user_folder()) / f"{preset.name}.toml"
    try:
        path.unlink()
    except OSError as error:
        raise PresetError(f"{path} cannot be removed: {error_reason(error)}.") from error
