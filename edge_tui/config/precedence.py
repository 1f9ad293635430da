"""Decides between values of one setting: the highest layer wins, and the losers are listed.

The order of layers, lowest first: defaults, config.toml, environment, preset, flags, live changes (`Layer`).
For `auto` the checkpoint's own values go before the common ones of config.toml (`Settings.decision`).

`mode` is a second name for a temperature. It competes with `parameters.temperature` by its layer; within one
layer it wins.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any

from edge_tui.engine.port import MODE_TEMPERATURE

TEMPERATURE = "temperature"
"""The parameter that modes set."""


class Layer(IntEnum):
    """Ranks the places that give values, lowest first."""

    DEFAULT = 0
    FILE = 1
    ENVIRONMENT = 2
    PRESET = 3
    FLAG = 4
    LIVE = 5


class Rank(IntEnum):
    """Ranks the keys that set a parameter, within one layer."""

    COMMON = 0
    """A key of `[parameters]`."""
    OWN = 1
    """A key of `[parameters.<strategy>]`."""
    MODE = 2


@dataclass(frozen=True, slots=True)
class Claim:
    """Holds a value that one place gives for a setting.

    Attributes:
        key: Dotted path in that place.
        value: In the settings' own type.
        source: "config.toml:12", "EDGE_TUI_SEED", "--set", …
        layer: Of the source.
        rank: Within the layer.
        word: The mode that stands for the value; "" where the value itself was given.
    """

    key: str
    value: Any
    source: str
    layer: Layer
    rank: Rank = Rank.COMMON
    word: str = ""

    def __str__(self) -> str:
        """Writes the claim, as in `config.toml:1's mode = exploratory (1.5)`."""
        text = value_text(self.value)
        return f"{self.source}'s {self.key} = {f'{self.word} ({text})' if self.word else text}"


@dataclass(frozen=True, slots=True)
class Decision:
    """Holds the claim that wins and those that lose to it, the strongest first."""

    winner: Claim
    losers: tuple[Claim, ...] = ()

    def losers_text(self) -> str:
        """Lists the losers: `config.toml:1's mode = exploratory (1.5) lost`; "" without any."""
        return f"{'; '.join(map(str, self.losers))} lost" if self.losers else ""


def value_text(value: Any) -> str:
    """Writes a claim's value, as sentences name it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return str(list(value))
    return "auto" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def claims_json(claims: Iterable[Claim]) -> list[dict[str, Any]]:
    """Returns claims for JSON: key, value, source, and the mode where one was given."""
    return [
        {"key": claim.key, "value": claim.value, "source": claim.source}
        | ({"mode": claim.word} if claim.word else {})
        for claim in claims
    ]


def decide(claims: Iterable[Claim]) -> Decision | None:
    """Returns the claim of the highest layer, by rank within it, the last one of equals; None without any."""
    *losers, winner = sorted(claims, key=lambda claim: (claim.layer, claim.rank)) or (None,)
    return None if winner is None else Decision(winner, tuple(reversed(losers)))


def temperature_of(modes: Sequence[Claim]) -> tuple[Claim, ...]:
    """Returns the winning mode's claim on the temperature; none under "custom"."""
    decision = decide(modes)
    if decision is None or decision.winner.value not in MODE_TEMPERATURE:
        return ()
    mode = decision.winner
    return (replace(mode, value=MODE_TEMPERATURE[mode.value], rank=Rank.MODE, word=mode.value),)
