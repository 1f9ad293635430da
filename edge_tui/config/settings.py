"""Every setting, where its value came from, and what was wrong with what people wrote.

The layers, later ones win key by key: the built-in defaults (equal to the packaged `config.toml`), the
user's own `config.toml`, the environment (`EDGE_TUI_STRATEGY`, `EDGE_TUI_MODELS__NAME`: a double underscore
stands for the dot), the command line. A value that cannot be used leaves the layer below in force and yields
one `Notice`; nothing here raises, and no file is ever written.

Strategies' own parameters are checked against their declarations, so the ranges in the sidebar, on the
command line and here are the same. Loads no torch.
"""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_tui.config import resources
from edge_tui.config.reader import TEMPLATE, Document, Notice, read
from edge_tui.config.schema import QUANTIZATION, SCHEMA, Literal, text
from edge_tui.engine.port import ModelSpec
from edge_tui.engine.text import template_variables
from edge_tui.util.user_file import exists, expand

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from edge_tui.decoders.base import Decoder, Param
    from edge_tui.engine.port import Mode, Precision

__all__ = ["COMMON", "Models", "Notice", "Settings", "Ui", "load", "user_config"]

ENVIRONMENT = "EDGE_TUI_"
RESERVED = {"EDGE_TUI_CONFIG", "EDGE_TUI_API_KEY"}
"""Variables that are no setting: the path of the user's file, the key of a server."""
AUTO = "auto"
COMMON = ""
"""The table of `Settings.parameters` that holds for every strategy."""


@dataclass(frozen=True, slots=True)
class Models:
    """Which models play. A name is "demo/expert", a repository id in the local cache, or a folder."""

    name: str = "demo/expert"
    expert: str = ""
    """The larger one of a contrastive pair; "" means the same as `name`."""
    amateur: str = "demo/amateur"
    draft: str = ""
    """The one that proposes in speculative decoding; "" means the amateur."""
    folders: tuple[str, ...] = ()
    """Folders whose subfolders are listed on the models screen, besides the local cache."""


@dataclass(frozen=True, slots=True)
class Ui:
    """How the screen looks and reacts."""

    theme: str = "auto"
    """"auto" follows the terminal's light or dark."""
    frame_rate: int = 30
    """Most updates of the token pane a second; a slow terminal gets fewer by itself."""
    sidebar: bool = True
    ascii: bool | None = None
    """Plain ASCII for bars and borders: None means "if the terminal cannot do better"."""
    mouse: bool = True
    tour: bool = True
    """Offer the tour at the first start."""


@dataclass(frozen=True, slots=True)
class History:
    """What stays on disk."""

    keep: bool = True
    """Keep every run with its tokens, for its owner's eyes alone."""


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings of a session. Frozen: a change at run time makes a new one with `dataclasses.replace`."""

    models: Models = field(default_factory=Models)
    precision: Precision = "auto"
    device: str = "auto"
    context: int = 0
    """Positions to reserve; 0 means the model's own limit, at most what memory allows."""
    strategy: str = "top_p"
    mode: Mode = "custom"
    stream: bool = True
    max_length: int = 256
    """Most new tokens."""
    seed: int | None = None
    """None draws a new one for each run."""
    stop: tuple[str, ...] = ()
    chat: bool | None = None
    """Use the chat template: None means "if the checkpoint has one"."""
    system: str = ""
    template: Mapping[str, object] = field(default_factory=dict)
    """Variables of the chat template by name."""
    control_tokens: bool = False
    """Whether a control token's name in a prompt is that token; else it is text."""
    decoder_folders: tuple[str, ...] = ()
    """Folders with strategies of the user's own, besides `decoders` in the configuration folder."""
    ui: Ui = field(default_factory=Ui)
    history: History = field(default_factory=History)
    keys: Mapping[str, str] = field(default_factory=dict)
    """Action id → key, where the user wants another than the built-in one."""
    parameters: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Strategy → parameter → value, only what was set; `COMMON` holds for every strategy."""
    sources: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)
    file: Path | None = field(default=None, compare=False, repr=False)
    """The user's own file, whether it is there or not; None where there is none to write to."""
    flags: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)
    """What the command line said, as `load` was told."""

    def again(self) -> tuple[Settings, list[Notice]]:
        """Reads all layers anew, after the user's file was changed."""
        return load(self.flags, user_file=self.file if self.file and exists(self.file) else None)

    @property
    def expert(self) -> str:
        """The model that plays the expert."""
        return self.models.expert or self.models.name

    def specs(self) -> dict[str, ModelSpec]:
        """The model of each role, as the engine wants to be told."""
        names = {
            "model": self.models.name,
            "expert": self.expert,
            "amateur": self.models.amateur,
            "draft": self.models.draft or self.models.amateur,
        }
        return {
            role: ModelSpec(name, self.precision, self.device, self.context) for role, name in names.items()
        }

    def source(self, key: str) -> str:
        """Where a value came from: "default", "config.toml:12", "EDGE_TUI_STRATEGY" or "--strategy"."""
        return self.sources.get(key, "default")

    def values(self, strategy: str) -> dict[str, float]:
        """What was set for a strategy's parameters; what is missing takes the strategy's own default."""
        return {name: value for name, (value, _) in self._resolved(strategy).items()}

    def value_sources(self, strategy: str) -> dict[str, str]:
        """Where each of `values(strategy)` came from."""
        return {name: source for name, (_, source) in self._resolved(strategy).items()}

    def _resolved(self, strategy: str) -> dict[str, tuple[float, str]]:
        strategy = canonical(strategy)
        own = self.parameters.get(strategy, {})
        # "auto" is what the checkpoint's generation_config.json says: a common default would silence it.
        common = self.parameters.get(COMMON, {}) if strategy != AUTO else {}
        found = {name: (value, self.source(f"parameters.{name}")) for name, value in common.items()}
        found |= {name: (value, self.source(f"parameters.{strategy}.{name}")) for name, value in own.items()}
        return {param.name: found[param.name] for param in parameters_of(strategy) if param.name in found}


