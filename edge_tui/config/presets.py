"""Presets: a strategy with its values under a name, one TOML file each.

Four come along; the user's own lie in `presets/` of the configuration folder and win by name. A file may
also set `mode`, `max_length`, `stop`, `system`, and hold a `prompt` to begin with.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, get_args

from edge_tui.config import resources
from edge_tui.config.reader import read
from edge_tui.engine.port import Mode
from edge_tui.errors import EdgeError
from edge_tui.util.atomic_write import replace_file
from edge_tui.util.user_file import list_files, reason

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")
_KINDS: dict[str, type] = {
    "title": str, "summary": str, "strategy": str, "mode": str, "max_length": int, "system": str,
    "prompt": str,
}  # fmt: skip


class PresetError(EdgeError, ValueError):
    """A preset that cannot be read or written; one sentence."""

    code = "preset"


@dataclass(frozen=True, slots=True)
class Preset:
    """What is taken over at once.

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
        own: Whether it is the user's.
    """

    name: str
    strategy: str
    title: str = ""
    summary: str = ""
    parameters: Mapping[str, float | str] = field(default_factory=dict)
    mode: Mode | None = None
    max_length: int | None = None
    stop: tuple[str, ...] | None = None
    system: str | None = None
    prompt: str = ""
    own: bool = False


def user_folder() -> Path:
    """Where the user's own presets lie."""
    from edge_tui.config.settings import user_config

    return user_config().parent / "presets"


def load(own: Path | None = None) -> tuple[list[Preset], list[str]]:
    """Every preset, the user's own first, and a sentence for each file that cannot be used."""
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
    document, notices = read(path)
    if notices:
        place = f"{path.name}:{notices[0].line}" if notices[0].line else path.name
        reason = notices[0].message.removesuffix("; the defaults are used.")
        raise PresetError(f"Preset {place}: {reason}.")

    def refuse(key: str, reason: str) -> PresetError:
        line = document.line(key)
        return PresetError(f"Preset {path.name}{f':{line}' if line else ''}: {key} {reason}")

    given: dict[str, Any] = {}
    parameters: dict[str, float | str] = {}
    for key, value in document.values.items():
        if key.startswith("parameters."):
            if isinstance(value, bool):
                value = "on" if value else "off"
            if not isinstance(value, int | float | str):
                raise refuse(key, "must be a number or a word.")
            parameters[key.removeprefix("parameters.")] = value
        elif key == "stop":
            if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
                raise refuse(key, "must be a list of texts.")
            given[key] = tuple(value)
        elif key not in _KINDS:
            raise refuse(key, f"is unknown; there are {', '.join(_KINDS)}, stop and [parameters].")
        elif type(value) is not _KINDS[key]:
            raise refuse(key, f"must be a {'whole number' if _KINDS[key] is int else 'text in quotes'}.")
        else:
            given[key] = value
    if "strategy" not in given:
        raise PresetError(f"Preset {path.name}: it needs a strategy.")
    if given.get("mode", "custom") not in get_args(Mode):
        raise refuse("mode", f"must be {' | '.join(get_args(Mode))}.")
    if not 1 <= given.get("max_length", 1) <= 2**20:
        raise refuse("max_length", f"must be a whole number from 1 to {2**20}.")
    return Preset(path.stem, parameters=parameters, own=own, **given)


def name_of(title: str) -> str:
    """A file name for what the user typed; "" if nothing of it can be one."""
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
        document["parameters"] = dict(preset.parameters)
    path = folder / f"{preset.name}.toml"
    try:
        replace_file(path, tomlkit.dumps(document))
    except OSError as error:
        raise PresetError(f"{path} cannot be written: {reason(error)}.") from error
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
        raise PresetError(f"{path} cannot be removed: {reason(error)}.") from error
