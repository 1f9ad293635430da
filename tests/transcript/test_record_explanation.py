from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import exp, inf, isnan, nan
from typing import Any

import numpy as np
import pytest

from edge_tui.decoders.base import Column
from edge_tui.engine.events import TOP, Resolved, Started, TokenBatch
from edge_tui.engine.explanation import Explanation
from edge_tui.engine.token_fields import KEPT, OWN, TOKEN_FIELDS, UNKNOWN
from edge_tui.transcript.ladder import ladder_lines
from edge_tui.transcript.record_explanation import explanation_of_record
from edge_tui.transcript.transcript import Transcript

STAGES = {"penalties": 0, "temperature": 1, "top_k": 2}


def record(**columns: Any) -> TokenBatch:
    """One token with empty columns where none are given."""
    extras = len(columns.get("extras", ()))
    full = {
        each.name: np.full((1, *each.shape(extras)), each.empty, each.dtype)
        for each in TOKEN_FIELDS
        if each.kind != "candidates"
    }
    for name, values in columns.items():
        full[name].reshape(-1)[: len(np.atleast_1d(values))] = values
    return TokenBatch(run=1, text=(" a",), **full)


def explain(batch: TokenBatch, strategy: str = "top_k", vocab: int = 100, **more: Any) -> Explanation:
    begun = Started(1, strategy, 1, (), 5, 0, 0, 9, 4, {"top_k": Resolved(2.0, "user")})
    transcript = Transcript(replace(begun, **more))
    transcript.extend(batch)

    def decode(ids: Sequence[int]) -> list[str]:
        return [f" t{each}" for each in ids]

    return explanation_of_record(transcript, 0, decode, "The model is gone.", vocab)


DRAWN = {
    "id": 7,
    "raw_logp": -1.0,
    "final_logp": -0.4,
    "rank": 1,
    "entropy": 2.0,
    "top_ids": [8, 7, 9],
    "top_logp": [-0.5, -1.0, -3.0],
    "final_ids": [8, 7],
    "final_top_logp": [-1.1, -0.4],
}
NEW = {**DRAWN, "margin": 0.25, "candidate_count": 2, "removing_stage": [KEPT, KEPT, STAGES["top_k"]]}


def test_a_record_tells_its_numbers_and_no_luck() -> None:
    why = explain(record(**NEW))
    assert (why.token, why.winner, why.margin, why.candidate_count) == (7, 7, 0.25, 2)
    assert (why.exactness, why.note, why.drawn) == ("record", "The model is gone.", True)
    assert why.chance == pytest.approx(exp(-0.4))
    (stage,) = why.stages
    assert (stage.title, stage.kept, stage.removed) == ("top-k", 2, 98)
    found = {each.id: each for each in why.candidates}
    assert list(found) == [7, 8, 9]
    assert [found[i].text for i in found] == [" a", " t8", " t9"]
    assert [found[i].rank for i in found] == [1, 0, 2]
    assert [found[i].removing_stage for i in found] == [-1, -1, 0]
    assert found[9].logps == (-inf,)
    assert all(isnan(each.luck) for each in why.candidates)
    assert why.facts == (("cut by top-k 2", "1 of 3"),)
    assert why.sentence == "“ a” was drawn with 67.0 %; it had 36.8 % under the model."


def test_an_old_record_says_that_it_has_no_margin() -> None:
    why = explain(record(**DRAWN))
    assert isnan(why.margin)
    assert why.candidate_count == 2  # fewer than the record has room for: these are all
    assert [each.removing_stage for each in why.candidates] == [-1, -1, 0]
    assert why.note == "The model is gone. An older edge-tui, or another server, recorded no margin with it."


def test_what_the_record_has_no_room_for_is_not_invented() -> None:
    full = {**DRAWN, "final_ids": range(7, 7 + TOP), "final_top_logp": np.linspace(-0.4, -4.0, TOP)}
    full |= {"top_ids": [8, 7, 90], "removing_stage": [KEPT, KEPT, UNKNOWN]}
    why = explain(record(**full))
    assert why.candidate_count == -1
    assert 90 not in {each.id for each in why.candidates}
    assert "kept" not in "".join(line.text for line in ladder_lines(why, 80))
    known = explain(record(**{**full, "candidate_count": 40, "removing_stage": [KEPT, KEPT, KEPT]}))
    assert known.stages[0].removed == 60
    (ninety,) = (each for each in known.candidates if each.id == 90)
    assert ninety.removing_stage == -1
    assert isnan(ninety.logps[0])


def test_the_own_part_of_a_strategy_and_one_that_is_gone_are_named_as_far_as_known() -> None:
    greedy = explain(record(**{**NEW, "removing_stage": [OWN, KEPT, OWN]}), "greedy")
    assert (greedy.drawn, greedy.facts) == (False, (("cut by its own part", "2 of 3"),))
    assert greedy.sentence == "“ a” was taken with 36.8 % under the model."
    gone = explain(record(**NEW), "nobodys")
    assert (gone.stages[0].title, gone.drawn) == ("nobodys", True)


def test_numbers_of_the_strategys_own_are_facts() -> None:
    details = (Column("mu"), Column("verdict", choices=("no", "yes")), Column("none"))
    batch = record(**NEW, extras=[2.5, 1.0, nan])
    why = explain(batch, columns=("mu", "verdict", "none"), column_details=details)
    assert why.facts[1:] == (("mu", "2.5"), ("verdict", "yes"))


def test_ids_are_told_as_their_tokens_and_what_is_none_is_left_out() -> None:
    details = (
        Column("finished", role="score"),
        Column("finished_parent", role="parent"),
        Column("finished_id", role="token"),
    )
    names = tuple(each.name for each in details)
    ended = explain(record(**NEW, extras=[-1.5, 1.0, 40.0]), columns=names, column_details=details)
    assert ended.facts[1:] == (("finished", "-1.5"), ("finished parent", "row 2"), ("finished id", "“ t40”"))
    none = explain(record(**NEW, extras=[nan, -1.0, -1.0]), columns=names, column_details=details)
    assert none.facts[1:] == ()


@pytest.mark.parametrize(
    ("strategy", "values", "drawn"),
    [
        ("contrastive", {}, False),
        ("contrastive", {"sample": "on"}, True),
        ("contrastive", {"sample": "on", "temperature": 0.0}, False),
        ("auto", {}, False),
        ("auto", {"do_sample": "on"}, True),
        ("top_k", {"temperature": 0.0}, False),
        ("top_p", {"top_p": 0.0}, False),
        ("beam", {}, False),
    ],
)
def test_a_token_that_no_luck_decided_was_not_drawn(
    strategy: str, values: dict[str, Any], drawn: bool
) -> None:
    resolved = {name: Resolved(value, "user") for name, value in values.items()}
    why = explain(record(**NEW), strategy, values=resolved)
    assert (why.drawn, "was drawn" in why.sentence) == (drawn, drawn)


def test_a_token_of_which_only_the_id_is_known_has_a_ladder_too() -> None:
    why = explain(record(id=7))
    assert why.sentence == "“ a” was taken; no number of it is known."
    assert ladder_lines(why, 60)
