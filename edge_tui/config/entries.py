"""Lists settings as key and value, as `edge-tui config` and the settings screen show them."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from edge_tui import decoders

if TYPE_CHECKING:
    from edge_tui.config.settings import Settings
    from edge_tui.decoders.base import Param


def shared_parameters() -> dict[str, Param]:
    """Parameters that several strategies declare alike: temperature, penalties."""
    counted = Counter(param for decoder in decoders.strategies() for param in decoder.params)
    return {param.name: param for param, count in counted.items() if count > 2}


def value_of(settings: Settings, dotted: str) -> Any:
    """A setting by its dotted key."""
    value: Any = settings
    for part in dotted.split("."):
        value = getattr(value, part)
    return value


def toml(value: Any) -> str:
    """A value as TOML writes it; None is "auto", as in `seed`."""
    import tomlkit

    value = "auto" if value is None else list(value) if isinstance(value, tuple) else value
    if isinstance(value, dict):
        value = tomlkit.inline_table() | {name: each for name, each in value.items() if each is not None}
    return str(tomlkit.item(value).as_string())
