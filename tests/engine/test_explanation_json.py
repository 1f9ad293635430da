"""What is written of an explanation is read again: number for number, and nothing else is read."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from math import inf, isnan, nan
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_tui.engine.explanation import Candidate, Explanation, OtherChoice, StageView
from edge_tui.engine.port import Question, Request
from edge_tui.engine.remote.explanation_json import read_explanation, write_explanation, write_question

_number = st.floats(allow_nan=False, allow_infinity=False)
_text = st.text(max_size=8)
_id = st.integers(0, 2**31 - 1)


@st.composite
def explanations(draw: st.DrawFn) -> Explanation:
    count, drawn = draw(st.integers(0, 3)), draw(st.booleans())
    stage = st.builds(
        *(StageView, _text, _text, _id, _id, _number, _text),
        edge=_number | st.just(nan),
        neutral=st.booleans(),
    )

    def candidate() -> Candidate:
        removing = draw(st.integers(-1, count - 1))
        logps = [draw(_number) if removing in (-1, *range(i + 1, count)) else -inf for i in range(count)]
        luck = draw(_number) if drawn else nan
        return Candidate(
            *(draw(_id), draw(_text), draw(_number), draw(_id), tuple(logps)),
            criteria=tuple(draw(_number | st.just(nan)) for _ in range(count)),
            removing_stage=removing,
            luck=luck,
            sum=nan if not drawn else draw(_number) if removing < 0 else -inf,
        )

    left = draw(st.integers(1, 9))
    return Explanation(
        token=draw(_id),
        winner=draw(_id),
        margin=inf if left == 1 else draw(_number),
        candidate_count=left,
        chance=draw(_number),
        entropy=draw(_number),
        drawn=drawn,
        stages=tuple(draw(stage) for _ in range(count)),
        candidates=tuple(candidate() for _ in range(draw(st.integers(0, 3)))),
        sentence=draw(_text),
        others=tuple(draw(st.lists(st.builds(OtherChoice, _text, _text, _id, _text), max_size=2))),
        facts=tuple(draw(st.lists(st.tuples(_text, _text), max_size=2))),
        exactness=draw(st.sampled_from(["own", "near", "record"])),
        epsilon=draw(_number),
        note=draw(_text),
    )


def _comparable(value: Any) -> Any:
    """Puts a word in the place of NaN, which equals nothing."""
    if isinstance(value, dict):
        return {key: _comparable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_comparable(item) for item in value]
    return "NaN" if isinstance(value, float) and isnan(value) else value


@settings(max_examples=20, suppress_health_check=[HealthCheck.too_slow])
@given(explanations())
def test_an_explanation_is_read_as_it_was_written(explanation: Explanation) -> None:
    text = json.dumps(write_explanation(explanation), allow_nan=False)
    assert _comparable(asdict(read_explanation(json.loads(text)))) == _comparable(asdict(explanation))


CANDIDATE = Candidate(7, " a", -1.0, 0, (-0.5, -inf), (0.5, nan), 1, 0.25)
EXPLANATION = Explanation(
    *(7, 7, inf, 1, 1.0, 0.5, True),
    stages=(StageView("top_p", "top-p 0.9", 3), StageView("xtc", "xtc", 1)),
    candidates=(CANDIDATE,),
    sentence="“ a” was alone.",
)


def test_numbers_that_json_lacks_are_null() -> None:
    data = write_explanation(EXPLANATION)
    assert (data["margin"], data["stages"][0]["edge"]) == (None, None)
    assert data["candidates"][0]["logps"] == [-0.5, None]
    assert data["candidates"][0]["criteria"] == [0.5, None]
    assert data["candidates"][0]["sum"] is None


def test_a_newer_server_may_say_more_and_an_older_one_less() -> None:
    data = write_explanation(EXPLANATION)
    del data["facts"], data["note"]
    assert read_explanation({**data, "mood": "good"}) == read_explanation(write_explanation(EXPLANATION))


@pytest.mark.parametrize(
    "broken",
    [
        {},
        {"stages": 5},
        {"candidates": [5]},
        {"exactness": "certain"},
        {"token": "7"},
        {"candidates": [{"id": 7}]},
        {"stages": [None]},
    ],
)
def test_what_is_no_explanation_is_refused(broken: dict[str, Any]) -> None:
    data = {**write_explanation(EXPLANATION), **broken} if broken else {}
    with pytest.raises((LookupError, TypeError, ValueError, AttributeError)):
        read_explanation(data)


def test_a_question_is_a_request_and_a_token() -> None:
    asked = Question(Request("a", "top_p", {"top_p": 0.5}, seed=7, prefix=(1, 2)), 3, (9,), 0.5, ("greedy",))
    body = write_question(asked)
    assert (body["prompt"], body["strategy"], body["params"]) == ("a", "top_p", {"top_p": 0.5})
    assert (body["prefix"], body["token"], body["candidates"]) == ((1, 2), 3, [9])
    assert (body["margin"], body["others"]) == (0.5, ["greedy"])
    for number in (nan, inf):  # inf where one token was left
        body = write_question(replace(asked, margin=number, recorded={"drafted": number}))
        assert json.loads(json.dumps(body, allow_nan=False))["margin"] is None
        assert body["recorded"] == {"drafted": None}
