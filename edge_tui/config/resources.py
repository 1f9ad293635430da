"""Finds what ships beside the code: themes, presets, config.toml.

In a checkout, themes, presets and config.toml lie at the top, where people look for them; in an installed
package they lie in `edge_tui/_data`.
"""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent.parent


def _data(name: str) -> Path:
    """Returns a file or folder of the installed package, else of the checkout."""
    packaged = _PACKAGE / "_data" / name
    return packaged if packaged.exists() else _PACKAGE.parent / name


def config_file() -> Path:
    """Returns the packaged config.toml, which holds every default with a comment."""
    return _data("config.toml")


def themes() -> Path:
    """Returns the folder of the built-in themes, one TOML each."""
    return _data("themes")


def presets() -> Path:
    """Returns the folder of the built-in presets, one TOML each."""
    return _data("presets")
