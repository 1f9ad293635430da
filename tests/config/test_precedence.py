"""Which of two places wins, for every key and every pair of places."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import combinations, product
from pathlib import Path
from typing import Any

import pytest

from edge_tui import decoders
from edge_tui.config.precedence import Layer
from edge_tui.config.schema import SCHEMA, RawText
from edge_tui.config.settings import Settings, load, user_config
from edge_tui.config.writer import change
from edge_tui.decoders.base import numbers
from edge_tui.engine.decode.resolve import resolve_params
from edge_tui.tui.run_params import ParamPatch, RunParams

FILE, ENVIRONMENT, PRESET, FLAG, LIVE = Layer.FILE, Layer.ENVIRONMENT, Layer.PRESET, Layer.FLAG, Layer.LIVE
AT_START = (FILE, ENVIRONMENT, FLAG)
ALL = (FILE, ENVIRONMENT, PRESET, FLAG, LIVE)
TEMPERATURES = {"exploratory": 1.5, "focused": 0.7}


@dataclass
class Said:
    """What is said in each layer, by dotted key."""

    layers: dict[Layer, dict[str, Any]] = field(default_factory=dict)

    def put(self, layer: Layer, key: str, value: Any) -> Said:
        self.layers.setdefault(layer, {})[key] = value
        return self

    def settings(self) -> Settings:
        user_config().unlink(missing_ok=True)
        if file := self.layers.get(FILE):
            change(user_config(), file)
        said = self.layers.get(ENVIRONMENT, {})
        env = {f"EDGE_TUI_{key.upper().replace('.', '__')}": text(value) for key, value in said.items()}
        flags = {key: RawText(text(value)) for key, value in self.layers.get(FLAG, {}).items()}
        settings, notices = load(flags, env)
        assert notices == []
        return settings

    def run_params(self, strategy: str) -> RunParams:
        run_params = RunParams(self.settings(), decoders.find(strategy))
        if preset := self.layers.get(PRESET):
            values = {key.rpartition(".")[2]: value for key, value in preset.items() if "." in key}
            rest = {key: value for key, value in preset.items() if "." not in key}
            assert run_params.take(run_params.decoder, ParamPatch(values, **rest), "mine") == ()
        for key, value in self.layers.get(LIVE, {}).items():
            run_params.set(key.rpartition(".")[2], value)
        return run_params


def text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def two_of(key: str) -> tuple[Any, Any]:
    """Two values of a setting that are not its default."""
    kind, default = SCHEMA[key], Settings().value_of(key)
    options = [*kind.choices, 3, 5, "cpu", "mps", ["a"], ["b"], "aa", "bb"]
    found: list[Any] = []
    for option in options:
        for value in (option, {"true": True, "false": False}.get(str(option), option)):
            try:
                checked = kind(value)
            except ValueError:
                continue
            plain = list(checked) if isinstance(checked, tuple) else checked
            if plain is not None and plain not in found:
                found.append(plain)
    others = [value for value in found if value != default]
    return (others[0], others[1]) if len(others) > 1 else (others[0], default)


def parameters() -> Iterator[tuple[str, str, Any, Any]]:
    """(strategy, dotted key, one value, another) of every number, in the common table and in its own."""
    for decoder in decoders.strategies():
        for param in numbers(decoder.params):
            values = list(param.choices) or sorted(
                {min(param.low + n * param.step, param.high) for n in (1, 2)}
            )
            one, other = values[0], values[-1]
            for key in (f"parameters.{decoder.name}.{param.name}", f"parameters.{param.name}"):
                yield decoder.name, key, one, other


@pytest.mark.parametrize("key", [key for key in SCHEMA if key != "strategy"])
def test_the_higher_place_wins_for_every_setting(key: str) -> None:
    lower, higher = two_of(key)
    for below, above in combinations(AT_START, 2):
        settings = Said().put(below, key, lower).put(above, key, higher).settings()
        found = settings.value_of(key)
        assert (list(found) if isinstance(found, tuple) else found) == higher
        lost, won = (
            settings.claims_of(key)[-2:] if found != Settings().value_of(key) else settings.claims[key]
        )
        assert (lost.layer, won.layer) == (below, above)
        assert settings.source(key) == won.source


def test_the_higher_place_wins_for_every_parameter() -> None:
    pairs = list(combinations(AT_START, 2))
    each_key = {key: (strategy, lower, higher) for strategy, key, lower, higher in parameters()}
    for number, (key, (strategy, lower, higher)) in enumerate(each_key.items()):
        param = next(p for p in decoders.find(strategy).params if p.name == key.rpartition(".")[2])
        below, above = pairs[number % len(pairs)]
        if strategy == "auto" and below == FILE:
            continue
        settings = Said().put(below, key, lower).put(above, key, higher).settings()
        decision = settings.decisions(strategy)[param.name]
        assert decision.winner.value == pytest.approx(param.parse(higher)), key
        assert [claim.layer for claim in decision.losers] == [below]


@pytest.mark.parametrize(("below", "above"), list(combinations(AT_START, 2)))
def test_what_is_said_of_all_strategies_above_beats_what_is_said_of_one_below(
    below: Layer, above: Layer
) -> None:
    said = Said().put(below, "parameters.top_p.temperature", 0.3).put(above, "parameters.temperature", 0.6)
    assert said.settings().values("top_p") == {"temperature": pytest.approx(0.6)}
    both = said.put(above, "parameters.top_p.temperature", 0.2).settings()
    assert both.values("top_p") == {"temperature": pytest.approx(0.2)}
    assert both.values("top_k") == {"temperature": pytest.approx(0.6)}


@pytest.mark.parametrize("mode", TEMPERATURES)
@pytest.mark.parametrize("key", ["parameters.temperature", "parameters.top_p.temperature"])
@pytest.mark.parametrize(("of_mode", "of_temperature"), list(product(ALL, ALL)))
def test_mode_and_temperature_win_by_their_place(
    of_mode: Layer, of_temperature: Layer, key: str, mode: str
) -> None:
    said = Said().put(of_temperature, key, 0.25).put(of_mode, "mode", mode)
    expected = 0.25 if of_temperature > of_mode else TEMPERATURES[mode]
    run_params = said.run_params("top_p")
    request = run_params.request("x")
    resolved = resolve_params(request, run_params.decoder, {}).resolved["temperature"]
    assert resolved.value == pytest.approx(expected)
    assert (request.mode == mode) == (of_temperature <= of_mode) == ("mode" in resolved.source)
    shown = next(row for row in run_params.rows() if row.key == "temperature")
    assert float(shown.shown) == pytest.approx(expected)
    assert run_params.mode == request.mode
    if of_mode in AT_START and of_temperature in AT_START:
        values, sources, own = said.settings().for_run("top_p")
        assert (values.get("temperature", TEMPERATURES[mode]), own) == (pytest.approx(expected), request.mode)
        assert sources["temperature"] == resolved.source


@pytest.mark.parametrize(("below", "above"), list(combinations(ALL, 2)))
def test_custom_above_takes_a_mode_back(below: Layer, above: Layer) -> None:
    run_params = Said().put(below, "mode", "focused").put(above, "mode", "custom").run_params("top_p")
    assert resolve_params(run_params.request("x"), run_params.decoder, {}).values["temperature"] == 1.0


@pytest.mark.parametrize(
    ("layer", "key", "expected"),
    [
        (FILE, "parameters.temperature", 0.6),
        (FILE, "mode", 0.6),
        (FILE, "parameters.auto.temperature", 0.25),
        *((layer, "parameters.temperature", 0.25) for layer in ALL[1:]),
        *((layer, "mode", 1.5) for layer in ALL[1:]),
    ],
)
def test_auto_asks_the_checkpoint_unless_it_is_told_itself_or_for_this_session(
    layer: Layer, key: str, expected: float
) -> None:
    run_params = Said().put(layer, key, "exploratory" if key == "mode" else 0.25).run_params("auto")
    resolved = resolve_params(run_params.request("x"), run_params.decoder, {"temperature": 0.6})
    assert resolved.values["temperature"] == pytest.approx(expected)
    assert resolved.resolved["temperature"].checkpoint == (None if expected == 0.6 else 0.6)
    if layer in AT_START:
        values, _, mode = run_params.settings.for_run("auto")
        assert (mode == "exploratory") == (expected == 1.5)
        assert ("temperature" in values) == (expected == 0.25)


def test_auto_with_a_chain_around_it_asks_the_checkpoint_too() -> None:
    run_params = Said().put(FILE, "parameters.temperature", 0.25).run_params("auto:top_a")
    resolved = resolve_params(run_params.request("x"), run_params.decoder, {"temperature": 0.6})
    assert resolved.values["temperature"] == pytest.approx(0.6)


@pytest.mark.parametrize(
    ("key", "one", "other"), [("max_length", 5, 9), ("system", "a", "b"), ("stop", "a", "b")]
)
def test_presets_lie_between_the_environment_and_flags(key: str, one: Any, other: Any) -> None:
    def wrapped(value: Any) -> Any:
        return (value,) if key == "stop" else value

    for layer in (FILE, ENVIRONMENT, FLAG, LIVE):
        run_params = Said().put(layer, key, one).put(PRESET, key, wrapped(other)).run_params("top_p")
        assert getattr(run_params.request("x"), key) == wrapped(one if layer in (FLAG, LIVE) else other)
        assert ("the command line" in run_params.flags_note()) == (layer == FLAG)


def test_a_second_preset_takes_the_place_of_the_first() -> None:
    run_params = Said().put(FILE, "parameters.temperature", 0.9).run_params("top_p")
    run_params.take(
        run_params.decoder, ParamPatch({"temperature": 0.4, "top_p": 0.5}, max_length=7, system="s"), "one"
    )
    run_params.take(run_params.decoder, ParamPatch({"top_p": 0.6}), "two")
    request = run_params.request("x")
    assert request.values == {"temperature": pytest.approx(0.9), "top_p": pytest.approx(0.6)}
    assert (request.sources["top_p"], request.max_length, request.system) == ("preset two", 256, "")
    run_params.set("top_p", 0.7)
    assert run_params.overrides().values == {"top_p": pytest.approx(0.7)}
    run_params.reset("top_p")
    assert run_params.request("x").values["top_p"] == pytest.approx(0.6)
    run_params.reset("top_p")
    assert "top_p" not in run_params.request("x").values


def test_a_kept_run_wins_over_flags() -> None:
    said = Said().put(FLAG, "parameters.temperature", 0.9).put(FLAG, "mode", "focused")
    run_params = said.run_params("top_p")
    run_params.take(run_params.decoder, ParamPatch({"temperature": 1.0}, mode="custom"))
    assert run_params.request("x").values["temperature"] == 1.0
    assert run_params.request("x").mode == "custom"


# What is told.


def test_losers_are_named_with_their_place() -> None:
    said = Said().put(FILE, "mode", "exploratory").put(FILE, "parameters.temperature", 0.9)
    settings = said.put(FLAG, "parameters.temperature", 0.7).settings()
    decision = settings.decisions("top_p")["temperature"]
    assert decision.winner.source == "--set"
    assert decision.losers_text() == (
        "config.toml:1's mode = exploratory (1.5); config.toml:4's parameters.temperature = 0.9 lost"
    )
    assert settings.flag_conflicts() == []
    tied = said.put(FLAG, "mode", "focused").settings().flag_conflicts()
    assert [str(notice) for notice in tied] == [
        "temperature is 0.7, as --mode focused says; --set temperature=0.7 does not count."
    ]


@pytest.mark.parametrize(
    "name", ["SEED", "MODE", "STREAM", "MODELS__NAME", "STRATEGY", "PARAMETERS__TOP_P", "UI__ASCII"]
)
def test_an_empty_variable_counts_as_unset(name: str) -> None:
    settings, notices = load(env={f"EDGE_TUI_{name}": ""})
    assert (settings, notices) == (Settings(), [])


def test_an_empty_variable_empties_a_text_and_a_list() -> None:
    change(user_config(), {"system": "s", "stop": ["x"], "models.expert": "e"})
    settings, notices = load(env={"EDGE_TUI_SYSTEM": "", "EDGE_TUI_STOP": "", "EDGE_TUI_MODELS__EXPERT": ""})
    assert (settings.system, settings.stop, settings.models.expert, notices) == ("", (), "", [])


@pytest.mark.parametrize(
    ("content", "place"),
    [
        ("\n  max_length = 0\n", "config.toml:2:3: max_length: must be"),
        ("ui = { sidebar = true, mouse = 3 }\n", "config.toml:1:24: ui.mouse: must be"),
        ("[parameters.top_p]\ntop_p = 7\n", "config.toml:2:1: parameters.top_p: top_p is 7"),
        ("seed = 1\nmode = 'custom'\nseed = 2\n", "seed stands in the file twice"),
        ("[ui]\n[models]\n[ui]\n", "[ui] stands in the file twice"),
        ("nonsense = 1\n", "config.toml:1:1: nonsense: unknown key"),
    ],
)
def test_bad_keys_are_named_with_line_and_column(content: str, place: str) -> None:
    path: Path = user_config()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    _, notices = load(env={})
    assert len(notices) == 1
    assert place in notices[0].precise()
