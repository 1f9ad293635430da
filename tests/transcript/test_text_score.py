"""Perplexity and bits per byte of a text, counted by hand."""

from __future__ import annotations

from dataclasses import replace
from math import exp, isnan, log

import pytest

from edge_tui.transcript.text_score import score
from tests.tui.prompts import prompt_read

PARTS = [("<s>", ""), ("ab", "user"), ("é", "user"), ("c", "assistant"), ("d", "user")]


def test_the_sums_are_those_of_the_tokens() -> None:
    found = score(prompt_read(1, PARTS), ("user",))
    assert (found.tokens, found.nats, found.bytes) == (3, 1 + 2 + 4, 2 + 2 + 1)
    assert found.perplexity == pytest.approx(exp(7 / 3))
    assert found.bits_per_byte == pytest.approx(7 / log(2) / 5)
    assert score(prompt_read(1, PARTS)).tokens == 4


def test_a_first_token_counts_neither_its_surprise_nor_its_bytes() -> None:
    found = score(prompt_read(1, [("abc", "user"), ("d", "user")]))
    assert (found.tokens, found.nats, found.bytes) == (1, 1, 1)


def test_everything_counts_where_no_role_is_known() -> None:
    read = replace(prompt_read(1, PARTS), roles=())
    assert score(read, ("user",)).tokens == 4


def test_nothing_has_no_perplexity() -> None:
    found = score(prompt_read(1, [("a", "user")]))
    assert found.tokens == 0
    assert isnan(found.perplexity)
    assert isnan(found.bits_per_byte)
