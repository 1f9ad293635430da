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

from edge_tui import resources
from edge_tui.config_file import Document, Notice, read
from edge_tui.settings_types import QUANTIZATION, SCHEMA, Literal, text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from decoders.base import Param
    from edge_tui.engine.port import Mode, Precision

__all__ = ["COMMON", "Models", "Notice", "Settings", "Ui", "load", "user_config"]

ENVIRONMENT = "EDGE_TUI_"
RESERVED = {"EDGE_TUI_CONFIG"}
"""Variables that are no setting: the path of the user's file."""
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
    folders: tuple[str, ...] = ()
    """Folders whose subfolders are listed on the models screen, besides the local cache."""


@dataclass(frozen=True, slots=True)
class Ui:
    """How the screen looks and reacts."""

    theme: str = "dark"
    frame_rate: int = 30
    """Most updates of the token pane a second; a slow terminal gets fewer by itself."""
    sidebar: bool = True
    ascii: bool = False
    """Plain ASCII for bars and borders."""
    mouse: bool = True


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
    decoder_folders: tuple[str, ...] = ()
    """Folders with strategies of the user's own, besides `decoders` in the configuration folder."""
    ui: Ui = field(default_factory=Ui)
    keys: Mapping[str, str] = field(default_factory=dict)
    """Action id → key, where the user wants another than the built-in one."""
    parameters: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Strategy → parameter → value, only what was set; `COMMON` holds for every strategy."""
    sources: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)

    @property
    def expert(self) -> str:
        """The model that plays the expert."""
        return self.models.expert or self.models.name

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
        user_file = Path(env["EDGE_TUI_CONFIG"]).expanduser()
    builder = _Builder()
    packaged, notices = read(resources.config_file())
    builder.file(packaged, packaged=True)
    document, unread = read(user_file or user_config(), required=user_file is not None)
    builder.file(document)
    builder.environment(env)
    for key, value in (overrides or {}).items():
        builder.put(key, value, f"--{_FLAGS.get(key, key.replace('_', '-'))}", session=True)
    return builder.settings(), [*notices, *unread, *builder.notices]


def canonical(strategy: str) -> str:
    """A strategy's registry name; a name nobody knows stays as it is."""
    import decoders

    try:
        return decoders.find(strategy).name
    except (KeyError, ValueError):
        return strategy


def parameters_of(strategy: str) -> tuple[Param, ...]:
    """What can be set for a strategy; nothing for a name nobody knows."""
    import decoders

    try:
        return tuple(decoders.find(strategy).params)
    except (KeyError, ValueError):
        return ()


_FLAGS = {"models.name": "model", "models.expert": "expert", "models.amateur": "amateur", "ui.theme": "theme"}


class _Builder:
    """Collects values layer by layer, each checked as it comes."""

    def __init__(self) -> None:
        self.flat: dict[str, Any] = {}
        self.parameters: dict[str, dict[str, float]] = {}
        self.keys: dict[str, str] = {}
        self.sources: dict[str, str] = {}
        self.notices: list[Notice] = []

    def file(self, document: Document, *, packaged: bool = False) -> None:
        for key, value in document.values.items():
            line = document.line(key)
            self.put(
                key, value, f"{document.path.name}:{line}", packaged=packaged, path=document.path, line=line
            )

    def environment(self, env: Mapping[str, str]) -> None:
        for name in sorted(env):
            if name.startswith(ENVIRONMENT) and name not in RESERVED:
                key = name.removeprefix(ENVIRONMENT).lower().replace("__", ".")
                self.put(key, Literal(env[name]), name, session=True)

    def put(
        self,
        key: str,
        value: Any,
        source: str,
        *,
        session: bool = False,
        packaged: bool = False,
        path: Path | None = None,
        line: int = 0,
    ) -> None:
        """Checks one value and lays it over what is there.

        Args:
            key: Dotted path.
            value: As parsed from TOML; a `Literal` where it came as text.
            source: What `Settings.source` will say.
            session: Meant for this session (environment, command line), so it also wins over what a file
                says about a single strategy.
            packaged: The shipped file: what equals a built-in default stays a default.
            path: The file, for the notice.
            line: The line in it.
        """
        origin = str(path) if path else source
        try:
            if key.startswith("parameters."):
                self._parameter(key, value, source, session=session, packaged=packaged)
            elif key.startswith("keys."):
                self.keys[key.removeprefix("keys.")] = text(value)
                self.sources[key] = source
            else:
                self._plain(key, value, source, packaged=packaged)
        except ValueError as error:
            self.notices.append(Notice(str(error), origin, line, key))

    def _plain(self, key: str, value: Any, source: str, *, packaged: bool) -> None:
        if key == "quantization":
            key, value = "precision", QUANTIZATION.get(str(value), value)
        if key not in SCHEMA:
            raise ValueError(f"unknown key{_nearest(key, [*SCHEMA, 'quantization'])}.")
        checked = SCHEMA[key](value)
        if packaged and checked == _default(key):
            return
        self.flat[key] = checked
        self.sources[key] = source

    def _parameter(self, key: str, value: Any, source: str, *, session: bool, packaged: bool) -> None:
        import decoders

        strategy, _, name = key.removeprefix("parameters.").rpartition(".")
        if strategy:
            try:
                declared = {param.name: param for param in decoders.find(strategy).params}
            except (KeyError, ValueError):
                known = [decoder.name for decoder in decoders.all()]
                raise ValueError(f"unknown strategy{_nearest(strategy, known)}.") from None
            strategy = canonical(strategy)
        else:
            declared = {param.name: param for decoder in decoders.all() for param in decoder.params}
        if name not in declared:
            raise ValueError(f"unknown parameter{_nearest(name, declared)}.")
        number = declared[name].parse(value)
        if packaged and number == declared[name].default:
            return
        targets = [strategy]
        if session and strategy == COMMON:
            for table in self.parameters.values():
                table.pop(name, None)
            targets.append(AUTO)
        for target in targets:
            self.parameters.setdefault(target, {})[name] = number
            self.sources[f"parameters.{target}.{name}" if target else f"parameters.{name}"] = source

    def settings(self) -> Settings:
        settings = Settings(
            keys=self.keys,
            parameters={strategy: table for strategy, table in self.parameters.items() if table},
            sources=self.sources,
        )
        for key, value in self.flat.items():
            head, _, tail = key.partition(".")
            if tail:
                value = replace(getattr(settings, head), **{tail: value})
            settings = replace(settings, **{head: value})
        return settings


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
    return f'; did you mean "{tails.get(close[0], close[0])}"?' if close else ""
