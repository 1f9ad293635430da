from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_tui import decoders
from edge_tui.config.precedence import Claim, Layer, Rank
from edge_tui.config.settings import Settings
from edge_tui.decoders.base import ParamError
from edge_tui.engine import seeds
from edge_tui.engine.events import Resolved
from edge_tui.engine.port import Message
from edge_tui.tui.run_params import RunParams


def run_params(strategy: str = "top_p", **changes: object) -> RunParams:
    return RunParams(replace(Settings(), **changes), decoders.find(strategy))  # type: ignore[arg-type]


def row(k: RunParams, key: str):  # type: ignore[no-untyped-def]
    return next(r for r in k.rows() if r.key == key)


def test_a_shared_stage_keeps_the_value_across_strategies() -> None:
    k = run_params("top_p")
    k.set("temperature", 0.4)
    k.set("top_p", 0.5)
    k.decoder = decoders.find("top_k")
    assert row(k, "temperature").shown == "0.4"
    assert "top_p" not in k.request("x").values
    assert k.request("x").values["temperature"] == 0.4


def test_out_of_range_changes_nothing_and_names_the_range() -> None:
    k = run_params()
    with pytest.raises(ParamError, match=r"top_p is 7.*to 1"):
        k.set("top_p", "7")
    with pytest.raises(ParamError, match="seed"):
        k.set("seed", "-3")
    assert k.request("x").values == run_params().request("x").values


KEY = "parameters.top_p.top_p"


def test_settings_come_through_with_their_source() -> None:
    settings = Settings(
        parameters={"top_p": {"top_p": 0.8}},
        claims={KEY: [Claim(KEY, 0.8, "config.toml:9", Layer.FILE, Rank.OWN)]},
    )
    k = RunParams(settings, decoders.find("top_p"))
    assert row(k, "top_p").source == "config.toml:9"
    assert not row(k, "top_p").changed
    k.set("top_p", 0.9)
    assert row(k, "top_p").changed
    assert k.request("x").sources["top_p"] == "user"
    k.reset("top_p")
    assert row(k, "top_p").shown == "0.8"


def test_modes_set_the_temperature_and_turning_it_leaves_them() -> None:
    k = run_params(mode="exploratory")
    assert (row(k, "temperature").shown, row(k, "temperature").source) == ("1.5", "mode")
    k.step("temperature", 1)
    assert k.mode == "custom"


def test_auto_shows_what_the_checkpoint_said() -> None:
    k = run_params("auto")
    name = "temperature"
    k.learn("auto", {name: Resolved(0.25, "generation_config.json"), "do_sample": Resolved(0.3, "nonsense")})
    assert row(k, "do_sample").source == "default"
    assert row(k, name).source == "generation_config.json"
    assert name not in k.request("x").values
    k.forget()
    assert row(k, name).source == "default"


def test_texts_survive_the_way_through_the_field() -> None:
    k = run_params()
    k.set("stop", r"\n\n | END | a\\n")
    assert k.stop == ("\n\n", "END", "a\\n")
    k.set("stop", k.text("stop"))
    assert k.stop == ("\n\n", "END", "a\\n")
    k.set("seed", "")
    assert k.seed is None
    k.set("seed", "12")
    assert k.request("x").seed == 12
    k.set("seed", "-1")
    assert k.seed is None
    k.set("seed", str(2**63 - 1))
    assert k.request("x").seed == 2**63 - 1
    with pytest.raises(ParamError, match=str(2**63 - 1)):
        k.set("seed", str(2**63))


def test_template_variables_are_typed_on_one_line() -> None:
    k = RunParams(Settings(template={"enable_thinking": True}), decoders.find("top_p"))
    assert row(k, "template").shown == "enable_thinking=true"
    k.set("template", 'enable_thinking=false  note="a  =b" list=[1, {"x": 2}]')
    wanted = {"enable_thinking": False, "note": "a  =b", "list": [1, {"x": 2}]}
    assert k.request("x").template == wanted
    k.set("template", k.text("template"))
    assert k.request("x").template == wanted
    for wrong in ("enable_thinking", "x=no", "messages=1", 'x="open'):
        with pytest.raises(ParamError):
            k.set("template", wrong)
    assert k.request("x").template == wanted
    k.reset("template")
    assert k.request("x").template == {"enable_thinking": True}


@given(st.sampled_from(["top_p", "beam", "contrastive", "typical", "top_k", "min_p"]), st.data())
def test_turning_never_leaves_the_range(strategy: str, data: st.DataObject) -> None:
    k = run_params(strategy)
    for _ in range(6):
        param = data.draw(st.sampled_from(k.decoder.params))
        k.step(param.name, data.draw(st.sampled_from([-10, -1, 1, 10])))
        value, _ = k.value(param)
        assert param.parse(value) == value
    for each in k.rows():
        assert each.fraction is None or 0 <= each.fraction <= 1


def test_up_then_down_is_where_it_was() -> None:
    k = run_params("top_k")
    before = row(k, "top_k").shown
    k.step("top_k", 3)
    k.step("top_k", -3)
    assert row(k, "top_k").shown == before


def test_turns_have_seeds_of_their_own_and_are_nothing_without_a_template() -> None:
    k = run_params(seed=7, chat=False)
    first = (Message("user", "a"),)
    second = (*first, Message("assistant", "b"), Message("user", "c"))
    assert [k.request(prompt).seed for prompt in ("a", first, second)] == [7, 7, seeds.of_turn(7, 1)]
    assert k.request(second, seed=3).seed == 3
    assert [k.request(prompt).chat for prompt in ("a", first)] == [False, None]
