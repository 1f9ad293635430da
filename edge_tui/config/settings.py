"""Holds every setting and the source of its value, and loads them from files, environment and flags.

It reads the built-in defaults (equal to the packaged `config.toml`), the user's own `config.toml`, the
environment (`EDGE_TUI_STRATEGY`, `EDGE_TUI_MODELS__NAME`: a double underscore stands for the dot) and the
command line; `precedence` says which of them wins. A value that cannot be used leaves the
layer below in force and yields one `Notice`; nothing here raises, and no file is ever written.

Strategies' own parameters are checked against their declarations, so the ranges in the sidebar, on the
command line and here are the same. Loads no torch.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_tui.config import resources
from edge_tui.config.layers import COMMON, Layers
from edge_tui.config.names import find
from edge_tui.config.precedence import TEMPERATURE, Claim, Layer, Rank, decide, temperature_of, value_text
from edge_tui.config.reader import Notice, read
from edge_tui.decoders.base import ParamError, TextParam
from edge_tui.engine.port import FOLLOWERS, MODE_TEMPERATURE, ModelSpec
from edge_tui.transcript.curve import OFF
from edge_tui.util.user_file import exists, expand

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from edge_tui.config.precedence import Decision
    from edge_tui.decoders.base import AnyParam, Value
    from edge_tui.engine.port import Mode, Precision

__all__ = ["COMMON", "Models", "Notice", "Settings", "Ui", "load", "user_config"]


@dataclass(frozen=True, slots=True)
class Models:
    """Names the model of each role: "demo/expert", a repository id in the local cache, or a folder."""

    name: str = "demo/expert"
    expert: str = ""
    """The larger one of a contrastive pair; "" means the same as `name`."""
    amateur: str = "demo/amateur"
    draft: str = ""
    """The one that proposes in speculative decoding; "" means the amateur."""
    expert_device: str = ""
    """Device of the expert; "" means that of all models."""
    amateur_device: str = ""
    """Device of the amateur; "" means that of all models."""
    draft_device: str = ""
    """Device of the draft; "" means the amateur's."""
    folders: tuple[str, ...] = ()
    """Folders whose subfolders are listed on the models screen, besides the local cache."""


@dataclass(frozen=True, slots=True)
class Ui:
    """Holds the settings of the screen."""

    theme: str = "auto"
    """"auto" follows the terminal's light or dark."""
    frame_rate: int = 30
    """Most updates of the token pane a second; a slow terminal gets fewer by itself."""
    sidebar: bool = True
    ascii: bool | None = None
    """Plain ASCII for bars and borders: None means "if the terminal cannot do better"."""
    mouse: bool = True
    lessons: bool = True
    """Say at the first start that there are lessons."""
    curve: str = OFF
    """Number that the curve under the tokens shows."""


