"""Lists every setting for the settings screen, and writes changes into the user's file. No widget.

The list follows from the schema of settings, the strategies' parameters and the actions that have keys: what
is added there is here without further words.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

from edge_tui import decoders
from edge_tui.config import resources
from edge_tui.config.names import shared_parameters, with_chains
from edge_tui.config.precedence import Layer
from edge_tui.config.reader import TEMPLATE, comments
from edge_tui.config.schema import SCHEMA, Integer, RawText
from edge_tui.config.settings import COMMON, user_config
from edge_tui.config.writer import change, toml_text
from edge_tui.decoders.base import TextParam
from edge_tui.engine.text import template_variables
from edge_tui.tui.keymap import BindingInfo, conflict, parse_keys, scope_title
from edge_tui.tui.run_settings import read_text, step_value, write_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from edge_tui.config.precedence import Decision
    from edge_tui.config.reader import Notice
    from edge_tui.config.settings import Settings
    from edge_tui.decoders.base import AnyParam
    from edge_tui.tui.keymap import Keymap

_LIVE = {
    "strategy", "mode", "stream", "max_length", "seed", "stop", "chat", "system", "control_tokens",
    "ui.theme", "ui.sidebar", "ui.curve",
}  # fmt: skip
"""Settings of which a change holds at once."""


@dataclass(frozen=True, slots=True)
class Entry:
    """Describes one line of the settings screen.

    Attributes:
        key: Dotted, as in the file.
        shown: Its value.
        source: Source of that value.
        help: One sentence about it.
        range: Values that it may have.
        kind: Way to change it.
        choices: All it may be, where those are few.
        live: True if a change holds at once; otherwise from the next start on.
    """

    key: str
    shown: str
    source: str
    help: str
    range: str
    kind: Literal["setting", "parameter", "key"]
    choices: tuple[str, ...] = ()
    live: bool = True


class Preferences:
    """Lists and changes the settings in the user's file.

    Args:
        settings: As they are now.
        bound: Every action that can have another key.
        keymap: The keys that were given to actions.
        themes: Names of the themes there are.
    """

    def __init__(
        self, settings: Settings, bound: Sequence[BindingInfo], keymap: Keymap, themes: Sequence[str] = ()
    ) -> None:
        self.settings = settings
        self._bindings = {each.name: each for each in bound}
        self._keymap = keymap
        self._themes = tuple(themes)

    def entries(self) -> list[Entry]:
        """Lists settings, then template variables, parameters and keys, each in the order of the file."""
        found = [*map(self._plain, SCHEMA), *self._template()]
        found += [self._parameter(key, param) for key, param in self._declared().items()]
        return found + [self._key_entry(bound) for bound in self._bindings.values()]

    def _plain(self, key: str) -> Entry:
        kind, shown, source = SCHEMA[key], _text(self.settings.value_of(key)), self.settings.source(key)
        about, choices, live = _comments().get(key, ""), self._choices(key) or kind.choices, key in _LIVE
        return Entry(key, shown, source, about, kind.allowed, "setting", choices, live)

    def _choices(self, key: str) -> tuple[str, ...]:
        if key == "ui.theme":
            return self._themes
        return tuple(decoder.name for decoder in decoders.strategies()) if key == "strategy" else ()

    def _template(self) -> Iterator[Entry]:
        for name, value in self.settings.template.items():
            key, shown = f"{TEMPLATE}{name}", json.dumps(value, ensure_ascii=False)
            about, allowed = "A variable of the chat template.", 'as in TOML: false, 3, "text"'
            yield Entry(key, shown, self.settings.source(key), about, allowed, "setting")

    def _decision(self, key: str) -> Decision | None:
        """Decides the value of a parameter's key; None leaves it to the strategy."""
        table, _, name = key.removeprefix("parameters.").rpartition(".")
        return self.settings.decision(table or COMMON, name)

    def _parameter(self, key: str, param: AnyParam) -> Entry:
        decision = self._decision(key)
        winner = decision.winner if decision is not None else None
        source = winner.source if winner is not None else "default"
        choices: tuple[str, ...]
        if isinstance(param, TextParam):
            shown, choices = write_text(winner.value if winner is not None else param.default), ()
        else:
            shown, choices = param.text(winner.value if winner is not None else param.default), param.choices
        return Entry(key, shown, source, param.help, param.limits(), "parameter", choices)

    def _declared(self) -> dict[str, AnyParam]:
        shared = shared_parameters()
        found = {f"parameters.{name}": param for name, param in shared.items()}
        for decoder in with_chains((self.settings.strategy, *self.settings.parameters)):
            own = (param for param in decoder.params if param.name not in shared)
            found |= {f"parameters.{decoder.name}.{param.name}": param for param in own}
        return found

    def _key_entry(self, bound: BindingInfo) -> Entry:
        key, shown = f"keys.{bound.name}", self._keymap.keys.get(bound.id, bound.keys).replace(",", " ")
        about = f"{bound.help} ({scope_title(bound)})"
        return Entry(key, shown, self.settings.source(key), about, "a key", "key")

    def entry(self, key: str) -> Entry:
        """Returns the line of a key."""
        return next(entry for entry in self.entries() if entry.key == key)

    # Changing.

    def check(self, key: str, text: str) -> Any:
        """Converts a typed text to its TOML value.

        Raises:
            ValueError: it is none; a sentence.
        """
        if key.startswith("keys."):
            return self._key(self._bindings[key.removeprefix("keys.")], text)
        if key.startswith(TEMPLATE):
            try:
                return template_variables.check(key.removeprefix(TEMPLATE), template_variables.parse(text))
            except ValueError as error:
                raise ValueError(f"{key} {error}") from None
        if key.startswith("parameters."):
            param = self._declared()[key]
            if isinstance(param, TextParam):
                value = read_text(param, text)
                return list(value) if isinstance(value, tuple) else value
            number = param.parse(text if param.choices else _maybe_number(text))
            return param.text(number) if param.choices else _plain_number(number)
        try:
            value = SCHEMA[key](RawText(text))
            if key == "strategy":
                value = decoders.find(value).name
        except decoders.UnknownStrategy as error:
            raise ValueError(str(error)) from None
        except ValueError as error:
            raise ValueError(f"{key} {error}") from None
        return "auto" if value is None else list(value) if isinstance(value, tuple) else value

    def _key(self, bound: BindingInfo, text: str) -> str:
        keys, wrong = parse_keys(text)
        if wrong or not keys:
            raise ValueError(f"{text!r} is no key; write one like ctrl+r, f5 or ?.")
        for key in keys:
            if other := conflict(bound.id, key, self._keymap.keys, self._bindings.values()):
                raise ValueError(
                    f"{key} is the key of {other.name} ({scope_title(other)}); give that another one first."
                )
        return ",".join(keys)

    def set(self, key: str, text: str) -> list[Notice]:
        """Writes a value into the user's file and reads all settings anew.

        Raises:
            ValueError: the value cannot be used; nothing was written.
            ConfigError: the file cannot be changed.
        """
        return self._write(key, self.check(key, text))

    def unset(self, key: str) -> list[Notice]:
        """Removes a key from the user's file, so that its default holds again.

        Raises:
            ConfigError: the file cannot be changed.
        """
        return self._write(key, None)

    def _write(self, key: str, value: Any) -> list[Notice]:
        change(self.settings.file or user_config(), {key: value})
        self.settings, notices = self.settings.reload()
        return notices

    def step(self, key: str, steps: int) -> str | None:
        """Steps a value up or down and writes it as a text; None where there are no steps."""
        entry = self.entry(key)
        if entry.choices:
            at = entry.choices.index(entry.shown) if entry.shown in entry.choices else -1
            return entry.choices[(at + steps) % len(entry.choices)]
        if entry.kind == "parameter":
            param = self._declared()[key]
            if isinstance(param, TextParam):
                return None
            return param.text(step_value(param, param.parse(entry.shown), steps))
        kind = SCHEMA.get(key)
        if isinstance(kind, Integer):
            return str(min(max(int(entry.shown) + steps, kind.low), kind.high))
        return None

    def winning_source(self, key: str) -> str:
        """Names the source that wins over a key of the file: a variable, a flag, a mode; "" for none."""
        if key.startswith("parameters.") and (decision := self._decision(key)) is not None:
            winner = decision.winner
            if winner.key != key:
                return f"mode = {winner.word}" if winner.word else winner.source
        claims = self.settings.claims.get(key, ())
        return claims[-1].source if claims and claims[-1].layer > Layer.FILE else ""


@lru_cache(maxsize=1)
def _comments() -> dict[str, str]:
    return comments(resources.config_file())


def _text(value: Any) -> str:
    """Writes a value as one types it: texts without quotes, lists as TOML."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | int):
        return str(value)
    return "auto" if value is None else toml_text(value)


def _maybe_number(text: str) -> object:
    try:
        return float(text)
    except ValueError:
        return text


def _plain_number(number: float) -> int | float:
    return int(number) if number == int(number) else number
