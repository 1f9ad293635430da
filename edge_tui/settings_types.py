"""What each setting may be: one check per key, from a TOML value or a text to the settings' own type.

A check raises `ValueError` with the rest of a sentence about the key: "must be …, not …".
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, get_args

from edge_tui.engine.port import Mode, Precision

Check = Callable[[Any], Any]

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


def text(value: Any) -> str:
    """Any string."""
    if not isinstance(value, str):
        raise ValueError(f"must be a text in quotes, not {_shown(value)}.")
    return str(value)


def switch(value: Any) -> bool:
    """True or false."""
    if isinstance(value, Literal) and value.lower() in _SWITCH:
        return _SWITCH[value.lower()]
    if not isinstance(value, bool):
        raise ValueError(f"must be true or false, not {_shown(value)}.")
    return value


def whole(low: int, high: int) -> Check:
    """A whole number within bounds."""

    def check(value: Any) -> int:
        number = int(value) if isinstance(value, Literal) and re.fullmatch(r"[+-]?\d{1,18}", value) else value
        if not isinstance(number, int) or isinstance(number, bool) or not low <= number <= high:
            raise ValueError(f"must be a whole number from {low} to {high}, not {_shown(value)}.")
        return number

    return check


def one_of(*choices: str) -> Check:
    """One of a few words."""

    def check(value: Any) -> str:
        if value not in choices:
            raise ValueError(f"must be {' | '.join(choices)}, not {_shown(value)}.")
        return str(value)

    return check


def texts(value: Any) -> tuple[str, ...]:
    """A list of strings; one string is a list of one."""
    if isinstance(value, Literal) and value.lstrip().startswith("["):
        import tomli

        try:
            value = tomli.loads(f"value = {value}")["value"]
        except tomli.TOMLDecodeError as error:
            raise ValueError(f"must be a list of texts, not {_shown(value)}.") from error
    if isinstance(value, str):
        return (str(value),) if value else ()
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError(f"must be a list of texts, not {_shown(value)}.")
    return tuple(value)


def device(value: Any) -> str:
    """A place for weights."""
    if not isinstance(value, str) or not re.fullmatch(r"auto|cpu|mps|cuda(:\d{1,3})?", value):
        raise ValueError(f"must be auto, cpu, mps, cuda or cuda:N, not {_shown(value)}.")
    return str(value)


def automatic(check: Check) -> Check:
    """`check`, or the word "auto", which leaves the choice open (None)."""

    def checked(value: Any) -> Any:
        if value == "auto":
            return None
        try:
            return check(value)
        except ValueError as error:
            raise ValueError(str(error).replace("must be ", 'must be "auto" or ', 1)) from None

    return checked


def _shown(value: Any) -> str:
    shown = repr(str(value) if isinstance(value, Literal) else value)
    return shown if len(shown) <= 60 else f"{shown[:57]}…"


SCHEMA: dict[str, Check] = {
    "models.name": text,
    "models.expert": text,
    "models.amateur": text,
    "models.draft": text,
    "models.folders": texts,
    "precision": one_of(*get_args(Precision)),
    "device": device,
    "context": whole(0, 2**24),
    "strategy": text,
    "mode": one_of(*get_args(Mode)),
    "stream": switch,
    "max_length": whole(1, 2**20),
    "seed": automatic(whole(0, 2**63 - 1)),
    "stop": texts,
    "chat": automatic(switch),
    "system": text,
    "decoder_folders": texts,
    "ui.theme": text,
    "ui.frame_rate": whole(1, 60),
    "ui.sidebar": switch,
    "ui.ascii": switch,
    "ui.mouse": switch,
    "history.keep": switch,
}
"""Every setting but the open tables `parameters` and `keys`, by dotted path."""
