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


class ThemeError(EdgeError, ValueError):
    """Refuses a theme file; the message names file and key."""

    code = "theme"


@dataclass(frozen=True, slots=True)
class Themes:
    """Holds the themes that were found.

    Attributes:
        themes: By name, in the order of the files; never empty.
        titles: What the list shows, by name.
        notices: A sentence for each file that could not be used.
    """

    themes: dict[str, Theme] = field(default_factory=dict)
    titles: dict[str, str] = field(default_factory=dict)
    notices: tuple[str, ...] = ()


def folders() -> tuple[Path, ...]:
    """The folders of theme files: the built-in themes', then the user's."""
    from edge_tui.config.settings import user_config

    return resources.themes(), user_config().parent / "themes"


def load(folders: Iterable[Path], last: Themes | None = None) -> Themes:
    """Reads every `*.toml` of the folders; a later one replaces an earlier one of the same name.

    Args:
        folders: Missing ones are empty.
        last: What was found before; a file that no longer works keeps the theme it had there.
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
        themes = {DEFAULT: FALLBACK, **themes}
        titles = {DEFAULT: "Dark", **titles}
    order = sorted(
        themes, key=lambda name: (name not in _ORDER, _ORDER.index(name) if name in _ORDER else 0, name)
    )
    return Themes({n: themes[n] for n in order}, {n: titles[n] for n in order}, tuple(notices))


_ORDER = ("dark", "light", "high-contrast", "colour-blind", "ansi-16")


def read(path: Path) -> tuple[Theme, str]:
    """Reads one theme file.

    Raises:
        ThemeError: naming the file and, where one is at fault, the key.
    """
    try:
        data = tomli.loads(read_text(path))
    except OSError as error:
        raise ThemeError(f"Theme {path.name}: it cannot be read ({error_reason(error)}).") from error
    except UnicodeDecodeError as error:
        raise ThemeError(f"Theme {path.name}: it is not UTF-8 (byte {error.start}).") from error
    except tomli.TOMLDecodeError as error:
        raise ThemeError(f"Theme {path.name}: {error}.") from error
    except RecursionError as error:
        raise ThemeError(f"Theme {path.name}: it is nested too deeply.") from error
    if not _NAME.fullmatch(path.stem) or path.stem == AUTO:
        raise ThemeError(
            f"Theme {path.name}: a theme's file name is lower case letters, digits, - and _, and not {AUTO}."
        )
    for key in ("dark", "ansi"):
        if not isinstance(data.get(key, False), bool):
            raise ThemeError(f"Theme {path.name}: {key} must be true or false.")
    ansi: bool = data.get("ansi", False)
    colours, tokens = data.get("colours"), data.get("tokens")
    if not isinstance(colours, dict) or not isinstance(tokens, dict):
        raise ThemeError(f"Theme {path.name}: needs the tables [colours] and [tokens].")
    if unknown := sorted(set(colours) - set(_COLOURS)):
        raise ThemeError(
            f"Theme {path.name}: unknown colour {unknown[0]!r}; known are {', '.join(_COLOURS)}."
        )
    if "primary" not in colours:
        raise ThemeError(f"Theme {path.name}: [colours] needs primary.")
    for key, value in colours.items():
        _colour(path, f"colours.{key}", value, ansi)
    ladder = tokens.get("ladder")
    if not isinstance(ladder, list) or len(ladder) != LADDER:
        raise ThemeError(f"Theme {path.name}: tokens.ladder needs {LADDER} colours, least likely first.")
    for index, value in enumerate(ladder):
        _colour(path, f"tokens.ladder[{index}]", value, ansi)
    variables = {} if ansi else _derived(colours)
    variables |= {f"token-{index}": value for index, value in enumerate(ladder)}
    variables |= _variables(path, data.get("variables", {}), ansi)
    # A text area asks the theme itself for it where a background is transparent.
    surface = "ansi_default" if ansi else _defaults()["surface"]
    theme = Theme(
        name=path.stem,
        dark=data.get("dark", True),
        ansi=ansi,
        variables=variables,
        **{"surface": surface, **colours},
    )
    return theme, str(data.get("title", path.stem))


def _variables(path: Path, given: Any, ansi: bool) -> dict[str, str]:
    """Checks each variable against what Textual has in its place: a colour, or a style of text.

    Textual reads them when a widget is styled, where a wrong one ends the app.
    """
    if not isinstance(given, dict):
        raise ThemeError(f"Theme {path.name}: variables must be a table, [variables].")
    known = _defaults() if given else {}
    for key, value in given.items():
        default = known.get(key)
        if default is None:
            raise ThemeError(f"Theme {path.name}: there is no variables.{key}; leave it out.")
        if key.endswith(("-style", "-style-hover")):
            if not isinstance(value, str) or not value.split() or not _STYLES.issuperset(value.split()):
                raise ThemeError(
                    f"Theme {path.name}: variables.{key} is {value!r}, which is no style of text"
                    " (write bold, italic, underline or none)."
                )
        elif not (isinstance(value, str) and default.startswith("auto") and _AUTO.fullmatch(value)):
            _colour(path, f"variables.{key}", value, ansi)
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


def _colour(path: Path, key: str, value: Any, ansi: bool) -> None:
    try:
        if Color.parse(value).a == 0 and not ansi:  # Textual refuses it only when it paints
            raise ThemeError(f"Theme {path.name}: {key} is transparent; write a colour that covers, #rrggbb.")
    except (ColorParseError, TypeError, AttributeError) as error:
        raise ThemeError(
            f"Theme {path.name}: {key} is {value!r}, which is no colour (write #rrggbb)."
        ) from error


FALLBACK = Theme(
    name=DEFAULT,
    primary="#7aa2f7",
    secondary="#9ece6a",
    accent="#e0af68",
    foreground="#c8cdd8",
    background="#14161c",
    surface="#1a1d25",
    panel="#21252f",
    success="#8fc47a",
    warning="#e0af68",
    error="#f7768e",
    dark=True,
    variables={f"token-{i}": f"#{244 - i * 8:02x}{92 + i * 15:02x}{110 + i * 12:02x}" for i in range(LADDER)},
)
"""Used when no theme file can be read."""
