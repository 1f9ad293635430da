"""What the sidebar turns: the chosen strategy's parameters and the settings of a run. No widget in here.

A value that the user turned belongs to the parameter's declaration, not to a strategy: strategies that
share a stage (temperature, penalties) share the user's value, while two that merely share a name don't.
"""

from __future__ import annotations

from contextlib import suppress
from math import isclose
from typing import TYPE_CHECKING, Any

from edge_tui.config.precedence import TEMPERATURE, Claim, Layer, Rank, decide
from edge_tui.decoders.base import Decoder, Param, ParamError
from edge_tui.engine import seeds
from edge_tui.engine.port import MODE_TEMPERATURE, Message, Request
from edge_tui.engine.text.template_variables import written as written_variables
from edge_tui.tui.run_settings import (  # fmt: skip
    CHAT,
    DRAWN,
    MAX_LENGTH,
    MODE,
    MODES,
    SEED,
    YOU,
    ParamPatch,
    Row,
    RunValues,
    escape,
    row_of,
    run_rows,
    seed_of,
    toward,
    tristate,
    unescape,
    variables_of,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edge_tui.config.precedence import Decision
    from edge_tui.config.settings import Settings
    from edge_tui.engine.events import Resolved
    from edge_tui.engine.port import Mode

__all__ = ["ParamPatch", "RunParams"]


class RunParams:
    """Every value that the next request will carry.

    A value of this session lies on top of the settings: a preset's under the flags, the user's own over
    everything (`edge_tui.config.precedence`).

    Args:
        settings: Where values start.
        decoder: The chosen strategy.
    """

    def __init__(self, settings: Settings, decoder: Decoder) -> None:
        self.settings = settings
        self.decoder = decoder
        self._turned: dict[Param, float] = {}
        self._own: dict[str, Any] = {}
        self._preset = ""
        self._preset_values: dict[Param, float] = {}
        self._preset_own: dict[str, Any] = {}
        self._resolved: dict[str, Mapping[str, Resolved]] = {}

    def learn(self, strategy: str, values: Mapping[str, Resolved]) -> None:
        """Remembers what a run really used (the checkpoint's own values under "auto")."""
        self._resolved[strategy] = values

    def forget(self) -> None:
        """Drops what was learned: another model, other values."""
        self._resolved.clear()

    # Reading.

    def _claims(self, key: str, *, live: bool = True) -> list[Claim]:
        """The claims of this session on a setting of the run: a preset's, and the user's own if `live`."""
        found = []
        if key in self._preset_own:
            found.append(Claim(key, self._preset_own[key], self._preset, Layer.PRESET))
        if live and key in self._own:
            found.append(Claim(key, self._own[key], YOU, Layer.LIVE))
        return found

    def _decided(self, key: str, *, live: bool = True) -> tuple[Any, str]:
        """A setting of the run, and where it comes from."""
        claims = [*self.settings.claims_of(key), *self._claims(key, live=live)]
        if (decision := decide(claims)) is None:
            return getattr(self.settings, key), self.settings.source(key)
        return decision.winner.value, decision.winner.source

    def decision(self, param: Param, *, live: bool = True) -> Decision | None:
        """Which value of a parameter holds, the mode's temperature included; None leaves it to the model."""
        name = f"parameters.{param.name}"
        more = []
        if param in self._preset_values:
            more.append(Claim(name, self._preset_values[param], self._preset, Layer.PRESET))
        if live and param in self._turned:
            more.append(Claim(name, self._turned[param], YOU, Layer.LIVE))
        modes = self._claims("mode", live=live)
        return self.settings.decision(self.decoder.name, param.name, more, modes)

    @property
    def mode(self) -> Mode:
        """The mode; "custom" where something above it decides the temperature."""
        mode: Mode = self._decided("mode")[0]
        param = next((param for param in self.decoder.params if param.name == TEMPERATURE), None)
        if mode not in MODE_TEMPERATURE or param is None:
            return mode
        decision = self.decision(param)
        return mode if decision is not None and decision.winner.rank is Rank.MODE else "custom"

    @property
    def max_length(self) -> int:
        """Most new tokens."""
        return int(self._decided("max_length")[0])

    @max_length.setter
    def max_length(self, value: int) -> None:
        self._own["max_length"] = value

    @property
    def seed(self) -> int | None:
        """The seed that is set; None draws one for each run."""
        seed: int | None = self._decided("seed")[0]
        return seed

    @property
    def chat(self) -> bool | None:
        """Whether prompts are wrapped in the chat template."""
        chat: bool | None = self._decided("chat")[0]
        return chat

    @property
    def stop(self) -> tuple[str, ...]:
        """Texts that end the answer."""
        return tuple(self._decided("stop")[0])

    @property
    def system(self) -> str:
        """The system prompt."""
        return str(self._decided("system")[0])

    @property
    def template(self) -> dict[str, object]:
        """The chat template's variables."""
        own: Mapping[str, object] = self._own.get("template", self.settings.template)
        return dict(own)

    def value(self, param: Param) -> tuple[float, str]:
        """A parameter's value and where it comes from."""
        return self._value(param, live=True)

    def _given(self, param: Param) -> tuple[float, str]:
        """What a parameter is without the user's doing."""
        return self._value(param, live=False)

    def _value(self, param: Param, *, live: bool) -> tuple[float, str]:
        decision = self.decision(param, live=live)
        if decision is not None:
            winner = decision.winner
            return winner.value, "mode" if winner.rank is Rank.MODE else winner.source
        learned = self._resolved.get(self.decoder.name, {}).get(param.name)
        if learned is not None and learned.source not in ("user", "default"):
            with suppress(ParamError):
                return param.parse(learned.value), learned.source
        return param.default, "default"

    def rows(self) -> list[Row]:
        """The sidebar, top to bottom."""
        found = []
        for param in self.decoder.params:
            value, source = self.value(param)
            decided = self.settings.decision(self.decoder.name, param.name)
            set_before = decided.winner.value if decided is not None else self._given(param)[0]
            changed = not isclose(value, set_before, rel_tol=1e-6, abs_tol=1e-9)
            found.append(row_of(param, value, source, changed, "strategy"))
        settings = self.settings
        before = RunValues(
            settings.max_length,
            settings.mode_for(self.decoder.name),
            settings.seed,
            settings.chat,
            settings.stop,
            settings.system,
            settings.template,
        )
        now = RunValues(
            self.max_length, self.mode, self.seed, self.chat, self.stop, self.system, self.template
        )
        return [*found, *run_rows(now, before, self._source)]

    def _source(self, key: str) -> str:
        if key == "template":
            own = {self.settings.source(f"template.{name}") for name in self.settings.template}
            return YOU if key in self._own else ", ".join(sorted(own)) or "default"
        return self._decided(key)[1]

    def text(self, key: str) -> str:
        """A value as its field holds it while it is typed."""
        if key == "seed":
            return "" if self.seed is None else str(self.seed)
        if key == "system":
            return self.system
        if key == "template":
            return written_variables(self.template)
        if key == "stop":
            return " | ".join(map(escape, self.stop))
        return next(row.shown for row in self.rows() if row.key == key)

    def param(self, key: str) -> Param | None:
        """The declaration behind a key; None for texts."""
        own = {param.name: param for param in self.decoder.params}
        return own.get(key) or {p.name: p for p in (MAX_LENGTH, MODE, SEED, CHAT)}.get(key)

    # Turning.

    def set(self, key: str, raw: str | float) -> None:
        """Takes a value, typed or computed.

        Raises:
            ParamError: naming the parameter and its range; nothing is changed then.
        """
        if key == "system":
            self._own[key] = str(raw)
        elif key == "stop":
            self._own[key] = tuple(unescape(part) for part in str(raw).split(" | ") if part)
        elif key == "template":
            self._own[key] = variables_of(str(raw))
        elif key == "seed":
            self._own[key] = None if str(raw).strip() in DRAWN else seed_of(raw)
        elif (param := self.param(key)) is not None:
            if not param.choices:
                # So that the message says "is 7" and not "is '7'".
                with suppress(ValueError):
                    raw = float(raw)
            self._store(param, param.parse(raw))

    def _store(self, param: Param, number: float) -> None:
        if param is MAX_LENGTH:
            self._own["max_length"] = int(number)
        elif param is MODE:
            self._own["mode"] = MODES[int(number)]
        elif param is CHAT:
            self._own["chat"] = (None, True, False)[int(number)]
        else:
            self._turned[param] = number
            if param.name == TEMPERATURE:
                self._own.pop("mode", None)

    def turn(self, key: str, steps: int) -> bool:
        """Moves a value by steps, stopping at the ends of its range; False where nothing moved."""
        param = self.param(key)
        if param is None:
            return False
        if param is SEED:
            self._own["seed"] = max(0, (self.seed if self.seed is not None else -1) + steps)
            return True
        value = self._number(param)
        if param.choices:
            moved = float((int(value) + steps) % len(param.choices))
        else:
            # Multiples of the step, so that 0.93 goes to 0.95 and not to 0.98.
            at = value / param.step
            target = round(at) + steps if isclose(at, round(at), abs_tol=1e-6) else toward(at, steps)
            moved = min(max(round(target * param.step, 10), param.low), param.high)
            if param.low_open and moved <= param.low:
                moved = value if value < param.step else param.step
        if moved == value:
            return False
        self._store(param, moved)
        return True

    def reset(self, key: str) -> None:
        """Takes back what was turned; once more, or where nothing was, what the preset says."""
        param = self.param(key)
        if param is not None and param in self.decoder.params:
            if not _drop(self._turned, param):
                self._preset_values.pop(param, None)
            if param.name == TEMPERATURE:
                self._own.pop("mode", None)
        elif not _drop(self._own, key):
            self._preset_own.pop(key, None)

    def follow(self, key: str) -> None:
        """Lets the settings decide a key again, because the user has changed it there."""
        for _ in range(2):
            self.reset(key)

    def _number(self, param: Param) -> float:
        if param is MAX_LENGTH:
            return float(self.max_length)
        if param is MODE:
            return float(MODES.index(self.mode))
        if param is CHAT:
            return tristate(self.chat)
        return self.value(param)[0]

    def take(self, decoder: Decoder, given: ParamPatch, preset: str = "") -> tuple[str, ...]:
        """Takes over a strategy with values that were saved, all at once.

        Args:
            decoder: The strategy.
            given: The values; what is None stays as it is.
            preset: Name of the preset that they are, which then takes the place of the one before and lies
                under the flags. Without it they are the user's own, as of a kept run.

        Returns:
            Names of parameters that the strategy does not have (any more), or whose value is out of range.
        """
        self.decoder = decoder
        own = {param.name: param for param in decoder.params}
        for each in own.values():
            self._turned.pop(each, None)
        if preset:
            self._preset, self._preset_values, self._preset_own = f"preset {preset}", {}, {}
        values, settings = (self._preset_values, self._preset_own) if preset else (self._turned, self._own)
        if given.mode is not None or TEMPERATURE in given.values:
            self._own.pop("mode", None)
            settings["mode"] = given.mode or "custom"
        refused = []
        for name, value in given.values.items():
            try:
                number = own[name].parse(value)
            except (KeyError, ParamError):
                refused.append(name)
                continue
            by_mode = name == TEMPERATURE and given.mode in MODE_TEMPERATURE
            same = isclose(number, self._given(own[name])[0], rel_tol=1e-6, abs_tol=1e-9)
            if not by_mode and (preset or not same):
                values[own[name]] = number
        for name in ("max_length", "stop", "chat", "system", "template"):
            if getattr(given, name) is not None:
                self._own.pop(name, None)
                settings[name] = getattr(given, name)
        if given.seed is not None:
            settings["seed"] = given.seed if given.seed >= 0 else None
        return tuple(refused)

    def outranked(self) -> str:
        """Says which flags win over the preset's values; "" where none does."""
        decisions = [decision for param in self._preset_values if (decision := self.decision(param))]
        decisions += [
            decision
            for key in self._preset_own
            if key != "mode" and (decision := decide([*self.settings.claims_of(key), *self._claims(key)]))
        ]
        winners = [
            f"{each.winner.source} {each.winner.key.rpartition('.')[2]}"
            for each in decisions
            if each.winner.layer is Layer.FLAG
        ]
        return f"{', '.join(dict.fromkeys(winners))} stays as the command line says." if winners else ""

    def given(self) -> ParamPatch:
        """The chosen strategy's values that are not what they would be without the user's doing."""
        values: dict[str, float | str] = {}
        for param in self.decoder.params:
            decision = self.decision(param)
            mine = param in self._turned or param in self._preset_values
            if mine and decision is not None and decision.winner.rank is not Rank.MODE:
                value = decision.winner.value
                values[param.name] = param.format(value) if param.choices else value
        settings = self.settings
        mode = self.mode
        return ParamPatch(
            values,
            mode=mode if mode != settings.mode_for(self.decoder.name) else None,
            max_length=self.max_length if self.max_length != settings.max_length else None,
            stop=self.stop if self.stop != settings.stop else None,
            system=self.system if self.system != settings.system else None,
        )

    # Asking.

    def request(
        self, prompt: str | tuple[Message, ...], prefix: tuple[int, ...] = (), seed: int | None = None
    ) -> Request:
        """The request that these values make.

        Args:
            prompt: Text, or turns of a conversation.
            prefix: Ids of generated tokens to keep.
            seed: The run's own; without it the one that is set, of this turn in a conversation, else one that
                is drawn here, so that what is asked for while the run still waits can keep it.
        """
        if seed is None:
            seed = seeds.draw() if self.seed is None else seeds.of_prompt(self.seed, prompt)
        values: dict[str, float | str] = {}
        sources: dict[str, str] = {}
        mode = self.mode
        for param in self.decoder.params:
            decision = self.decision(param)
            if decision is None:
                continue
            source = decision.winner.source.replace(YOU, "user")
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


def _drop(table: dict[Any, Any], key: object) -> bool:
    """Takes a key out of a table; False where it was not there."""
    there = key in table
    table.pop(key, None)
    return there
