"""What a request's parameters, seed, ids and length become before anything is decoded."""

from __future__ import annotations

import pytest

from edge_tui import decoders
from edge_tui.engine.decode.resolve import CHECKPOINT, check_ids, clamp_max_length, resolve_params
from edge_tui.engine.port import Request
from edge_tui.errors import PromptTooLong, RequestError

AUTO = decoders.find("auto")


def test_a_requests_value_counts_for_more_than_the_checkpoints() -> None:
    resolved = resolve_params(Request("", values={"top_p": 0.5}), AUTO, {"top_p": 0.9, "temperature": 0.7})
    assert (resolved.values["top_p"], resolved.values["temperature"]) == (0.5, 0.7)
    assert resolved.resolved["top_p"].source == "user"
    assert resolved.resolved["temperature"].source == CHECKPOINT


def test_a_seed_that_is_given_stays_and_a_negative_one_is_drawn() -> None:
    assert resolve_params(Request("", seed=0), AUTO, {}).seed == 0
    assert resolve_params(Request("", seed=-1), AUTO, {}).seed >= 0


def test_ids_end_below_the_vocabularys_size() -> None:
    check_ids((0, 9), 10, "ids")
    for wrong in (-1, 10):
        with pytest.raises(RequestError, match="from 0 to 9"):
            check_ids((wrong,), 10, "ids")


def test_a_kept_prefix_takes_room_in_the_context() -> None:
    assert clamp_max_length(prompt=6, prefix=3, max_length=3, context=12) == (3, "")
    length, sentence = clamp_max_length(prompt=6, prefix=3, max_length=4, context=12)
    assert length == 3
    assert "9 of 12" in sentence
    with pytest.raises(PromptTooLong, match="shorten the prefix by 1"):
        clamp_max_length(prompt=6, prefix=6, max_length=1, context=12)
