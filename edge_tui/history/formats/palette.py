"""Reads a theme's colours for exported files."""

from __future__ import annotations

from dataclasses import dataclass

from edge_tui.config import resources


@dataclass(frozen=True, slots=True)
class Palette:
    """Holds colours of a theme, as `#rrggbb`.

    Attributes:
        background: Behind everything.
        foreground: Of plain text.
        muted: Of what is less important.
        accent: Of headings.
        ladder: Of tokens by probability, least likely first.
    """

    background: str
    foreground: str
    muted: str
    accent: str
    ladder: tuple[str, ...]


THEMES = ("dark", "light", "high-contrast", "colour-blind")
"""Themes that name their colours; the others leave them to a terminal."""


def palette(theme: str) -> Palette:
    """Reads the colours of one of `THEMES`."""
    import tomli

    data = tomli.loads((resources.themes() / f"{theme}.toml").read_text(encoding="utf-8"))
    colours = data["colours"]
    background, foreground = colours["background"], colours["foreground"]
    ladder = tuple(data["tokens"]["ladder"])
    return Palette(background, foreground, _between(background, foreground), colours["primary"], ladder)


def _between(first: str, second: str) -> str:
    """Mixes the colour in the middle of two, `#rrggbb`."""
    pairs = zip(bytes.fromhex(first[1:]), bytes.fromhex(second[1:]), strict=True)
    return "#" + bytes((a + b) // 2 for a, b in pairs).hex()
