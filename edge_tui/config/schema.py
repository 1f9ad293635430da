"""Declares the type of each setting, which turns a TOML value or a text into the settings' own value.

A type raises `ValueError` with the rest of a sentence about the key: "must be …, not …".
"""

from __future__ import annotations

import re
from typing import Any, get_args

from edge_tui.engine import seeds
from edge_tui.engine.port import Mode, Precision
from edge_tui.transcript.curve import OFF, QUANTITIES


class SettingType:
    """Checks and converts the values of one setting."""

    allowed: str
    """The values in words, as messages and the settings screen show them."""
    choices: tuple[str, ...] = ()
    """Every value as a text; () where they are too many to list."""

    def __call__(self, value: Any) -> Any:
        """Returns the value in the settings' own type.

        Raises:
            ValueError: it is none; the rest of a sentence about the key.
        """
        raise NotImplementedError

    def _refusal(self, value: Any, allowed: str = "") -> ValueError:
        shown = repr(str(value) if isinstance(value, RawText) else value)
        shown = shown if len(shown) <= 60 else f"{shown[:57]}…"
        return ValueError(f"must be {allowed or self.allowed}, not {shown}.")


QUANTIZATION = {"none": "auto", "fp32": "float32", "bf16": "bfloat16", "fp16": "float16", "int4": "4bit"}
"""Other names of precisions, under the key `quantization`."""

_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


class RawText(str):
    """Marks a value that came as text (environment, flag) and may mean a number, a boolean or a list."""

    __slots__ = ()


class String(SettingType):
    """Takes any string, or any but the empty one."""

    allowed = "a text"

    def __init__(self, empty: bool = True) -> None:
        self.empty = empty

    def __call__(self, value: Any) -> str:
        if not isinstance(value, str):
            raise self._refusal(value, "a text in quotes")
        if not value.strip() and not self.empty:
            raise ValueError("must not be empty.")
        return str(value)


class Boolean(SettingType):
    """Takes true or false; where it is automatic, also "auto", which leaves the choice open (None)."""

    def __init__(self, automatic: bool = False) -> None:
        self.automatic = automatic
        self.choices = ("auto", "true", "false") if automatic else ("true", "false")
        self.allowed = '"auto" or true | false' if automatic else "true | false"

    def __call__(self, value: Any) -> bool | None:
        if self.automatic and value == "auto":
            return None
        if isinstance(value, RawText) and value.lower() in (*_TRUE, *_FALSE):
            return value.lower() in _TRUE
        if not isinstance(value, bool):
            raise self._refusal(value, self.allowed.replace("|", "or"))
        return value


class Integer(SettingType):
    """Takes a whole number within bounds."""

    def __init__(self, low: int, high: int) -> None:
        self.low, self.high = low, high
        self.allowed = f"a whole number from {low} to {high}"

    def __call__(self, value: Any) -> int:
        number = int(value) if isinstance(value, RawText) and re.fullmatch(r"[+-]?\d{1,40}", value) else value
        if not isinstance(number, int) or isinstance(number, bool) or not self.low <= number <= self.high:
            raise self._refusal(value)
        return number


class Choice(SettingType):
    """Takes one of a few words."""

    def __init__(self, choices: tuple[str, ...]) -> None:
        self.choices = choices
        self.allowed = " | ".join(choices)

    def __call__(self, value: Any) -> str:
        if value not in self.choices:
            raise self._refusal(value)
        return str(value)


class StringList(SettingType):
    """Takes a list of strings; one string is a list of one."""

    allowed = "a list of texts"

    def __call__(self, value: Any) -> tuple[str, ...]:
        if isinstance(value, RawText) and value.lstrip().startswith("["):
            import tomli

            try:
                value = tomli.loads(f"value = {value}")["value"]
            except tomli.TOMLDecodeError as error:
                raise self._refusal(value) from error
        if isinstance(value, str):
            return (str(value),) if value else ()
        if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
            raise self._refusal(value)
        return tuple(value)


class DeviceName(SettingType):
    """Takes the name of a device."""

    allowed = "auto, cpu, mps, cuda or cuda:N"

    def __init__(self, empty: bool = False) -> None:
        self.empty = empty

    def __call__(self, value: Any) -> str:
        if value == "" and self.empty:
            return ""
        if not isinstance(value, str) or not re.fullmatch(r"auto|cpu|mps|cuda(:\d{1,3})?", value):
            raise self._refusal(value)
        return str(value)


class Seed(SettingType):
    """Takes a seed; "auto" and -1 draw one for each run (None)."""

    allowed = f'"auto" or -1 (draws one), or a whole number from 0 to {seeds.MOST}'

    def __call__(self, value: Any) -> int | None:
        if value == "auto":
            return None
        try:
            number = Integer(-1, seeds.MOST)(value)
        except ValueError:
            raise self._refusal(value) from None
        return None if number == -1 else number


STRING, STRINGS = String(), StringList()
SCHEMA: dict[str, SettingType] = {
    "models.name": String(empty=False),
    "models.expert": STRING,
    "models.amateur": STRING,
    "models.draft": STRING,
    "models.expert_device": DeviceName(empty=True),
    "models.amateur_device": DeviceName(empty=True),
    "models.draft_device": DeviceName(empty=True),
    "models.folders": STRINGS,
    "precision": Choice(get_args(Precision)),
    "device": DeviceName(),
    "context": Integer(0, 2**24),
    "strategy": STRING,
    "mode": Choice(get_args(Mode)),
    "stream": Boolean(),
    "max_length": Integer(1, 2**20),
    "seed": Seed(),
    "stop": STRINGS,
    "chat": Boolean(automatic=True),
    "system": STRING,
    "control_tokens": Boolean(),
    "decoder_folders": STRINGS,
    "ui.theme": String(empty=False),
    "ui.frame_rate": Integer(1, 60),
    "ui.sidebar": Boolean(),
    "ui.ascii": Boolean(automatic=True),
    "ui.mouse": Boolean(),
    "ui.lessons": Boolean(),
    "ui.curve": Choice((OFF, *QUANTITIES)),
    "history.keep": Boolean(),
}
"""Every setting but the open tables `parameters`, `template` and `keys`, by dotted path."""
