"""Tokens as bytes: nothing is lost, and little is taken."""

from __future__ import annotations

import struct
import zlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edge_tui.engine.events import TokenBatch
from edge_tui.engine.token_fields import TOP, UNKNOWN
from edge_tui.history import columns
from tests.history.runs import WORDS, batch, same


@settings(max_examples=40)
@given(st.lists(st.text(st.characters(exclude_categories=())), max_size=9), st.integers(0, 3), st.booleans())
@example(["a\ud83d", "\udc00"], 0, False)
def test_what_goes_in_comes_out(texts: list[str], extras: int, told: bool) -> None:
    before = batch(texts, start=3, columns=extras, told=told)
    assert same(before, columns.unpack(columns.pack(before)))


def test_numbers_that_are_none_stay_what_they_are() -> None:
    before = batch(["a"] * 4)
    before.raw_logp[:] = [np.nan, np.inf, -np.inf, -0.0]
    assert same(before, columns.unpack(columns.pack(before)))


def test_batches_join_in_their_order() -> None:
    parts = [batch(WORDS[:4]), batch(WORDS[4:5], 4), batch(WORDS[5:], 5)]
    joined = columns.join(parts)
    assert joined.text == tuple(WORDS)
    assert joined.id.tolist() == [i for part in parts for i in part.id.tolist()]
    assert joined.candidates is None
    told = columns.join([batch(WORDS[:4], columns=2, told=True), batch(WORDS[4:], 4, columns=2, told=True)])
    assert told.candidates is not None
    assert len(told.candidates) == len(WORDS)


def test_a_token_takes_at_most_400_bytes_whatever_it_holds() -> None:
    # Random numbers are the worst case: a model's compress to half of that.
    assert len(columns.pack(batch(["word "] * 1024))) / 1024 <= 400
    assert len(columns.pack(batch(["word "]))) <= 400


@pytest.mark.parametrize("cut", [0, 5, 40, -1])
def test_what_is_cut_off_is_refused(cut: int) -> None:
    whole = columns.pack(batch(WORDS))
    with pytest.raises(columns.DamagedColumns):
        columns.unpack(whole[:cut])


def written_before(batch: TokenBatch) -> bytes:
    """Packs a batch as versions did that recorded neither margins nor what removed a token."""
    names = ["step", "row", "parent", "id", "rank", "version", "raw_logp", "final_logp", "entropy"]
    wide = ["top_ids", "final_ids", "top_logp", "final_top_logp", "extras"]
    wide += [] if batch.candidates is None else ["candidates"]
    texts = [text.encode() for text in batch.text]
    lengths = np.array([len(text) for text in texts], np.int32)
    numbers = [*(getattr(batch, name) for name in names), lengths, *(getattr(batch, name) for name in wide)]
    planes = [np.ascontiguousarray(each).reshape(-1, 1).view(np.uint8).T.tobytes() for each in numbers]
    form = 1 if batch.candidates is None else 2
    head = struct.pack("<BIHH", form, len(batch), TOP, batch.extras.shape[1])
    return head + zlib.compress(b"".join((*planes, *texts)), 1)


@pytest.mark.parametrize("told", [False, True])
def test_what_older_versions_wrote_reads_on(told: bool) -> None:
    before = batch(WORDS, columns=2, told=told)
    found = columns.unpack(written_before(before))
    n = len(WORDS)
    assert np.isnan(found.margin).all()
    assert found.candidate_count.tolist() == [-1] * n
    assert found.removing_stage.tolist() == [[UNKNOWN] * TOP] * n
    known = {name: getattr(found, name) for name in ("margin", "candidate_count", "removing_stage")}
    assert same(found, replace(before, **known))
    joined = columns.join([found, columns.unpack(columns.pack(before))])
    assert joined.candidate_count.tolist() == [-1] * n + before.candidate_count.tolist()


def test_another_format_is_refused() -> None:
    with pytest.raises(columns.DamagedColumns, match="format 9"):
        columns.unpack(b"\x09" + columns.pack(batch(WORDS))[1:])
