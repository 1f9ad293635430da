"""The pictures of parameters agree with the strategies themselves."""

from __future__ import annotations

from math import log
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_tui import decoders
from edge_tui.decoders.base import Env, Output
from edge_tui.decoders.contrastive import contrast
from edge_tui.tui.param_preview import PREVIEWABLE, amateur_as_it_is, apply, groups, shares, without
from tests.decoders.driver import numbers, param_values, table

V = 20


def final(name: str, z: torch.Tensor, amateur: torch.Tensor, answer: list[int], **values: Any) -> list[float]:
    """The distribution that the strategy itself draws from."""
    decoder = decoders.find(name)
    resolved = param_values(decoder, **values)
    env = Env(1, V, "cpu", torch.tensor([answer]), torch.tensor([]), resolved, 9, prefix=len(answer))
    outs = {"model": Output(z[None, None]), "amateur": Output(amateur[None, None])}
    step = decoder.step(outs, decoder.init(env), table(decoder, **values), numbers())
    return step.final[0].softmax(-1).tolist()  # type: ignore[no-any-return]


_NAMES = ("top_k", "top_p", "min_p", "typical", "auto", "contrastive")


def _values(draw: Any, name: str) -> dict[str, float]:
    values = {}
    for param in decoders.find(name).params:
        if param.name not in PREVIEWABLE:
            continue
        if param.choices:
            values[param.name] = float(draw(st.integers(0, len(param.choices) - 1)))
        elif param.integer:
            values[param.name] = float(draw(st.integers(0, 25)))
        else:
            low, high = max(param.low, 0.05), min(param.high, 2.0)
            values[param.name] = draw(
                st.sampled_from([low, high, (low + high) / 2, 1.0 if high >= 1 else high])
            )
    return values


@settings(max_examples=250, deadline=None)
@given(st.data())
def test_as_the_strategies_do(data: Any) -> None:
    name = data.draw(st.sampled_from(_NAMES))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 999)))
    z = (2 * torch.randn(V, generator=generator)).log_softmax(-1)
    amateur = (2 * torch.randn(V, generator=generator)).log_softmax(-1)
    answer = data.draw(st.lists(st.integers(0, V - 1), min_size=1, max_size=4))
    values = _values(data.draw, name)
    wanted = final(name, z, amateur, answer, **values)
    said = [answer.count(i) for i in range(V)]
    rival = amateur.tolist() if name == "contrastive" else ()
    found = shares(apply(groups(z.tolist(), V, said, rival), values))
    assert found == pytest.approx(wanted, abs=2e-4)


@pytest.mark.parametrize(
    "name", ["top_p+temperature", "temperature+top_p", "temperature+min_p+penalties", "typical+top_k"]
)
def test_a_chain_is_drawn_in_its_order(name: str) -> None:
    z = (2 * torch.randn(V, generator=torch.Generator().manual_seed(4))).log_softmax(-1)
    values = {"temperature": 1.7, "top_p": 0.8, "min_p": 0.1, "typical_p": 0.7, "top_k": 4}
    values |= {"repetition_penalty": 1.4, "presence_penalty": 0.5}
    params = [param.name for param in decoders.find(name).params]
    values = {key: value for key, value in values.items() if key in params}
    answer = [int(z.argmax()), 3, 3]
    found = groups(z.tolist(), V, [answer.count(i) for i in range(V)])
    wanted = final(name, z, z, answer, **values)
    assert shares(apply(found, values, params)) == pytest.approx(wanted, abs=2e-4)


@pytest.mark.parametrize("formula", ["li2022", "obrien2023"])
@pytest.mark.parametrize("recorded", ["li2022", "obrien2023", "seed"])
def test_what_an_amateur_was_recorded_to_say_under_another_formula(formula: str, recorded: str) -> None:
    generator = torch.Generator().manual_seed(1)
    z, amateur = torch.randn(V, generator=generator).log_softmax(-1), torch.randn(V, generator=generator)
    decoder = decoders.find("contrastive")
    then = param_values(decoder, formula=recorded, amateur_temperature=0.4)
    told = contrast(z[None], amateur[None], table(decoder, formula=recorded, amateur_temperature=0.4))
    rival = [amateur_as_it_is(each, then) for each in told["amateur"][0].tolist()]
    values = param_values(decoder, formula=formula, amateur_temperature=0.7)
    wanted = contrast(z[None], amateur[None], table(decoder, formula=formula, amateur_temperature=0.7))
    found = shares(apply(groups(z.tolist(), V, (), rival), values))
    assert found == pytest.approx(wanted["score"][0].softmax(-1).tolist(), abs=2e-4)


def test_the_rest_is_counted() -> None:
    found = groups([log(0.5), log(0.3)], 1002)
    assert found[-1].many == 1000
    assert shares(found) == pytest.approx([0.5, 0.3, 0.2])
    # Twice as hot: the rest, which is many, gains most.
    hot = shares(apply(found, {"temperature": 2.0}))
    assert hot[-1] > 0.8
    assert sum(hot) == pytest.approx(1)
    cold = shares(apply(found, {"temperature": 0.0}))
    assert cold == [1.0, 0.0, 0.0]
    assert shares(apply(found, {"top_k": 2.0})) == pytest.approx([0.625, 0.375, 0])
    # Half of the rest completes the nucleus.
    nucleus = apply(found, {"top_p": 0.9})
    assert nucleus[-1].many == pytest.approx(500, abs=2)
    assert shares(apply(found, {"min_p": 0.1}))[-1] == 0.0


def test_a_neutral_parameter_changes_nothing() -> None:
    found = groups([log(0.5), log(0.3), log(0.2)], 3, [1, 0, 2])
    for name in (
        "temperature",
        "top_k",
        "top_p",
        "min_p",
        "typical_p",
        "presence_penalty",
        "repetition_penalty",
    ):
        assert shares(apply(found, without(name, {}))) == pytest.approx([0.5, 0.3, 0.2]), name
    assert shares(apply(found, {"presence_penalty": 50.0})) == pytest.approx([0, 1, 0])
