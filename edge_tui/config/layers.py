"""Checks the values of files, environment and command line, and lays them on top of each other."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_tui import decoders
from edge_tui.config.names import declarations, find, flag_of, known_parameters, nearest, parameters_by_name
from edge_tui.config.precedence import Claim, Layer, Rank
from edge_tui.config.reader import TEMPLATE, Document, Notice
from edge_tui.config.schema import QUANTIZATION, SCHEMA, STRING, STRINGS, RawText
from edge_tui.decoders.base import ParamError, TextParam
from edge_tui.decoders.registry.chain_text import is_chain
from edge_tui.engine.text import template_variables
from edge_tui.util.user_file import expand

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from edge_tui.decoders.base import AnyParam, Value

ENVIRONMENT = "EDGE_TUI_"
RESERVED = {"EDGE_TUI_CONFIG", "EDGE_TUI_API_KEY"}
"""Variables that are no setting: the path of the user's file, the key of a server."""
COMMON = ""
"""The table of `Settings.parameters` that holds for every strategy."""


@dataclass(frozen=True, slots=True)
class Location:
    """Names the place in a file, the environment or the command line that gives a value.

    Attributes:
        source: The name that `Settings.source` returns.
        origin: The same for a notice: a file with its whole path.
        layer: The layer that it belongs to.
        line: The line in that file.
        column: The column.
        packaged: True in the shipped file: what equals a built-in default stays a default.
    """

    source: str
    origin: str
    layer: Layer
    line: int = 0
    column: int = 0
    packaged: bool = False


