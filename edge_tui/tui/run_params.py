"""Holds the parameters and run settings of the next request. No widget in here.

The user's value belongs to the parameter's declaration, not to a strategy: strategies that share a stage
(temperature, penalties) share the value, while two that merely share a name do not.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field, replace
from math import isclose
from typing import TYPE_CHECKING, Any, overload

from edge_tui.config.precedence import TEMPERATURE, Claim, Layer, Rank, decide
from edge_tui.decoders.base import AnyParam, Decoder, Param, ParamError, Text, TextParam, Value
from edge_tui.engine import seeds
from edge_tui.engine.port import MODE_TEMPERATURE, Message, Request
from edge_tui.tui.run_settings import (  # fmt: skip
    RUN_PARAMS,
    SEED,
    TYPED,
    YOU,
    ParamPatch,
    Row,
    from_number,
    read_text,
    read_typed,
    row_of,
    run_rows,
    step_value,
    text_row,
    to_number,
    write_text,
    write_typed,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edge_tui.config.precedence import Decision
    from edge_tui.config.settings import Settings
    from edge_tui.engine.events import Resolved
    from edge_tui.engine.port import Mode

__all__ = ["ParamPatch", "RunParams"]


@dataclass(slots=True)
class _Layer:
    """Holds the values of one source: the user in this session, or a preset.

    Attributes:
        layer: Rank among the sources.
        source: Name of the source, as the screen shows it.
        values: Values of parameters, and of settings of the run by their keys.
    """

    layer: Layer
    source: str = ""
    values: dict[AnyParam | str, Any] = field(default_factory=dict)

    def drop(self, item: AnyParam | str) -> bool:
        """Drops a value; False where there is none."""
        present = item in self.values
        self.values.pop(item, None)
        return present


class RunParams:
    """Holds every value that the next request carries.

    The values of this session lie on top of the settings: a preset's under the flags, the user's own over
    everything (`edge_tui.config.precedence`).

    Args:
        settings: The values to start from.
        decoder: The chosen strategy.
    """

    def __init__(self, settings: Settings, decoder: Decoder) -> None:
        self.settings = settings
        self.decoder = decoder
        self._user = _Layer(Layer.LIVE, YOU)
        self._preset = _Layer(Layer.PRESET)
        self._resolved: dict[str, Mapping[str, Resolved]] = {}

    def learn(self, strategy: str, values: Mapping[str, Resolved]) -> None:
        """Stores the values that a run of a strategy used, such as the checkpoint's own under "auto"."""
        self._resolved[strategy] = values

    def forget(self) -> None:
        """Drops the values of earlier runs, because another model has other values."""
        self._resolved.clear()

    # Reading.

    def _claims(self, item: AnyParam | str, *, user: bool = True) -> list[Claim]:
        """Lists the claims of this session on a value: a preset's, and with `user` the user's own."""
        key = item if isinstance(item, str) else f"parameters.{item.name}"
        layers = (self._preset, self._user) if user else (self._preset,)
        return [
            Claim(key, each.values[item], each.source, each.layer) for each in layers if item in each.values
        ]

    def _setting(self, key: str) -> tuple[Any, str]:
        """Finds a setting of the run, and its source."""
        if (decision := decide([*self.settings.claims_of(key), *self._claims(key)])) is None:
            return getattr(self.settings, key), self.settings.source(key)
        return decision.winner.value, decision.winner.source

    def decision(self, param: AnyParam, *, user: bool = True) -> Decision | None:
        """Decides a parameter's value, the mode's temperature included; None leaves it to the model."""
        own, mode = self._claims(param, user=user), self._claims("mode", user=user)
        return self.settings.decision(self.decoder.name, param.name, own, mode)

    @property
    def mode(self) -> Mode:
        """The mode; "custom" where something above it decides the temperature."""
        mode: Mode = self._setting("mode")[0]
        param = next((param for param in self.decoder.params if param.name == TEMPERATURE), None)
        if mode not in MODE_TEMPERATURE or param is None:
            return mode
        decision = self.decision(param)
        return mode if decision is not None and decision.winner.rank is Rank.MODE else "custom"

    @property
    def max_length(self) -> int:
        """Most new tokens."""
        return int(self._setting("max_length")[0])

    @property
    def seed(self) -> int | None:
        """The seed that is set; None draws one for each run."""
        seed: int | None = self._setting("seed")[0]
        return seed

    @property
    def chat(self) -> bool | None:
        """True wraps prompts in the chat template; None leaves it to the model."""
        chat: bool | None = self._setting("chat")[0]
        return chat

    @property
    def stop(self) -> tuple[str, ...]:
        """Texts that end the answer."""
        return tuple(self._setting("stop")[0])

    @property
    def system(self) -> str:
        """The system prompt."""
        return str(self._setting("system")[0])

    @property
    def template(self) -> dict[str, object]:
        """The chat template's variables."""
        return dict(self._user.values.get("template", self.settings.template))

    @overload
    def value(self, param: Param, *, user: bool = True) -> tuple[float, str]: ...
    @overload
    def value(self, param: TextParam, *, user: bool = True) -> tuple[Text, str]: ...
    def value(self, param: AnyParam, *, user: bool = True) -> tuple[Value, str]:
        """Finds a parameter's value and its source; without `user`, as if the user had set nothing."""
        if (decision := self.decision(param, user=user)) is not None:
            winner = decision.winner
            return winner.value, "mode" if winner.rank is Rank.MODE else winner.source
        resolved = self._resolved.get(self.decoder.name, {}).get(param.name)
        if resolved is not None and resolved.source not in ("user", "default"):
            with suppress(ParamError):
                return param.parse(resolved.value), resolved.source
        return param.default, "default"

    def rows(self) -> list[Row]:
        """Lists the lines of the sidebar, top to bottom."""
        rows = []
        for param in self.decoder.params:
            value, source = self.value(param)
            configured = self.settings.decision(self.decoder.name, param.name)
            before = configured.winner.value if configured is not None else self.value(param, user=False)[0]
            changed = not _is_same(value, before)
            if isinstance(param, TextParam):
                rows.append(text_row(param, self.value(param)[0], source, changed))
            else:
                rows.append(row_of(param, self.value(param)[0], source, changed, "strategy"))
        keys = (*(param.name for param in RUN_PARAMS), *TYPED)
        now = replace(self.settings, **{key: getattr(self, key) for key in keys})
        before = replace(self.settings, mode=self.settings.mode_for(self.decoder.name))
        return [*rows, *run_rows(now, before, self._source)]

    def _source(self, key: str) -> str:
        if key == "template":
            own = {self.settings.source(f"template.{name}") for name in self.settings.template}
            return YOU if key in self._user.values else ", ".join(sorted(own)) or "default"
        return self._setting(key)[1]

    def text(self, key: str) -> str:
        """Writes a value as its input field holds it."""
        if key in TYPED:
            return write_typed(key, getattr(self, key))
        if isinstance(param := self.param(key), TextParam):
            return write_text(self.value(param)[0])
        return next(row.shown for row in self.rows() if row.key == key)

    def param(self, key: str) -> AnyParam | None:
        """Finds the declaration behind a key; None for a run's own texts."""
        own: dict[str, AnyParam] = {param.name: param for param in self.decoder.params}
        return own.get(key) or {p.name: p for p in (*RUN_PARAMS, SEED)}.get(key)

    # Changing.

    def set(self, key: str, raw: str | float) -> None:
        """Sets a value, typed or computed.

        Raises:
            ParamError: the value is out of range; nothing has changed.
        """
        if key in TYPED:
            self._user.values[key] = read_typed(key, str(raw))
        elif isinstance(param := self.param(key), TextParam):
            self._user.values[param] = read_text(param, str(raw))
        elif param is not None:
            if not param.choices:
                # So that the message says "is 7" and not "is '7'".
                with suppress(ValueError):
                    raw = float(raw)
            self._store(param, param.parse(raw))

    def _store(self, param: Param, number: float) -> None:
        if param in RUN_PARAMS:
            self._user.values[param.name] = from_number(param, number)
            return
        self._user.values[param] = number
        if param.name == TEMPERATURE:
            self._user.drop("mode")

    def step(self, key: str, steps: int) -> bool:
        """Moves a value by steps within its range; False where it stays."""
        param = self.param(key)
        if not isinstance(param, Param):
            return False
        if param is SEED:
            self._user.values["seed"] = max(0, (self.seed if self.seed is not None else -1) + steps)
            return True
        run = param in RUN_PARAMS
        value = to_number(param, getattr(self, param.name)) if run else self.value(param)[0]
        moved = step_value(param, value, steps)
        if moved == value:
            return False
        self._store(param, moved)
        return True

    def reset(self, key: str) -> None:
        """Drops the user's value of a key; where there is none, the preset's."""
        param = self.param(key)
        item = param if param is not None and param in self.decoder.params else key
        if not self._user.drop(item):
            self._preset.drop(item)
        if item is param and key == TEMPERATURE:
            self._user.drop("mode")

    def follow(self, key: str) -> None:
        """Lets the settings decide a key again, because the user has changed it there."""
        for _ in range(2):
            self.reset(key)

    def switch(self, decoder: Decoder) -> None:
        """Takes another strategy; parameters that both have keep their values."""
        shared = [param for param in decoder.params if param in self.decoder.params]
        values = [self.value(param)[0] for param in shared]
        self.decoder = decoder
        for param, value in zip(shared, values, strict=True):
            if not _is_same(self.value(param)[0], value):
                self._user.values[param] = value

    def take(self, decoder: Decoder, patch: ParamPatch, preset: str = "") -> tuple[str, ...]:
        """Takes over a strategy with saved values, all at once.

        Args:
            decoder: The strategy.
            patch: The values; None leaves a value.
            preset: Name of the preset that holds them. It replaces the preset before, and lies under the
                flags. Without it the values are the user's own, as those of a stored run.

        Returns:
            Names of parameters that the strategy does not have (any more), or whose value is out of range.
        """
        self.decoder = decoder
        own = {param.name: param for param in decoder.params}
        for param in own.values():
            self._user.drop(param)
        if preset:
            self._preset = _Layer(Layer.PRESET, f"preset {preset}")
        target = self._preset if preset else self._user
        if patch.mode is not None or TEMPERATURE in patch.values:
            self._user.drop("mode")
            target.values["mode"] = patch.mode or "custom"
        refused = []
        for name, value in patch.values.items():
            try:
                parsed = own[name].parse(value)
            except (KeyError, ParamError):
                refused.append(name)
                continue
            by_mode = name == TEMPERATURE and patch.mode in MODE_TEMPERATURE
            same = _is_same(parsed, self.value(own[name], user=False)[0])
            if not by_mode and (preset or not same):
                target.values[own[name]] = parsed
        for name in ("max_length", "stop", "chat", "system", "template"):
            if getattr(patch, name) is not None:
                self._user.drop(name)
                target.values[name] = getattr(patch, name)
        return tuple(refused)

    def flags_note(self) -> str:
        """Says which flags win over the preset's values; "" where none does."""
        winners = []
        for item in self._preset.values:
            if not isinstance(item, str):
                decision = self.decision(item)
            else:
                decision = decide([*self.settings.claims_of(item), *self._claims(item)])
            if item != "mode" and decision is not None and decision.winner.layer is Layer.FLAG:
                winners.append(f"{decision.winner.source} {decision.winner.key.rpartition('.')[2]}")
        return f"{', '.join(dict.fromkeys(winners))} stays as the command line says." if winners else ""

    def overrides(self) -> ParamPatch:
        """Lists the values that the user or a preset has changed, as a preset to save."""
        values: dict[str, Value] = {}
        for param in self.decoder.params:
            decision = self.decision(param)
            mine = param in self._user.values or param in self._preset.values
            if mine and decision is not None and decision.winner.rank is not Rank.MODE:
                value = decision.winner.value
                is_word = isinstance(param, Param) and param.choices
                values[param.name] = param.text(value) if is_word else value
        settings = self.settings
        mode = self.mode
        return ParamPatch(
            values,
            mode=mode if mode != settings.mode_for(self.decoder.name) else None,
            max_length=self.max_length if self.max_length != settings.max_length else None,
            stop=self.stop if self.stop != settings.stop else None,
            system=self.system if self.system != settings.system else None,
        )

    # The request.

    def request(
        self, prompt: str | tuple[Message, ...], prefix: tuple[int, ...] = (), seed: int | None = None
    ) -> Request:
        """Builds the request that carries these values.

        Args:
            prompt: Text, or turns of a conversation.
            prefix: Ids of generated tokens to keep.
            seed: The run's own; without it the one that is set, of this turn in a conversation, else one that
                is drawn here, so that a request made while the run still waits can reuse it.
        """
        if seed is None:
            seed = seeds.draw() if self.seed is None else seeds.of_prompt(self.seed, prompt)
        values: dict[str, Value] = {}
        sources: dict[str, str] = {}
        mode = self.mode
        for param in self.decoder.params:
            decision = self.decision(param)
            if decision is None:
                continue
            source = "user" if decision.winner.layer is Layer.LIVE else decision.winner.source
            if decision.winner.rank is Rank.MODE:
                sources[param.name] = f"mode {mode}, {source}"
            else:
                values[param.name], sources[param.name] = decision.winner.value, source
        return Request(
            prompt=prompt,
            strategy=self.decoder.name,
            values=values,
            sources=sources,
            mode=mode,
            seed=seed,
            max_length=self.max_length,
            stop=self.stop,
            # Turns are nothing without a template, whatever is said about single prompts.
            chat=self.chat if isinstance(prompt, str) else None,
            system=self.system,
            template=self.template,
            control_tokens=self.settings.control_tokens,
            prefix=prefix,
        )


def _is_same(value: Value, other: Value) -> bool:
    """Compares two values of a parameter, numbers up to rounding."""
    if isinstance(value, str | tuple) or isinstance(other, str | tuple):
        return value == other
    return isclose(value, other, rel_tol=1e-6, abs_tol=1e-9)
