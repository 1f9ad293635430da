"""Lays the values of a file, the environment and the command line on top of each other, checking each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_tui.config.names import canonical, declared, flag_of, nearest
from edge_tui.config.precedence import Claim, Layer, Rank
from edge_tui.config.reader import TEMPLATE, Document, Notice
from edge_tui.config.schema import QUANTIZATION, SCHEMA, Literal, text
from edge_tui.engine.text import template_variables
from edge_tui.util.user_file import expand

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

ENVIRONMENT = "EDGE_TUI_"
RESERVED = {"EDGE_TUI_CONFIG", "EDGE_TUI_API_KEY"}
"""Variables that are no setting: the path of the user's file, the key of a server."""
COMMON = ""
"""The table of `Settings.parameters` that holds for every strategy."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value was said.

    Attributes:
        source: What `Settings.source` will say.
        origin: The same for a notice: a file with its whole path.
        layer: Which layer it belongs to.
        line: The line in that file.
        column: The column.
        packaged: In the shipped file: what equals a built-in default stays a default.
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
        self.parameters: dict[str, dict[str, float]] = {}
        self.keys: dict[str, str] = {}
        self.template: dict[str, object] = {}
        self.claims: dict[str, list[Claim]] = {}
        self.notices: list[Notice] = []
        self._deferred: list[tuple[str, Any, Place]] = []

    def file(self, document: Document, *, packaged: bool = False) -> None:
        for key, value in document.values.items():
            line, column = document.place(key)
            source = f"{document.path.name}:{line}"
            self.put(key, value, Place(source, str(document.path), Layer.FILE, line, column, packaged))

    def environment(self, env: Mapping[str, str]) -> None:
        """An empty variable sets a text or a list that may be empty; any other it leaves unset."""
        for name in sorted(env):
            if name.startswith(ENVIRONMENT) and name not in RESERVED:
                key = name.removeprefix(ENVIRONMENT).lower().replace("__", ".")
                if env[name] or not _needs_value(key):
                    self.put(key, Literal(env[name]), Place(name, name, Layer.ENVIRONMENT))

    def flags(self, overrides: Mapping[str, Any]) -> None:
        for key, value in overrides.items():
            flag = flag_of(key)
            self.put(key, value, Place(flag, flag, Layer.FLAG))

    def put(self, key: str, value: Any, place: Place) -> None:
        """Checks one value (as parsed from TOML, a `Literal` where it came as text) and lays it on top."""
        if key == "strategy" or key.startswith("parameters."):
            # Which strategies there are is known only once every layer has named its folders.
            self._deferred.append((key, value, place))
        else:
            self._attempt(self._plain, key, value, place)

    def _attempt(self, action: Callable[[str, Any, Place], None], key: str, value: Any, place: Place) -> None:
        try:
            action(key, value, place)
        except ValueError as error:
            # A parameter's own error already begins with its name.
            named = key.rpartition(".")[2] if str(error).startswith(key.rpartition(".")[2]) else ""
            shown = key.rpartition(".")[0] if named and key.startswith("parameters.") else key
            self.notices.append(Notice(str(error), place.origin, place.line, shown, place.column))

    def _claim(self, key: str, value: Any, place: Place, rank: Rank = Rank.COMMON) -> None:
        self.claims.setdefault(key, []).append(Claim(key, value, place.source, place.layer, rank))

    def _plain(self, key: str, value: Any, place: Place) -> None:
        if key.startswith("keys."):
            self.keys[key.removeprefix("keys.")] = text(value)
            self._claim(key, value, place)
            return
        if key.startswith(TEMPLATE):
            if isinstance(value, Literal):
                value = template_variables.parse(value)
            name = key.removeprefix(TEMPLATE)
            self.template[name] = template_variables.check(name, value)
            self._claim(key, self.template[name], place)
            return
        if key == "quantization":
            key, value = "precision", QUANTIZATION.get(str(value), value)
        if key not in SCHEMA:
            if any(known.startswith(f"{key}.") for known in [*SCHEMA, "parameters.", "keys.", TEMPLATE]):
                raise ValueError(f"is a table: write [{key}] and its keys below it.")
            from edge_tui import decoders

            parameters = (f"parameters.{name}" for name in declared(decoders.strategies()))
            raise ValueError(f"unknown key{nearest(key, [*SCHEMA, 'quantization', *parameters])}")
        checked = SCHEMA[key](value)
        if not (place.packaged and checked == self._default(key)):
            self.flat[key] = checked
            self._claim(key, checked, place)

    def _strategy(self, key: str, value: Any, place: Place) -> None:
        from edge_tui import decoders

        try:
            name = decoders.find(text(value)).name
        except decoders.UnknownStrategy as error:
            raise ValueError(str(error)) from None
        self._plain(key, name, place)

    def _parameter(self, key: str, value: Any, place: Place) -> None:
        from edge_tui import decoders

        strategy, _, name = key.removeprefix("parameters.").rpartition(".")
        if strategy:
            try:
                strategy, known_here = canonical(strategy), declared([decoders.find(strategy)])
            except decoders.UnknownStrategy:
                known = [decoder.name for decoder in decoders.strategies()]
                raise ValueError(f"unknown strategy{nearest(strategy, known)}") from None
        else:
            known_here = declared(decoders.strategies())
        if name not in known_here:
            # Whoever types it has no file with all of them before the eyes.
            listed = f" There is {', '.join(known_here)}." if place.layer > Layer.FILE else ""
            raise ValueError(f"unknown parameter{nearest(name, known_here)}{listed}")
        number = known_here[name].parse(value)
        if place.packaged and number == known_here[name].default:
            return
        self.parameters.setdefault(strategy, {})[name] = number
        key = f"parameters.{strategy}.{name}" if strategy else f"parameters.{name}"
        self._claim(key, number, place, Rank.OWN if strategy else Rank.COMMON)

    def finish(self, own: Path) -> None:
        """Loads the strategies of the user's folders, and checks what is said about strategies.

        Args:
            own: The user's own folder of strategies.
        """
        from edge_tui import decoders

        named = self.flat.get("decoder_folders", ())
        decoders.load([own, *map(expand, named)])
        for key, value, place in self._deferred:
            self._attempt(self._strategy if key == "strategy" else self._parameter, key, value, place)


def _needs_value(key: str) -> bool:
    """Whether an empty text is no value of a key."""
    if key == "strategy" or key.startswith(("parameters.", TEMPLATE)):
        return True
    try:
        SCHEMA["precision" if key == "quantization" else key](Literal(""))
    except KeyError:
        return False
    except ValueError:
        return True
    return False