def user_config() -> Path:
    """The user's own file: `edge-tui/config.toml` in the platform's configuration folder."""
    import platformdirs

    return platformdirs.user_config_path("edge-tui", appauthor=False) / "config.toml"


def load(
    overrides: Mapping[str, Any] | None = None,
    env: Mapping[str, str] | None = None,
    user_file: Path | None = None,
) -> tuple[Settings, list[Notice]]:
    """Puts the layers on top of each other.

    Args:
        overrides: What the command line says, by dotted path ("models.name", "parameters.temperature").
        env: The environment; `os.environ` when None.
        user_file: Read instead of the user's own `config.toml`; then its absence is worth a notice.

    Returns:
        The settings, and one notice for each thing that could not be used.
    """
    env = os.environ if env is None else env
    if user_file is None and env.get("EDGE_TUI_CONFIG"):
        user_file = expand(env["EDGE_TUI_CONFIG"])
    builder = _Builder()
    packaged, notices = read(resources.config_file())
    builder.file(packaged, packaged=True)
    own = user_file or user_config()
    document, unread = read(own, required=user_file is not None)
    builder.file(document)
    builder.environment(env)
    builder.flags(overrides or {})
    settings = replace(builder.settings(), file=own, flags=dict(overrides or {}))
    return settings, [*notices, *unread, *builder.notices]


def canonical(strategy: str) -> str:
    """A strategy's registry name; a name nobody knows stays as it is."""
    from edge_tui import decoders

    try:
        return decoders.find(strategy).name
    except decoders.UnknownStrategy:
        return strategy


def parameters_of(strategy: str) -> tuple[Param, ...]:
    """What can be set for a strategy; nothing for a name nobody knows."""
    from edge_tui import decoders

    try:
        return tuple(decoders.find(strategy).params)
    except decoders.UnknownStrategy:
        return ()


_FLAGS = {
    "decoder_folders": "--decoders",
    "history.keep": "--no-history",
    "models.name": "--model",
    "stream": "--no-stream",
}
_TABLE_FLAGS = {"parameters": "--set", "template": "--template"}


