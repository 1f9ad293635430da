"""Declares the settings of a run as the sidebar shows them, and reads their typed values. No widget."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import isclose, log1p
from typing import Any, Literal, get_args

from edge_tui.config.settings import Settings
from edge_tui.decoders.base import Param, ParamError, Text, TextParam, Value
from edge_tui.engine import seeds
from edge_tui.engine.port import Mode
from edge_tui.engine.text.template_variables import assignments, write_assignments

MODES: tuple[Mode, ...] = get_args(Mode)
MAX_LENGTH = Param(
    "max_length", 256, 1, 2**20, "Most new tokens of one answer.", step=32, integer=True, live=False,
    label="new tokens",
)  # fmt: skip
MODE = Param(
    "mode", 0, 0, 2, "exploratory sets temperature 1.5, focused 0.7; custom leaves it to you.",
    step=1, choices=MODES, live=False,
)  # fmt: skip
CHAT = Param(
    "chat", 0, 0, 2, "Wrap the prompt in the chat template; auto: if the model has one.", step=1,
    choices=("auto", "on", "off"), live=False,
)  # fmt: skip
SEED = Param(
    "seed", -1, 0, seeds.MOST,
    "Same seed, same tokens; empty or -1 draws one for each run. Turns of a conversation derive theirs.",
    step=1, integer=True, live=False,
)  # fmt: skip
RUN_PARAMS = (MAX_LENGTH, MODE, CHAT)
"""Settings of a run that step like a parameter."""
_CHAT_VALUES = (None, True, False)
"""Values of the setting in the order of the choices of `CHAT`."""
DRAWN = ("", "-1", "random", "auto")
"""Texts that stand for a seed that is drawn for each run."""
TEXTS = {
    "stop": "Texts that end the answer, separated by ' | '; \\n is a new line.",
    "system": "System prompt for the chat template.",
    "template": "Variables of the chat template, as in enable_thinking=false; separated by spaces.",
}
TYPED = ("seed", *TEXTS)
"""Settings of a run that are typed as a text."""
_SEPARATED = "Several are separated by ' | '; \\n is a new line."
_WRITTEN = {ord("\\"): "\\\\", ord("\n"): "\\n", ord("\t"): "\\t"}
_READ = {"\\": "\\", "n": "\n", "t": "\t", "|": "|"}
_ESCAPED = re.compile(r"\\([\\nt|])")
_LONE_BAR = re.compile(r"(?<![^ ])\||\|(?![^ ])")
"""A bar at a space or an end, which would read as the one between two texts."""
YOU = "you"
"""Source of a value that the user has set on the screen."""


@dataclass(frozen=True, slots=True)
class Row:
    """Describes one line of the sidebar.

    Attributes:
        key: Key for `RunParams.set`.
        title: Name as shown.
        shown: Value as shown.
        fraction: Position within the range, 0–1; None where a bar means nothing.
        changed: True where it differs from the settings' value.
        live: True where a running generation takes a new value.
        source: Source of the value.
        help: One line.
        range: Allowed values, as short as can be.
        group: "strategy" or "run".
    """

    key: str
    title: str
    shown: str
    fraction: float | None
    changed: bool
    live: bool
    source: str
    help: str
    range: str
    group: Literal["strategy", "run"]


@dataclass(frozen=True, slots=True)
class ParamPatch:
    """Holds values to take over, as a preset or a stored run has them.

    Attributes:
        values: A strategy's parameters by name.
        mode: None leaves it.
        max_length: None leaves it.
        stop: None leaves it.
        chat: None leaves it.
        system: None leaves it.
        template: None leaves it.
    """

    values: Mapping[str, Value]
    mode: Literal["custom", "exploratory", "focused"] | None = None
    max_length: int | None = None
    stop: tuple[str, ...] | None = None
    chat: bool | None = None
    system: str | None = None
    template: Mapping[str, object] | None = None


def run_rows(now: Settings, before: Settings, source: Callable[[str], str]) -> list[Row]:
    """Builds the lines of a run's settings.

    Args:
        now: The settings with the values of the next request.
        before: The settings alone.
        source: Gives the source of a key's value.
    """

    def number_row(param: Param) -> Row:
        value, configured = (to_number(param, getattr(run, param.name)) for run in (now, before))
        return row_of(param, value, source(param.name), value != configured, "run")

    rows = [
        number_row(MAX_LENGTH),
        number_row(MODE),
        replace(
            number_row(SEED),
            shown="random" if now.seed is None else str(now.seed),
            changed=now.seed != before.seed,
            fraction=None,
            range="empty, 0, 1, …",
        ),
        number_row(CHAT),
    ]
    for key, about in TEXTS.items():
        text = write_typed(key, getattr(now, key))
        changed = text != write_typed(key, getattr(before, key))
        rows.append(Row(key, key, text or "none", None, changed, False, source(key), about, "text", "run"))
    return rows


def row_of(param: Param, value: float, source: str, changed: bool, group: Literal["strategy", "run"]) -> Row:
    """Builds a parameter's line, with its position in the range."""
    span = param.high - param.low
    fraction = None
    if not param.choices and span > 0:
        # A range that spans decades is shown on a logarithmic scale, or the bar would never move.
        wide = span / param.step > 400
        at = log1p(value - param.low) / log1p(span) if wide else (value - param.low) / span
        fraction = min(max(at, 0.0), 1.0)
    return Row(
        key=param.name,
        title=param.title,
        shown=param.text(value),
        fraction=fraction,
        changed=changed,
        live=param.live,
        source=source,
        help=param.help,
        range=short_range(param),
        group=group,
    )