class Layers:
    """Collects values layer by layer, each checked as it comes.

    Args:
        default: A setting's built-in default by its key.
    """

    def __init__(self, default: Callable[[str], Any]) -> None:
        self._default = default
        self.flat: dict[str, Any] = {}
        self.parameters: dict[str, dict[str, Value]] = {}
        self.tables: dict[str, dict[str, Any]] = {"keys": {}, "template": {}}
        self.claims: dict[str, list[Claim]] = {}
        self.notices: list[Notice] = []
        self._entries: list[tuple[str, Any, Location]] = []

    def add_file(self, document: Document, *, packaged: bool = False) -> None:
        """Adds the values of a TOML file."""
        path = document.path
        for key, value in document.values.items():
            line, column = document.position(key)
            place = Location(f"{path.name}:{line}", str(path), Layer.FILE, line, column, packaged)
            self._entries.append((key, value, place))

    def add_environment(self, env: Mapping[str, str]) -> None:
        """Adds `EDGE_TUI_*`; an empty one sets a text or list that may be empty, else nothing."""
        for name in sorted(env):
            if name.startswith(ENVIRONMENT) and name not in RESERVED:
                key = name.removeprefix(ENVIRONMENT).lower().replace("__", ".")
                if env[name] or not _needs_value(key):
                    self._entries.append((key, RawText(env[name]), Location(name, name, Layer.ENVIRONMENT)))

    def add_flags(self, overrides: Mapping[str, Any]) -> None:
        """Adds the command line's values; text is a `RawText` there, a parameter's a tuple of them."""
        for key, value in overrides.items():
            flag = flag_of(key)
            self._entries.append((key, value, Location(flag, flag, Layer.FLAG)))

    def check(self, own: Path) -> None:
        """Checks every value and lays it on those below; loads the strategies of the user's folders.

        Args:
            own: The user's own folder of strategies.
        """
        for stage in range(3):
            if stage == 1:  # which strategies there are is known once every layer has named its folders
                decoders.load([own, *map(expand, self.flat.get("decoder_folders", ()))])
            for key, value, location in self._entries:
                if _needs(key) == stage:
                    self._put(key, value, location)

    def _put(self, key: str, value: Any, location: Location) -> None:
        put = self._put_parameter if key.startswith("parameters.") else self._put_setting
        try:
            put(key, value, location)
        except (ValueError, decoders.UnknownStrategy) as error:
            # A parameter's own error already begins with its name.
            prefix = key.rpartition(".")[0] if isinstance(error, ParamError) else key
            if isinstance(error, decoders.UnknownStrategy) and location.layer is Layer.FLAG:
                prefix = ""  # the flag has the key's name already
            self.notices.append(Notice(str(error), location.origin, location.line, prefix, location.column))

    def _claim(self, key: str, value: Any, location: Location, rank: Rank = Rank.COMMON) -> None:
        self.claims.setdefault(key, []).append(Claim(key, value, location.source, location.layer, rank))

    def _put_setting(self, key: str, value: Any, location: Location) -> None:
        """Checks a value of a setting, a template variable or a key binding, and stores it."""
        table, _, name = key.partition(".")
        if table in self.tables and name:
            checked: object
            if table == "keys":
                checked = STRING(value)
            else:
                value = template_variables.parse(value) if isinstance(value, RawText) else value
                checked = template_variables.check(name, value)
            self.tables[table][name] = checked
            self._claim(key, checked, location)
            return
        if key == "quantization":
            key, value = "precision", QUANTIZATION.get(str(value), value)
        if key not in SCHEMA:
            if any(known.startswith(f"{key}.") for known in [*SCHEMA, "parameters.", "keys.", TEMPLATE]):
                raise ValueError(f"is a table: write [{key}] and its keys below it.")
            parameters = (f"parameters.{name}" for name in known_parameters())
            raise ValueError(f"unknown key{nearest(key, [*SCHEMA, 'quantization', *parameters])}")
        value = decoders.find(STRING(value)).name if key == "strategy" else value
        checked = SCHEMA[key](value)
        if not (location.packaged and checked == self._default(key)):
            self.flat[key] = checked
            self._claim(key, checked, location)

    def _put_parameter(self, key: str, value: Any, location: Location) -> None:
        """Checks a value of a strategy's parameter and stores it."""
        strategy, _, name = key.removeprefix("parameters.").rpartition(".")
        if strategy:
            decoder = decoders.find(strategy) if is_chain(strategy) else find(strategy)
            if decoder is None:
                names = [each.name for each in decoders.strategies()]
                raise ValueError(f"unknown strategy{nearest(strategy, names)}")
            strategy, own = decoder.name, parameters_by_name([decoder])
            params = {each: [param] for each, param in own.items()}
        else:
            chosen = find(self.flat.get("strategy", ""))
            own = parameters_by_name([chosen] if chosen is not None else [])
            params = declarations(self.flat.get("strategy", ""))
        declared = params.get(name, [])
        texts = any(isinstance(param, TextParam) for param in declared)
        if location.layer is Layer.ENVIRONMENT and value == "" and not texts:
            return
        if not declared and name in SCHEMA:
            where = f"give {flag_of(name)}" if location.layer > Layer.FILE else "move it above [parameters]"
            raise ValueError(f"this is a setting of its own; {where}.")
        if not declared:
            # A file can have them all, by `config init`; a flag or a variable has no such list beside it.
            listed = f" There is {', '.join(params)}." if location.layer > Layer.FILE else ""
            raise ValueError(f"unknown parameter{nearest(name, params)}{listed}")
        param, number, refusal = _parse(declared, value)
        if not (location.packaged and number == param.default):
            self.parameters.setdefault(strategy, {})[name] = number
            key = f"parameters.{strategy}.{name}" if strategy else f"parameters.{name}"
            self._claim(key, number, location, Rank.OWN if strategy else Rank.COMMON)
        if refusal is not None and name in own:
            raise refusal  # it holds for other strategies, not for the chosen one


def _parse(declared: Sequence[AnyParam], value: Any) -> tuple[AnyParam, Value, ValueError | None]:
    """Reads a value by the first declaration that takes it.

    Returns:
        The declaration, the value, and the error of the first declaration where that is another one.

    Raises:
        ValueError: none takes it.
    """
    refusal: ValueError | None = None
    for param in declared:
        try:
            return param, param.parse(_whole(param, value)), refusal
        except ValueError as error:
            refusal = refusal or error
    assert refusal is not None, "there is at least one"
    raise refusal


def _whole(param: AnyParam, value: Any) -> Any:
    """Reads the texts of flags and variables: a list of texts may be TOML there, or several flags."""
    if isinstance(param, TextParam) and param.many:
        return STRINGS(value) if isinstance(value, RawText) else value
    # Of a flag that was given twice the last one holds.
    return value[-1] if isinstance(value, tuple) and value else value


def _needs(key: str) -> int:
    """Tells when a key can be checked: 0 at once, 1 with the strategies, 2 with the chosen one."""
    return 2 if key.startswith("parameters.") else int(key == "strategy")


def _needs_value(key: str) -> bool:
    """Tells whether an empty text is no value of a key."""
    if key.startswith("parameters."):
        return False  # which of them are text is not known yet
    if key == "strategy" or key.startswith(TEMPLATE):
        return True
    kind = SCHEMA.get("precision" if key == "quantization" else key)
    if kind is not None:
        try:
            kind(RawText(""))
        except ValueError:
            return True
    return False
