"""What each setting may be: one kind per key, from a TOML value or a text to the settings' own type.

A kind raises `ValueError` with the rest of a sentence about the key: "must be …, not …".
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Protocol, get_args

from edge_tui.engine import seeds
from edge_tui.engine.port import Mode, Precision


class Kind(Protocol):
    """What a setting may be."""

    @property
    def range(self) -> str:
        """In words, as messages and the settings screen say it."""

    @property
    def choices(self) -> tuple[str, ...]:
        """All it may be, as texts; () where that is too much to list."""

    def __call__(self, value: Any) -> Any:
        """The value in the settings' own type.

        Raises:
            ValueError: it is none; the rest of a sentence about the key.
        """


QUANTIZATION = {"none": "auto", "fp32": "float32", "bf16": "bfloat16", "fp16": "float16", "int4": "4bit"}
"""Other names of precisions, under the key `quantization`."""

_SWITCH = {
    "true": True,
    "yes": True,
    "on": True,
    "1": True,
    "false": False,
    "no": False,
    "off": False,
    "0": False,
}


class Literal(str):
    """A value that came as text (environment, command line) and may mean a number, a switch or a list."""

    __slots__ = ()


@dataclass(frozen=True)
class Text:
    """Any string, or any but the empty one."""

    range: str = "a text"
    choices: tuple[str, ...] = ()
    empty: bool = True

    def __call__(self, value: Any) -> str:
        if not isinstance(value, str):
            raise ValueError(f"must be a text in quotes, not {_shown(value)}.")
        if not value.strip() and not self.empty:
            raise ValueError("must not be empty.")
        return str(value)


@dataclass(frozen=True)
class Switch:
    """True or false."""

    range: str = "true | false"
    choices: tuple[str, ...] = ("true", "false")

    def __call__(self, value: Any) -> bool:
        if isinstance(value, Literal) and value.lower() in _SWITCH:
            return _SWITCH[value.lower()]
        if not isinstance(value, bool):
            raise ValueError(f"must be true or false, not {_shown(value)}.")
        return value


@dataclass(frozen=True)
class Whole:
    """A whole number within bounds."""

    low: int
    high: int
    choices: tuple[str, ...] = ()

    @property
    def range(self) -> str:
        return f"a whole number from {self.low} to {self.high}"

    def __call__(self, value: Any) -> int:
        number = int(value) if isinstance(value, Literal) and re.fullmatch(r"[+-]?\d{1,40}", value) else value
        if not isinstance(number, int) or isinstance(number, bool) or not self.low <= number <= self.high:
            raise ValueError(f"must be {self.range}, not {_shown(value)}.")
        return number


@dataclass(frozen=True)
class OneOf:
    """One of a few words."""

    choices: tuple[str, ...]

    @property
    def range(self) -> str:
        return " | ".join(self.choices)

    def __call__(self, value: Any) -> str:
        if value not in self.choices:
            raise ValueError(f"must be {self.range}, not {_shown(value)}.")
        return str(value)


@dataclass(frozen=True)
class Texts:
    """A list of strings; one string is a list of one."""

    range: str = "a list of texts"
    choices: tuple[str, ...] = ()

    def __call__(self, value: Any) -> tuple[str, ...]:
        if isinstance(value, Literal) and value.lstrip().startswith("["):
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
class Place:
    """A place for weights."""

    range: str = "auto, cpu, mps, cuda or cuda:N"
    choices: tuple[str, ...] = ()

    def __call__(self, value: Any) -> str:
        if not isinstance(value, str) or not re.fullmatch(r"auto|cpu|mps|cuda(:\d{1,3})?", value):
            raise ValueError(f"must be {self.range}, not {_shown(value)}.")
        return str(value)


@dataclass(frozen=True)
class Automatic:
    """What another kind takes, or the word "auto", which leaves the choice open (None)."""

    kind: Kind

    @property
    def range(self) -> str:
        return f'"auto" or {self.kind.range}'

    @property
    def choices(self) -> tuple[str, ...]:
        return ("auto", *self.kind.choices) if self.kind.choices else ()

    def __call__(self, value: Any) -> Any:
        if value == "auto":
            return None
        try:
            return self.kind(value)
        except ValueError as error:
            raise ValueError(str(error).replace("must be ", 'must be "auto" or ', 1)) from None


@dataclass(frozen=True)
class Seed:
    """A seed; "auto" and -1 draw one for each run (None)."""

    range: str = f'"auto" or -1 (draws one), or a whole number from 0 to {seeds.MOST}'
    choices: tuple[str, ...] = ()

    def __call__(self, value: Any) -> int | None:
        if value == "auto":
            return None
        try:
            number = Whole(-1, seeds.MOST)(value)
        except ValueError:
            raise ValueError(f"must be {self.range}, not {_shown(value)}.") from None
        return None if number == -1 else number


def _shown(value: Any) -> str:
    shown = repr(str(value) if isinstance(value, Literal) else value)
    return shown if len(shown) <= 60 else f"{shown[:57]}…"


text = Text()
SCHEMA: dict[str, Kind] = {
    "models.name": Text(empty=False),
    "models.expert": text,
    "models.amateur": text,
    "models.draft": text,
    "models.folders": Texts(),
    "precision": OneOf(get_args(Precision)),
    "device": Place(),
    "context": Whole(0, 2**24),
    "strategy": text,
    "mode": OneOf(get_args(Mode)),
    "stream": Switch(),
    "max_length": Whole(1, 2**20),
    "seed": Seed(),
    "stop": Texts(),
    "chat": Automatic(Switch()),
    "system": text,
    "control_tokens": Switch(),
    "decoder_folders": Texts(),
    "ui.theme": Text(empty=False),
    "ui.frame_rate": Whole(1, 60),
    "ui.sidebar": Switch(),
    "ui.ascii": Automatic(Switch()),
    "ui.mouse": Switch(),
    "ui.tour": Switch(),
    "history.keep": Switch(),
}
"""Every setting but the open tables `parameters`, `template` and `keys`, by dotted path."""