def flag_of(key: str) -> str:
    """The flag that sets a key."""
    plain = f"--{key.rpartition('.')[2].replace('_', '-')}"
    return _FLAGS.get(key) or _TABLE_FLAGS.get(key.partition(".")[0], plain)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a value was said.

    Attributes:
        source: What `Settings.source` will say.
        origin: The same for a notice: a file with its whole path.
        line: The line in that file.
        session: Meant for this session (environment, command line), so it also wins over what a file says
            about a single strategy.
        packaged: In the shipped file: what equals a built-in default stays a default.
    """

    source: str
    origin: str
    line: int = 0
    session: bool = False
    packaged: bool = False


class _Builder:
    """Collects values layer by layer, each checked as it comes."""

    def __init__(self) -> None:
        self.flat: dict[str, Any] = {}
        self.parameters: dict[str, dict[str, float]] = {}
        self.keys: dict[str, str] = {}
        self.template: dict[str, object] = {}
        self.sources: dict[str, str] = {}
        self.notices: list[Notice] = []
        self._deferred: list[tuple[str, Any, _Place]] = []

    def file(self, document: Document, *, packaged: bool = False) -> None:
        for key, value in document.values.items():
            line = document.line(key)
            place = _Place(f"{document.path.name}:{line}", str(document.path), line, packaged=packaged)
            self.put(key, value, place)

    def environment(self, env: Mapping[str, str]) -> None:
        for name in sorted(env):
            if name.startswith(ENVIRONMENT) and name not in RESERVED:
                key = name.removeprefix(ENVIRONMENT).lower().replace("__", ".")
                self.put(key, Literal(env[name]), _Place(name, name, session=True))

    def flags(self, overrides: Mapping[str, Any]) -> None:
        for key, value in overrides.items():
            flag = flag_of(key)
            self.put(key, value, _Place(flag, flag, session=True))

    def put(self, key: str, value: Any, place: _Place) -> None:
        """Checks one value (as parsed from TOML, a `Literal` where it came as text) and lays it on top."""
        if key == "strategy" or key.startswith("parameters."):
            # Which strategies there are is known only once every layer has named its folders.
            self._deferred.append((key, value, place))
        else:
            self._attempt(self._plain, key, value, place)

    def _attempt(
        self, action: Callable[[str, Any, _Place], None], key: str, value: Any, place: _Place
    ) -> None:
        try:
            action(key, value, place)
        except ValueError as error:
            # A parameter's own error already begins with its name.
            named = key.rpartition(".")[2] if str(error).startswith(key.rpartition(".")[2]) else ""
            shown = key.rpartition(".")[0] if named and key.startswith("parameters.") else key
            self.notices.append(Notice(str(error), place.origin, place.line, shown))

    def _plain(self, key: str, value: Any, place: _Place) -> None:
        if key.startswith("keys."):
            self.keys[key.removeprefix("keys.")] = text(value)
            self.sources[key] = place.source
            return
        if key.startswith(TEMPLATE):
            if isinstance(value, Literal):
                value = template_variables.parse(value)
            name = key.removeprefix(TEMPLATE)
            self.template[name] = template_variables.check(name, value)
            self.sources[key] = place.source
            return
        if key == "quantization":
            key, value = "precision", QUANTIZATION.get(str(value), value)
        if key not in SCHEMA:
            if any(known.startswith(f"{key}.") for known in [*SCHEMA, "parameters.", "keys.", TEMPLATE]):
                raise ValueError(f"is a table: write [{key}] and its keys below it.")
            from edge_tui import decoders

            parameters = (f"parameters.{name}" for name in _declared(decoders.all()))
            raise ValueError(f"unknown key{_nearest(key, [*SCHEMA, 'quantization', *parameters])}")
        checked = SCHEMA[key](value)
        if not (place.packaged and checked == _default(key)):
            self.flat[key] = checked
            self.sources[key] = place.source

    def _strategy(self, key: str, value: Any, place: _Place) -> None:
        from edge_tui import decoders

        try:
            name = decoders.find(text(value)).name
        except decoders.UnknownStrategy as error:
            raise ValueError(str(error)) from None
        self._plain(key, name, place)

    def _parameter(self, key: str, value: Any, place: _Place) -> None:
        from edge_tui import decoders

        strategy, _, name = key.removeprefix("parameters.").rpartition(".")
        if strategy:
            try:
                strategy, declared = canonical(strategy), _declared([decoders.find(strategy)])
            except decoders.UnknownStrategy:
                known = [decoder.name for decoder in decoders.all()]
                raise ValueError(f"unknown strategy{_nearest(strategy, known)}") from None
        else:
            declared = _declared(decoders.all())
        if name not in declared:
            # Whoever types it has no file with all of them before the eyes.
            listed = f" There is {', '.join(declared)}." if place.session else ""
            raise ValueError(f"unknown parameter{_nearest(name, declared)}{listed}")
        number = declared[name].parse(value)
        if place.packaged and number == declared[name].default:
            return
        targets = [strategy]
        if place.session and strategy == COMMON:
            for table in self.parameters.values():
                table.pop(name, None)
            targets.append(AUTO)
        for target in targets:
            self.parameters.setdefault(target, {})[name] = number
            self.sources[f"parameters.{target}.{name}" if target else f"parameters.{name}"] = place.source

    def settings(self) -> Settings:
        """The layers' sum."""
        from edge_tui import decoders

        folders = [user_config().parent / "decoders", *map(_folder, self.flat.get("decoder_folders", ()))]
        decoders.load(folders)
        for key, value, place in self._deferred:
            self._attempt(self._strategy if key == "strategy" else self._parameter, key, value, place)
        settings = Settings(
            keys=self.keys,
            template=self.template,
            parameters={strategy: table for strategy, table in self.parameters.items() if table},
            sources=self.sources,
        )
        for key, value in self.flat.items():
            head, _, tail = key.partition(".")
            if tail:
                value = replace(getattr(settings, head), **{tail: value})
            settings = replace(settings, **{head: value})
        return settings


def _declared(strategies: Iterable[Decoder]) -> dict[str, Param]:
    return {param.name: param for decoder in strategies for param in decoder.params}


def _folder(name: str) -> Path:
    return expand(name)


def _default(key: str) -> Any:
    value: Any = Settings()
    for part in key.split("."):
        value = getattr(value, part)
    return value


def _nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean "x"?`, or nothing when no known name is close."""
    known = list(known)
    # Someone who forgets the table writes only the last part.
    tails = {option.rpartition(".")[2]: option for option in known}
    close = difflib.get_close_matches(name, [*known, *tails], n=1, cutoff=0.6)
    return f'; did you mean "{tails.get(close[0], close[0])}"?' if close else "."
