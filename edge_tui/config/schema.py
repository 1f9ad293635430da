"""Declares the type of each setting, which turns a TOML value or a text into the settings' own value.

A type raises `ValueError` with the rest of a sentence about the key: "must be …, not …".
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Protocol, get_args

from edge_tui.engine import seeds
from edge_tui.engine.port import Mode, Precision


class SettingType(Protocol):
    """Checks and converts the values of one setting."""

    @property
    def allowed(self) -> str:
        """The values in words, as messages and the settings screen show them."""

    @property
    def choices(self) -> tuple[str, ...]:
        """Every value as a text; () where they are too many to list."""

    def __call__(self, value: Any) -> Any:
        """Returns the value in the settings' own type.

        Raises:
            ValueError: it is none; the rest of a sentence about the key.
        """


QUANTIZATION = {"none": "auto", "fp32": "float32", "bf16": "bfloat16", "fp16": "float16", "int4": "4bit"}
"""Other names of precisions, under the key `quantization`."""

_BOOLEANS = {
    "true": True,
    "yes": True,
    "on": True,
    "1": True,
    "false": False,
    "no": False,
    "off": False,
    "0": False,
}


class RawText(str):
    """Marks a value that came as text (environment, flag) and may mean a number, a boolean or a list."""

    __slots__ = ()


@dataclass(frozen=True)
class String:
    """Takes any string, or any but the empty one."""

    allowed: str = "a text"
    choices: tuple[str, ...] = ()
    empty: bool = True

    def __call__(self, value: Any) -> str:
        if not isinstance(value, str):
            raise ValueError(f"must be a text in quotes, not {_shown(value)}.")
        if not value.strip() and not self.empty:
            raise ValueError("must not be empty.")
        return str(value)


@dataclass(frozen=True)
class Boolean:
    """Takes true or false; where it is automatic, also "auto", which leaves the choice open (None)."""

    automatic: bool = False

    @property
    def allowed(self) -> str:
        return '"auto" or true | false' if self.automatic else "true | false"

    @property
    def choices(self) -> tuple[str, ...]:
        return ("auto", "true", "false") if self.automatic else ("true", "false")

    def __call__(self, value: Any) -> bool | None:
        if self.automatic and value == "auto":
            return None
        if isinstance(value, RawText) and value.lower() in _BOOLEANS:
            return _BOOLEANS[value.lower()]
        if not isinstance(value, bool):
            auto = '"auto" or ' if self.automatic else ""
            raise ValueError(f"must be {auto}true or false, not {_shown(value)}.")
        return value


@dataclass(frozen=True)
class Integer:
    """Takes a whole number within bounds."""

    low: int
    high: int
    choices: tuple[str, ...] = ()

    @property
    def allowed(self) -> str:
        return f"a whole number from {self.low} to {self.high}"

    def __call__(self, value: Any) -> int:
        number = int(value) if isinstance(value, RawText) and re.fullmatch(r"[+-]?\d{1,40}", value) else value
        if not isinstance(number, int) or isinstance(number, bool) or not self.low <= number <= self.high:
            raise ValueError(f"must be {self.allowed}, not {_shown(value)}.")
        return number


@dataclass(frozen=True)
class Choice:
    """Takes one of a few words."""

    choices: tuple[str, ...]

    @property
    def allowed(self) -> str:
        return " | ".join(self.choices)

    def __call__(self, value: Any) -> str:
        if value not in self.choices:
            raise ValueError(f"must be {self.allowed}, not {_shown(value)}.")
        return str(value)


@dataclass(frozen=True)
class StringList:
    """Takes a list of strings; one string is a list of one."""

    allowed: str = "a list of texts"
    choices: tuple[str, ...] = ()

    def __call__(self, value: Any) -> tuple[str, ...]:
        if isinstance(value, RawText) and value.lstrip().startswith("["):
            import tomli

            try:
                value = tomli.loads(f"value = {value}")["value"]
            except tomli.TOMLDecodeError as error:
                raise ValueError(f"must be a list of texts, not {_shown(value)}.") from error
        if isinstance(value, str):
            return (str(value),) if value else ()
        if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
            raise ValueError(f"must be a list of texts, not {_shown(value)}.")
        return tuple(value)


@dataclass(frozen=True)
class DeviceName:
    """Takes the name of a device."""

    allowed: str = "auto, cpu, mps, cuda or cuda:N"
    choices: tuple[str, ...] = ()

    def __call__(self, value: Any) -> str:
        if not isinstance(value, str) or not re.fullmatch(r"auto|cpu|mps|cuda(:\d{1,3})?", value):
            raise ValueError(f"must be {self.allowed}, not {_shown(value)}.")
        return str(value)


@dataclass(frozen=True)
class Seed:
    """Takes a seed; "auto" and -1 draw one for each run (None)."""

    allowed: str = f'"auto" or -1 (draws one), or a whole number from 0 to {seeds.MOST}'
    choices: tuple[str, ...] = ()

    def __call__(self, value: Any) -> int | None:
        if value == "auto":
            return None
        try:
            number = Integer(-1, seeds.MOST)(value)
        except ValueError:
            raise ValueError(f"must be {self.allowed}, not {_shown(value)}.") from None
        return None if number == -1 else number


def _shown(value: Any) -> str:
    shown = repr(str(value) if isinstance(value, RawText) else value)
    return shown if len(shown) <= 60 else f"{shown[:57]}…"


STRING = String()
SCHEMA: dict[str, SettingType] = {
    "models.name": String(empty=False),
    "models.expert": STRING,
    "models.amateur": STRING,
    "models.draft": STRING,
    "models.folders": StringList(),
    "precision": Choice(get_args(Precision)),
    "device": DeviceName(),
    "context": Integer(0, 2**24),
    "strategy": STRING,
    "mode": Choice(get_args(Mode)),
    "stream": Boolean(),
    "max_length": Integer(1, 2**20),
    "seed": Seed(),
    "stop": StringList(),
    "chat": Boolean(automatic=True),
    "system": STRING,
    "control_tokens": Boolean(),
    "decoder_folders": StringList(),
    "ui.theme": String(empty=False),
    "ui.frame_rate": Integer(1, 60),
    "ui.sidebar": Boolean(),
    "ui.ascii": Boolean(automatic=True),
    "ui.mouse": Boolean(),
    "ui.tour": Boolean(),
    "history.keep": Boolean(),
}
"""Every setting but the open tables `parameters`, `template` and `keys`, by dotted path."""