@dataclass(frozen=True, slots=True)
class History:
    """Holds the settings of what stays on disk."""

    keep: bool = True
    """Keep every run with its tokens, for its owner's eyes alone."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Holds all settings of a session. Frozen: a change makes a new one with `dataclasses.replace`."""

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
    """True reads a control token's name in a prompt as that token; else it is text."""
    decoder_folders: tuple[str, ...] = ()
    """Folders with strategies of the user's own, besides `decoders` in the configuration folder."""
    ui: Ui = field(default_factory=Ui)
    history: History = field(default_factory=History)
    keys: Mapping[str, str] = field(default_factory=dict)
    """Action id → key, where the user wants another than the built-in one."""
    parameters: Mapping[str, Mapping[str, Value]] = field(default_factory=dict)
    """Strategy → parameter → value, only what was set; `COMMON` holds for every strategy."""
    claims: Mapping[str, Sequence[Claim]] = field(default_factory=dict, compare=False, repr=False)
    """Dotted key → every value given for it, the winner last; a missing key has its default."""
    file: Path | None = field(default=None, compare=False, repr=False)
    """The user's own file, whether it is there or not; None where there is none to write to."""
    flags: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)
    """The `overrides` of `load`."""

    def reload(self) -> tuple[Settings, list[Notice]]:
        """Reads all layers again, after the user's file was changed."""
        return load(self.flags, user_file=self.file if self.file and exists(self.file) else None)

    def specs(self) -> dict[str, ModelSpec]:
        """Returns the model of each role for the engine."""
        # In this order the server lists them.
        names = {"model": self.models.name, "expert": "", "amateur": self.models.amateur}
        names |= {role: getattr(self.models, role) or names[leader] for leader, role in FOLLOWERS.items()}
        devices = {"model": self.device, "amateur": self.models.amateur_device or self.device}
        for leader, role in FOLLOWERS.items():
            devices[role] = getattr(self.models, f"{role}_device") or devices[leader]
        return {
            role: ModelSpec(name, self.precision, devices[role], self.context) for role, name in names.items()
        }

    def source(self, key: str) -> str:
        """Returns the source of a value: "default", "config.toml:12", "EDGE_TUI_STRATEGY" or "--strategy"."""
        claims = self.claims.get(key)
        return claims[-1].source if claims else "default"

    def claims_of(self, key: str) -> tuple[Claim, ...]:
        """Returns every value given for a key, the winner last."""
        value = self.value_of(key)
        claims = tuple(self.claims.get(key, ()))
        if claims and claims[-1].value == value:
            return claims
        if value is None or (not key.startswith("parameters.") and value == _DEFAULTS.value_of(key)):
            return ()
        rank = Rank.OWN if key.count(".") == 2 else Rank.COMMON
        return (Claim(key, value, self.source(key), Layer.FILE, rank),)

    def value_of(self, key: str) -> Any:
        """Returns the value of a dotted key; None for a parameter, variable or key that was not set."""
        if key.startswith("parameters."):
            strategy, _, name = key.removeprefix("parameters.").rpartition(".")
            return self.parameters.get(strategy, {}).get(name)
        table, _, name = key.partition(".")
        value = getattr(self, table)
        if not name:
            return value
        return value.get(name) if isinstance(value, Mapping) else getattr(value, name)

    def decision(
        self, strategy: str, name: str, more: Sequence[Claim] = (), modes: Sequence[Claim] = ()
    ) -> Decision | None:
        """Decides between the values of a strategy's parameter; None leaves it to the strategy.

        Args:
            strategy: Its name; `COMMON` decides for a strategy without a table of its own.
            name: The parameter's.
            more: Claims of this session on the parameter: a preset's, a live change.
            modes: Its claims on the mode.
        """
        strategy = found.name if (found := find(strategy)) is not None else strategy
        common = self.claims_of(f"parameters.{name}")
        if found is not None and common:
            # Another strategy may have a text under the name of a number, or a wider range.
            param = next((param for param in found.params if param.name == name), None)
            common = tuple(claim for claim in common if param is None or _takes(param, claim.value))
        modes = (*self.claims_of("mode"), *modes)
        if found is not None and found.reads_checkpoint:
            # It is what the checkpoint's generation_config.json says: a common default would silence it.
            common, modes = (
                tuple(claim for claim in claims if claim.layer > Layer.FILE) for claims in (common, modes)
            )
        own = self.claims_of(f"parameters.{strategy}.{name}") if strategy != COMMON else ()
        claims = [*common, *own, *more]
        return decide([*claims, *temperature_of(modes)] if name == TEMPERATURE else claims)

    def decisions(self, strategy: str) -> dict[str, Decision]:
        """Decides every parameter of a strategy that was set, the mode's temperature included."""
        params = found.params if (found := find(strategy)) is not None else ()
        decided = {param.name: self.decision(strategy, param.name) for param in params}
        return {name: decision for name, decision in decided.items() if decision is not None}

    def parameter_claims(self, strategy: str) -> dict[str, Claim]:
        """Returns the claim that holds for each parameter of a strategy that was set, whatever the mode."""
        claims: dict[str, Claim] = {}
        for name, decision in self.decisions(strategy).items():
            for claim in (*reversed(decision.losers), decision.winner):
                if claim.rank is not Rank.MODE:
                    claims[name] = claim
        return claims

    def values(self, strategy: str) -> dict[str, Value]:
        """Returns the values that were set for a strategy's parameters, whatever the mode."""
        return {name: claim.value for name, claim in self.parameter_claims(strategy).items()}

    def flag_conflicts(self) -> list[Notice]:
        """Returns a notice for each parameter of the strategy that two flags set, with the one that wins."""
        return [
            Notice(f"{name} is {value_text(winner.value)}, as {_flag_text(winner)} says; {losers}")
            for name, decision in self.decisions(self.strategy).items()
            if (winner := decision.winner).layer is Layer.FLAG
            and (losers := _sentence(each for each in decision.losers if each.layer is Layer.FLAG))
        ]

    def for_run(self, strategy: str) -> tuple[dict[str, Value], dict[str, str], Mode]:
        """Returns a `Request`'s values, sources and mode; a mode that wins replaces the temperature."""
        decisions, mode = self.decisions(strategy), self.mode_for(strategy)
        values = {n: d.winner.value for n, d in decisions.items() if d.winner.rank is not Rank.MODE}
        sources = {n: d.winner.source for n, d in decisions.items()}
        if mode in MODE_TEMPERATURE and TEMPERATURE in decisions:
            sources[TEMPERATURE] = f"mode {mode}, {sources[TEMPERATURE]}"
        return values, sources, mode

    def mode_for(self, strategy: str) -> Mode:
        """Returns the mode if it decides the strategy's temperature, else "custom"."""
        decision = self.decision(strategy, TEMPERATURE)
        if decision is None or decision.winner.rank is Rank.MODE:
            return self.mode if decision is not None or self.mode not in MODE_TEMPERATURE else "custom"
        return "custom"


