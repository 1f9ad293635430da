"""Declares the settings of a run as the sidebar shows them, and reads what is typed for them. No widget."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import log1p
from typing import Literal, get_args

from edge_tui.decoders.base import Param, ParamError
from edge_tui.engine import seeds
from edge_tui.engine.port import Mode
from edge_tui.engine.text.template_variables import assignments, written

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
DRAWN = ("", "-1", "random", "auto")
"""What is typed for a seed that is drawn for each run."""
TEXTS = {
    "stop": "Texts that end the answer, separated by ' | '; \\n is a new line.",
    "system": "System prompt for the chat template.",
    "template": "Variables of the chat template, as in enable_thinking=false; separated by spaces.",
}
YOU = "you"
"""The source of what the user turned or typed."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the sidebar.

    Attributes:
        key: What `RunParams.set` takes.
        title: Name as shown.
        shown: Value as shown.
        fraction: Position within the range, 0–1; None where a bar means nothing.
        changed: Whether it differs from what it is without the user's doing.
        live: Whether a running generation takes a new value.
        source: Where the value comes from.
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
    """Values to take over, as a preset or a kept run has them.

    Attributes:
        values: A strategy's parameters by name.
        mode: None leaves it.
        max_length: None leaves it.
        seed: None leaves it; below 0 draws a new one for each run.
        stop: None leaves it.
        chat: None leaves it.
        system: None leaves it.
        template: None leaves it.
    """

    values: Mapping[str, float | str]
    mode: Literal["custom", "exploratory", "focused"] | None = None
    max_length: int | None = None
    seed: int | None = None
    stop: tuple[str, ...] | None = None
    chat: bool | None = None
    system: str | None = None
    template: Mapping[str, object] | None = None


@dataclass(frozen=True, slots=True)
class RunValues:
    """The settings of a run besides parameters, as `Settings` has them."""

    max_length: int
    mode: Mode
    seed: int | None
    chat: bool | None
    stop: tuple[str, ...]
    system: str
    template: Mapping[str, object]


def run_rows(now: RunValues, before: RunValues, source: Callable[[str], str]) -> list[Row]:
    """Makes the lines of a run's settings.

    Args:
        now: The values.
        before: What they are without the user's doing.
        source: Where the value of a key comes from.
    """

    def plain(param: Param, value: float, given: float) -> Row:
        return row_of(param, value, source(param.name), value != given, "run")

    rows = [
        plain(MAX_LENGTH, float(now.max_length), float(before.max_length)),
        plain(MODE, float(MODES.index(now.mode)), float(MODES.index(before.mode))),
        replace(
            plain(SEED, float(now.seed or 0), float(before.seed or 0)),
            shown="random" if now.seed is None else str(now.seed),
            changed=now.seed != before.seed,
            fraction=None,
            range="empty, 0, 1, …",
        ),
        plain(CHAT, tristate(now.chat), tristate(before.chat)),
    ]
    for key, text, given in (
        ("stop", " | ".join(map(escape, now.stop)), " | ".join(map(escape, before.stop))),
        ("system", now.system, before.system),
        ("template", written(now.template), written(before.template)),
    ):
        changed = text != given
        rows.append(
            Row(key, key, text or "none", None, changed, False, source(key), TEXTS[key], "text", "run")
        )
    return rows


def row_of(param: Param, value: float, source: str, changed: bool, group: Literal["strategy", "run"]) -> Row:
    """Makes a parameter's line, with its place in the range."""
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
        shown=param.format(value),
        fraction=fraction,
        changed=changed,
        live=param.live,
        source=source,
        help=param.help,
        range=short_range(param),
        group=group,
    )


def short_range(param: Param) -> str:
    """A parameter's range in a few cells: "1–64", ">0–1", "off | on"."""
    if param.choices:
        return f"{len(param.choices)} choices" if len(param.choices) > 2 else " | ".join(param.choices)
    return f"{'>' if param.low_open else ''}{param.format(param.low)}–{param.format(param.high)}"


def toward(at: float, steps: int) -> int:
    """The grid point reached from between two of them."""
    return int(at // 1) + (steps if steps > 0 else steps + 1)


def tristate(value: bool | None) -> float:
    """Turns None, True and False into the index of `CHAT`'s choices."""
    return 0.0 if value is None else 1.0 if value else 2.0


def seed_of(raw: str | float) -> int:
    """Reads a seed as it was typed.

    Raises:
        ParamError: it is none.
    """
    try:
        seed = int(raw)
    except (TypeError, ValueError):
        seed = -1
    if not 0 <= seed <= seeds.MOST:
        raise ParamError(f"seed is {raw!r}, but must be empty or a whole number from 0 to {seeds.MOST}.")
    return seed


def variables_of(raw: str) -> dict[str, object]:
    """Template variables as they were typed.

    Raises:
        ParamError: one cannot be used; a sentence.
    """
    try:
        return assignments(raw)
    except ValueError as error:
        raise ParamError(str(error)) from error


def escape(text: str) -> str:
    """Writes backslashes, line breaks and tabs as they are typed."""
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace("\t", "\\t")


def unescape(text: str) -> str:
    """Reads what `escape` writes."""
    marker = "\0"
    text = text.replace("\\\\", marker).replace("\\n", "\n").replace("\\t", "\t")
    return text.replace(marker, "\\")
