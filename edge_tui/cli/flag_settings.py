"""Loads the settings with the command line's flags as their top layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edge_tui.config.names import flag_of, known_parameters
from edge_tui.config.reader import Notice
from edge_tui.config.schema import RawText
from edge_tui.config.settings import load
from edge_tui.decoders.base import TextParam
from edge_tui.decoders.registry.chain_text import join
from edge_tui.engine.text.template_variables import assignment
from edge_tui.errors import UsageError
from edge_tui.util.user_file import expand

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from edge_tui.config.settings import Settings


def pop_flags(flags: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Removes a command's own flags from `flags` and returns them; the settings remain."""
    return {name: flags.pop(name) for name in names if name in flags}


def split_parameter(pair: str) -> tuple[str, str]:
    """Splits what `--set` takes into name and value; spaces around the value are part of a text.

    Raises:
        UsageError: it is not NAME=VALUE.
    """
    name, equals, value = pair.partition("=")
    if not equals:
        raise UsageError(f"--set takes NAME=VALUE, for example --set temperature=0.7, not {pair!r}.")
    return name.strip(), value


def load_settings(flags: dict[str, Any]) -> tuple[Settings, list[Notice]]:
    """Loads all layers of settings.

    Args:
        flags: Values by dotted key; `config` names the file, `set` and `template` hold NAME=VALUE pairs,
            `chain` the stages around the strategy, that of the settings without a flag.

    Raises:
        UsageError: a flag's value cannot be used.
    """
    overrides: dict[str, Any] = {
        key: RawText(value) if isinstance(value, str) else value
        for key, value in flags.items()
        if key not in ("chain", "config", "set", "template")
    }
    repeated: list[Notice] = []
    for pair in flags.get("template", []):
        try:
            name, variable = assignment(pair)
        except ValueError as error:
            raise UsageError(f"--template: {error}") from error
        repeated += _override(overrides, f"template.{name}", variable)
    for pair in flags.get("set", []):
        name, value = split_parameter(pair)
        key = f"parameters.{name}"
        overrides[key] = (*overrides.get(key, ()), RawText(value))
    config = flags.get("config")
    user_file = expand(config) if config else None
    if chain := flags.get("chain"):
        strategy = flags.get("strategy") or load(overrides, user_file=user_file)[0].strategy
        overrides["strategy"] = RawText(join(strategy, chain))
    settings, notices = load(overrides, user_file=user_file)
    repeated += _repeated(overrides)
    for notice in notices:
        if notice.origin.startswith("--"):
            raise UsageError(str(notice))
    return settings, [*notices, *repeated, *settings.flag_conflicts()]


def _override(overrides: dict[str, Any], key: str, value: Any) -> list[Notice]:
    """Adds a flag's value; returns a notice if it replaces another one of the same name."""
    before = overrides.get(key, value)
    overrides[key] = value
    return [] if before == value else [_twice(key, value, before)]


def _repeated(overrides: Mapping[str, Any]) -> list[Notice]:
    """Lists a notice for each parameter that was given twice, lists of texts aside."""
    params = known_parameters()
    notices = []
    for key, values in overrides.items():
        param = params.get(key.rpartition(".")[2])
        if key.startswith("parameters.") and not (isinstance(param, TextParam) and param.many):
            notices += [_twice(key, values[-1], before) for before in values[:-1] if before != values[-1]]
    return notices


def _twice(key: str, value: Any, before: Any) -> Notice:
    name = key.partition(".")[2]
    return Notice(f"{flag_of(key)} {name} was given twice: {value} holds, {before} does not count.")