_DEFAULTS = Settings()


def _flag_text(claim: Claim) -> str:
    """Returns a flag with its value: `--mode exploratory`."""
    name = claim.key.removeprefix("parameters.")
    return (
        f"{claim.source} {claim.word}" if claim.word else f"{claim.source} {name}={value_text(claim.value)}"
    )


def _takes(param: AnyParam, value: Value) -> bool:
    """Tells whether a strategy's parameter may have a value that was set for all strategies."""
    if isinstance(param, TextParam) != isinstance(value, str | tuple):
        return False
    try:
        param.parse(value)
    except ParamError:
        return False
    return True


def _sentence(claims: Iterable[Claim]) -> str:
    flags = ", ".join(map(_flag_text, claims))
    return f"{flags} does not count." if flags else ""


def user_config() -> Path:
    """Returns the user's own file: `edge-tui/config.toml` in the platform's configuration folder."""
    import platformdirs

    return platformdirs.user_config_path("edge-tui", appauthor=False) / "config.toml"


def load(
    overrides: Mapping[str, Any] | None = None,
    env: Mapping[str, str] | None = None,
    user_file: Path | None = None,
) -> tuple[Settings, list[Notice]]:
    """Loads all layers; which value of a key wins is `precedence`'s rule.

    Args:
        overrides: The command line's values by dotted path ("models.name", "parameters.temperature").
        env: The environment; `os.environ` when None.
        user_file: A file in the place of the user's own `config.toml`; its absence is worth a notice.

    Returns:
        The settings, and one notice for each thing that could not be used.
    """
    env = os.environ if env is None else env
    if user_file is None and env.get("EDGE_TUI_CONFIG"):
        user_file = expand(env["EDGE_TUI_CONFIG"])
    layers = Layers(_DEFAULTS.value_of)
    packaged, notices = read(resources.config_file())
    layers.add_file(packaged, packaged=True)
    own = user_file or user_config()
    document, unread = read(own, required=user_file is not None)
    layers.add_file(document)
    layers.add_environment(env)
    layers.add_flags(overrides or {})
    layers.check(user_config().parent / "decoders")
    settings = replace(_assemble(layers), file=own, flags=dict(overrides or {}))
    return settings, [*notices, *unread, *layers.notices]


def _assemble(layers: Layers) -> Settings:
    settings = Settings(
        keys=layers.tables["keys"],
        template=layers.tables["template"],
        parameters={strategy: table for strategy, table in layers.parameters.items() if table},
        claims=layers.claims,
    )
    for key, value in layers.flat.items():
        head, _, tail = key.partition(".")
        if tail:
            value = replace(getattr(settings, head), **{tail: value})
        settings = replace(settings, **{head: value})
    return settings
