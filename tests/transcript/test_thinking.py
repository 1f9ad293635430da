"""Thoughts are folded however their tags are cut into tokens."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_tui.transcript.thinking import FOLD, Thoughts, without_thoughts
from edge_tui.transcript.transcript import Transcript
from tests.tui.transcripts import batch, beam_step, started, transcript_of


@pytest.mark.parametrize(
    ("tokens", "shown"),
    [
        (["<think>", "\n", "hm", "</think>", "\n", "Yes"], ["<think>⋯", "", "", "</think>", "\n", "Yes"]),
        (
            ["<", "think", ">", "a", "</", "think", ">", "b"],
            ["<", "think", ">⋯", "", "", "", "</think>", "b"],
        ),
        (["a <think>b</think> c <reasoning>d"], ["a <think>⋯</think> c <reasoning>⋯"]),
        (["if a < b", " <", " d"], ["if a < b", " <", " d"]),
        (["</think>", "x"], ["</think>", "x"]),
    ],
)
def test_folding(tokens: list[str], shown: list[str]) -> None:
    thoughts = Thoughts()
    assert thoughts.fold(tokens) == shown
    assert thoughts.token_count == len(tokens)


def test_a_thought_that_the_prompt_opened() -> None:
    thoughts = Thoughts(starts_inside=True)
    assert thoughts.fold(["x", "y"]) == [FOLD, ""]
    assert thoughts.inside
    assert thoughts.fold(["</think>", "z"]) == ["</think>", "z"]
    assert thoughts.hidden_count == 1


@given(st.lists(st.sampled_from(["<", "<think", "<think>", ">", "</", "</think>", "think", "a", " ", ""])))
def test_the_cuts_make_no_difference(tokens: list[str]) -> None:
    text = "".join(tokens)
    whole, letters = Thoughts(), Thoughts()
    assert "".join(letters.fold(text)) == "".join(whole.fold(tokens))
    assert letters.inside == whole.inside


def test_visible_text() -> None:
    assert without_thoughts("<think>a</think>\n\nYes") == "Yes"
    assert without_thoughts("a</think>ok", starts_inside=True) == "ok"
    assert without_thoughts("<think>a") == ""
    assert without_thoughts("plain") == "plain"


def test_transcript_folds_as_it_grows_and_from_the_start_again() -> None:
    transcript = transcript_of(["<think>", "a", "b"])
    assert transcript.folded_texts(0, 3) == ["<think>⋯", "", ""]
    transcript.extend(batch(["</think>", "c"], 3))
    assert transcript.folded_texts(3, 5) == ["</think>", "c"]
    assert transcript.folded_texts(1, 5) == ["", "", "</think>", "c"]
    assert transcript.thoughts.hidden_count == 2


def test_transcript_folds_anew_when_a_better_row_takes_over() -> None:
    transcript = Transcript(started(2, ("score", "finished", "finished_parent", "finished_id", "over")))
    beam_step(transcript, 0, [(0, "<think>", -1.0), (1, "plain", -2.0)])
    assert transcript.folded_texts(0, 1) == ["<think>⋯"]
    beam_step(transcript, 1, [(0, "a", -5.0), (1, " text", -2.5)])
    assert transcript.folded_texts(0, 2) == ["plain", " text"]
