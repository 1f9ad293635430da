"""Reads themes from TOML files: colours of the interface, and the ladder for probabilities.

A theme file holds a title, whether it is dark, interface colours, and a ladder of eight colours from the
least to the most likely. Files that cannot be used are reported, never fatal: the dark theme remains.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

import tomli
from textual.color import Color, ColorParseError
from textual.theme import Theme

from edge_tui.config import resources
from edge_tui.errors import EdgeError
from edge_tui.util.user_file import error_reason, list_files, read_text

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

LADDER = 8
"""Steps of the probability ladder."""
AUTO = "auto"
"""Name that stands for light or dark, as the terminal is."""
DEFAULT = "dark"
LIGHT = "light"
_COLOURS = (
    "primary", "secondary", "accent", "foreground", "background", "surface", "panel", "boost", "success",
    "warning", "error",
)  # fmt: skip
_STYLES = frozenset(("none", "not", "bold", "dim", "italic", "underline", "strike", "reverse", "b", "i", "u"))
_AUTO = re.compile(r"auto( \d{1,3}%)?")
"""A colour that Textual chooses for its background."""
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")


_FIRST = ("dark", "light", "high-contrast", "colour-blind", "ansi-16")
"""The built-in ones, in the order of the list."""


class ThemeError(EdgeError, ValueError):
    """Refuses a theme file; the message names file and key."""

    code = "theme"


@dataclass(frozen=True, slots=True)
class Themes:
    """Holds the themes that were found.

    Attributes:
        themes: By name, in the order of the files; never empty.
        titles: Titles in the list, by name.
        notices: A sentence for each file that could not be used.
    """

    themes: dict[str, Theme] = field(default_factory=dict)
    titles: dict[str, str] = field(default_factory=dict)
    notices: tuple[str, ...] = ()


def folders() -> tuple[Path, ...]:
    """Lists the folders of theme files: the built-in themes', then the user's."""
    from edge_tui.config.settings import user_config

    return resources.themes(), user_config().parent / "themes"


def load(folders: Iterable[Path], last: Themes | None = None) -> Themes:
    """Reads every `*.toml` of the folders; a later one replaces an earlier one of the same name.

    Args:
        folders: Missing ones are empty.
        last: Themes that were found before; a file that no longer works keeps the theme it had there.
    """
    themes: dict[str, Theme] = {}
    titles: dict[str, str] = {}
    notices: list[str] = []
    for folder in folders:
        paths, problem = list_files(folder, "*.toml")
        notices += [problem] if problem else []
        for path in paths:
            try:
                theme, title = read(path)
            except ThemeError as error:
                notices.append(str(error))
                if last is not None and path.stem in last.themes:
                    themes[path.stem], titles[path.stem] = last.themes[path.stem], last.titles[path.stem]
            else:
                themes[theme.name] = theme
                titles[theme.name] = title
    if DEFAULT not in themes:
        themes[DEFAULT], titles[DEFAULT] = FALLBACK, "Dark"
    order = [name for name in _FIRST if name in themes] + sorted(themes.keys() - set(_FIRST))
    return Themes({n: themes[n] for n in order}, {n: titles[n] for n in order}, tuple(notices))


def read(path: Path) -> tuple[Theme, str]:
    """Reads one theme file: the theme, and its title.

    Raises:
        ThemeError: naming the file and, where one is at fault, the key.
    """
    try:
        data = tomli.loads(read_text(path))
        return _theme(path.stem, data), str(data.get("title", path.stem))
    except OSError as error:
        problem = f"it cannot be read ({error_reason(error)})."
    except UnicodeDecodeError as error:
        problem = f"it is not UTF-8 (byte {error.start})."
    except RecursionError:
        problem = "it is nested too deeply."
    except tomli.TOMLDecodeError as error:
        problem = f"{error}."
    except ThemeError as error:
        problem = str(error)
    raise ThemeError(f"Theme {path.name}: {problem}")


def _theme(name: str, data: dict[str, Any]) -> Theme:
    """Checks the tables of a theme file, and makes its theme. Errors do not name the file yet."""
    if not _NAME.fullmatch(name) or name == AUTO:
        raise ThemeError(f"a theme's file name is lower case letters, digits, - and _, and not {AUTO}.")
    for key in ("dark", "ansi"):
        if not isinstance(data.get(key, False), bool):
            raise ThemeError(f"{key} must be true or false.")
    ansi: bool = data.get("ansi", False)
    colours, tokens = data.get("colours"), data.get("tokens")
    if not isinstance(colours, dict) or not isinstance(tokens, dict):
        raise ThemeError("needs the tables [colours] and [tokens].")
    if unknown := sorted(set(colours) - set(_COLOURS)):
        raise ThemeError(f"unknown colour {unknown[0]!r}; known are {', '.join(_COLOURS)}.")
    if "primary" not in colours:
        raise ThemeError("[colours] needs primary.")
    for key, value in colours.items():
        _check_colour(f"colours.{key}", value, ansi)
    ladder = tokens.get("ladder")
    if not isinstance(ladder, list) or len(ladder) != LADDER:
        raise ThemeError(f"tokens.ladder needs {LADDER} colours, least likely first.")
    for index, value in enumerate(ladder):
        _check_colour(f"tokens.ladder[{index}]", value, ansi)
    variables = {} if ansi else _derived(colours)
    variables |= {f"token-{index}": value for index, value in enumerate(ladder)}
    variables |= _variables(data.get("variables", {}), ansi)
    # A text area asks the theme itself for it where a background is transparent.
    surface = "ansi_default" if ansi else _defaults()["surface"]
    dark = data.get("dark", True)
    return Theme(name=name, dark=dark, ansi=ansi, variables=variables, **{"surface": surface, **colours})


def _variables(given: Any, ansi: bool) -> dict[str, str]:
    """Checks each variable against what Textual has in its place: a colour, or a style of text.

    Textual reads them when a widget is styled, where a wrong one ends the app.
    """
    if not isinstance(given, dict):
        raise ThemeError("variables must be a table, [variables].")
    known = _defaults() if given else {}
    for key, value in given.items():
        default = known.get(key)
        if default is None:
            raise ThemeError(f"there is no variables.{key}; leave it out.")
        if key.endswith(("-style", "-style-hover")):
            if not isinstance(value, str) or not value.split() or not _STYLES.issuperset(value.split()):
                raise ThemeError(
                    f"variables.{key} is {value!r}, which is no style of text"
                    " (write bold, italic, underline or none)."
                )
        elif not (isinstance(value, str) and default.startswith("auto") and _AUTO.fullmatch(value)):
            _check_colour(f"variables.{key}", value, ansi)
    return given


@cache
def _defaults() -> dict[str, str]:
    """Lists every variable of the style sheets, with its value in the built-in theme."""
    ansi = dict.fromkeys(("ansi-background", "ansi-foreground"), "ansi_default")
    return {**ansi, **FALLBACK.variables, **FALLBACK.to_color_system().generate()}


def _derived(colours: dict[str, str]) -> dict[str, str]:
    """Derives the colours of borders and scrollbars, quiet, between background and text."""
    background = Color.parse(colours.get("background", "#000000"))
    foreground = Color.parse(colours.get("foreground", "#ffffff"))
    quiet = background.blend(foreground, 0.24).hex
    plain = background.hex
    return {
        "border": colours["primary"],
        "border-blurred": quiet,
        "scrollbar": quiet,
        "scrollbar-hover": background.blend(foreground, 0.4).hex,
        "scrollbar-active": colours["primary"],
        "scrollbar-background": plain,
        "scrollbar-background-hover": plain,
        "scrollbar-background-active": plain,
        "scrollbar-corner-color": plain,
        "text-muted": background.blend(foreground, 0.62).hex,
        "block-cursor-background": colours["primary"],
        "block-cursor-foreground": plain,
        "block-cursor-text-style": "none",
        "footer-background": colours.get("panel", plain),
    }


def _check_colour(key: str, value: Any, ansi: bool) -> None:
    try:
        if Color.parse(value).a == 0 and not ansi:  # Textual refuses it only when it paints
            raise ThemeError(f"{key} is transparent; write a colour that covers, #rrggbb.")
    except (ColorParseError, TypeError, AttributeError) as error:
        raise ThemeError(f"{key} is {value!r}, which is no colour (write #rrggbb).") from error


FALLBACK = Theme(
    name=DEFAULT,
    primary="#7aa2f7",
    foreground="#c8cdd8",
    background="#14161c",
    surface="#1a1d25",
    dark=True,
    variables={f"token-{i}": f"#{244 - i * 8:02x}{92 + i * 15:02x}{110 + i * 12:02x}" for i in range(LADDER)},
)
"""Used when no theme file can be read."""
