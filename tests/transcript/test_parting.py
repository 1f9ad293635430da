"""Why two runs part, on a toy model whose every number is known."""

from __future__ import annotations

from dataclasses import replace
from math import inf, isnan

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edge_tui import decoders
from edge_tui.decoders.base import numbers
from edge_tui.decoders.quadratic import Quadratic
from edge_tui.engine.port import Message
from edge_tui.transcript.parting import common_length, parting_at
from tests.transcript.sides import decode

LENGTH = 12
SAMPLERS = [
    decoder.name
    for decoder in decoders.strategies()
    if decoder.kind == "sample" and len(decoder.streams) == 1 and not decoder.needs.layers
]


@st.composite
def runs(draw: st.DrawFn) -> tuple[str, dict[str, float]]:
    """A strategy with values of its own filter; the stages that every one has stay as they are."""
    name = draw(st.sampled_from(SAMPLERS))
    values = {}
    shared = {"temperature", "repetition_penalty", "presence_penalty", "frequency_penalty"}
    for param in numbers(decoders.find(name).params):
        if param.name not in shared and not param.choices and draw(st.booleans()):
            low = param.low + param.step if param.low_open else param.low
            high = min(param.high, 10 * abs(param.default) + 1)
            number = draw(st.integers(0, 8)) / 8 * (high - low) + low
            values[param.name] = float(round(number)) if param.integer else number
    return name, values


@settings(max_examples=15)
@given(runs(), runs(), st.integers(0, 50), st.sampled_from([0.6, 1.0, 1.4]))
@example(("top_k", {}), ("watermark", {"watermark_share": 0.625}), 4, 1.4)
@example(("top_p", {}), ("top_p", {"top_p": 0.125}), 0, 0.6)
def test_runs_of_one_key_part_only_where_a_stage_cut_the_winner_of_the_other(
    one: tuple[str, dict[str, float]], other: tuple[str, dict[str, float]], seed: int, temperature: float
) -> None:
    sides, steps = [], []
    for name, values in (one, other):
        has_one = any(param.name == "temperature" for param in decoders.find(name).params)
        warm = {"temperature": temperature} if has_one else {}
        side, done = decode(name, LENGTH, seed, **warm | values)
        sides.append(side)
        steps.append(done)
    index = common_length(sides[0].transcript, sides[1].transcript)
    if index == LENGTH:
        return
    parting = parting_at(*sides, index)
    first, second = (side.transcript.token(index) for side in sides)
    cut = [
        steps[0].finals[index][0, second.id].item() == -inf,
        steps[1].finals[index][0, first.id].item() == -inf,
    ]
    if parting.comparable:
        assert any(cut), parting.sentence
        assert parting.sentence.startswith("They part because ")
    else:
        assert parting.sentence.startswith("The numbers differ before the draw: ")
    for was_cut, token in zip(cut, (second, first), strict=True):
        if f"cut “{token.text}”" in parting.sentence:
            assert was_cut
            assert f"“{token.text}”, which is number {token.rank + 1}" in parting.sentence


def first_parting(one: tuple[str, dict[str, float]], other: tuple[str, dict[str, float]]) -> tuple:
    """Finds a seed under which two strategies part; returns their sides and the position."""
    for seed in range(40):
        sides = [decode(name, LENGTH, seed, **values)[0] for name, values in (one, other)]
        index = common_length(sides[0].transcript, sides[1].transcript)
        if 0 < index < LENGTH:
            return *sides, index
    raise AssertionError("they never part")


def test_the_sentence_names_stage_token_and_rank() -> None:
    one, other, index = first_parting(("top_k", {"top_k": 3}), ("top_p", {"top_p": 0.98}))
    parting = parting_at(one, other, index)
    token = other.transcript.token(index)
    expected = f"They part because top-k 3 cut “{token.text}”, which is number {token.rank + 1}."
    assert (parting.index, parting.comparable, parting.sentence) == (index, True, expected)
    assert {row.text for row in parting.rows} == {one.transcript.token(index).text, token.text}
    assert [row.verdicts for row in parting.rows if row.text == token.text] == [("", "● takes it")]
    assert all(isnan(row.luck) for row in parting.rows)  # which no record has


@pytest.mark.parametrize(
    ("one", "other", "reason"),
    [
        (("greedy", {}), ("top_p", {}), "greedy draws nothing"),
        (("top_p", {"temperature": 0.0}), ("top_k", {}), "top-p draws nothing"),
        (("top_p", {"top_p": 0.0}), ("top_k", {}), "top-p draws nothing"),
        (("contrastive", {}), ("top_p", {}), "contrastive makes numbers of its own"),
        (("top_p", {"temperature": 0.7}), ("top_k", {}), "temperature is 0.7 and 1"),
        (("top_p", {"repetition_penalty": 1.4}), ("top_k", {}), "repetition is 1.4 and 1"),
        (("dry", {}), ("top_p", {}), "DRY acts in DRY alone"),
        (
            ("quadratic", {"smoothing_factor": 0.3}),
            ("top_p", {}),
            "quadratic acts in quadratic alone",
        ),
    ],
)
def test_a_condition_that_fails_is_named(one: tuple, other: tuple, reason: str) -> None:
    first, second, index = first_parting(one, other)
    parting = parting_at(first, second, index)
    assert not parting.comparable
    assert parting.sentence == f"The numbers differ before the draw: {reason}."


def test_a_stage_that_does_not_say_that_it_reshapes_is_found_by_the_numbers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Quadratic, "reshapes", False)
    one, other, index = first_parting(("quadratic", {"smoothing_factor": 0.3}), ("top_p", {}))
    said = parting_at(one, other, index).sentence
    assert said == "The numbers differ before the draw: quadratic and top-p do not reshape them alike."


def test_runs_that_were_asked_for_otherwise_are_not_compared_by_luck() -> None:
    one, other, index = first_parting(("top_k", {"top_k": 3}), ("top_p", {"top_p": 0.98}))

    def said(side: object) -> str:
        return parting_at(one, side, index).sentence

    elsewhere = {"model": replace(one.models["model"], precision="int8")}
    talk = (Message("user", "toy"),)
    assert "the prompts are not the same" in said(replace(other, request=replace(other.request, prompt=talk)))
    assert "the models are not the same" in said(replace(other, models=elsewhere))
    assert "the prompts are not the same" not in said(replace(other, models={}))
    again, _ = decode("top_p", LENGTH, 41, top_p=0.98)
    at = common_length(one.transcript, again.transcript)
    assert "the seeds are" in parting_at(one, again, at).sentence