def text_row(param: TextParam, value: Text, source: str, changed: bool) -> Row:
    """Builds the line of a parameter that is text."""
    return Row(
        key=param.name,
        title=param.title,
        shown=write_text(value) or "none",
        fraction=None,
        changed=changed,
        live=False,
        source=source,
        help=f"{param.help} {_SEPARATED}".strip() if param.many else param.help,
        range="texts" if param.many else "text",
        group="strategy",
    )


def short_range(param: Param) -> str:
    """Writes a parameter's range in a few cells: "1–64", ">0–1", "off | on"."""
    if param.choices:
        return f"{len(param.choices)} choices" if len(param.choices) > 2 else " | ".join(param.choices)
    return f"{'>' if param.low_open else ''}{param.text(param.low)}–{param.text(param.high)}"


def step_value(param: Param, value: float, steps: int) -> float:
    """Moves a value by steps: choices go round, numbers stop at the ends of their range.

    Numbers become multiples of the step, so that 0.93 goes to 0.95 and not to 0.98.
    """
    if param.choices:
        return float((int(value) + steps) % len(param.choices))
    position = value / param.step
    if isclose(position, round(position), abs_tol=1e-6):
        target = round(position) + steps
    else:
        target = int(position // 1) + (steps if steps > 0 else steps + 1)
    moved = min(max(round(target * param.step, 10), param.low), param.high)
    if param.low_open and moved <= param.low:
        return value if value < param.step else param.step
    return moved


def to_number(param: Param, value: Any) -> float:
    """Converts a setting of the run to its parameter's number."""
    if param is CHAT:
        return float(_CHAT_VALUES.index(value))
    return float(MODES.index(value) if param is MODE else value or 0)


def from_number(param: Param, number: float) -> Any:
    """Converts a parameter's number to the setting of the run."""
    index = int(number)
    return _CHAT_VALUES[index] if param is CHAT else MODES[index] if param is MODE else index


def read_typed(key: str, text: str) -> Any:
    """Reads the value that is typed for one of the keys in `TYPED`.

    Raises:
        ParamError: it is none.
    """
    if key == "seed":
        return None if text.strip() in DRAWN else _read_seed(text)
    if key == "stop":
        return read_list(text)
    if key == "template":
        try:
            return assignments(text)
        except ValueError as error:
            raise ParamError(str(error)) from error
    return text


def write_typed(key: str, value: Any) -> str:
    """Writes a value as `read_typed` reads it."""
    if key == "seed":
        return "" if value is None else str(value)
    if key == "stop":
        return write_text(value)
    return write_assignments(value) if key == "template" else str(value)


def _read_seed(text: str) -> int:
    try:
        seed = int(text)
    except ValueError:
        seed = -1
    if not 0 <= seed <= seeds.MOST:
        raise ParamError(f"seed is {text!r}; it must be empty or a whole number from 0 to {seeds.MOST}.")
    return seed


def read_text(param: TextParam, text: str) -> Text:
    """Reads a typed value of a parameter that is text.

    Raises:
        ParamError: it is none.
    """
    return param.parse(read_list(text) if param.many else _unescape(text))


def read_list(text: str) -> tuple[str, ...]:
    """Reads texts that are typed with " | " between them."""
    return tuple(_unescape(part) for part in text.split(" | ") if part)


def write_text(value: Text) -> str:
    """Writes a text, or several, as they are typed."""
    if isinstance(value, str):
        return _escape(value)
    return " | ".join(_LONE_BAR.sub(r"\\|", _escape(each)) for each in value)


def _escape(text: str) -> str:
    """Writes backslashes, line breaks and tabs as they are typed."""
    return text.translate(_WRITTEN)


def _unescape(text: str) -> str:
    """Reads what `_escape` writes; a backslash before anything else stays one."""
    return _ESCAPED.sub(lambda match: _READ[match[1]], text)
