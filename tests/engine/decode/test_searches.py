"""Searches on real contexts: the engine's answers are those of every row read again from its start."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from edge_tui import decoders
from edge_tui.decoders.base import Records
from edge_tui.engine.events import Started, TokenBatch
from edge_tui.engine.local import LocalEngine
from edge_tui.engine.port import Request
from edge_tui.transcript.transcript import Transcript
from tests.decoders.driver import run
from tests.engine.watch import watch

PROMPT, LENGTH = (40, 41, 42, 43), 8


@pytest.mark.parametrize("name", ["beam_sample", "diverse_beam", "stochastic_beam"])
def test_the_engine_finds_and_shows_what_a_search_without_a_cache_finds(
    checkpoint: Path, engine: LocalEngine, name: str
) -> None:
    seen = watch(engine, Request("", name, {"num_beams": 4}, ids=PROMPT, seed=6, max_length=LENGTH))
    (started,) = seen.all(Started)
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()

    @torch.no_grad()
    def logits(ids: torch.Tensor) -> torch.Tensor:
        return model(ids, use_cache=False).logits[:, -1]

    vocab = len(AutoTokenizer.from_pretrained(checkpoint))
    decoder = decoders.find(name)
    found = run(decoder, {"model": logits}, PROMPT, LENGTH, vocab, started.end_ids, 6, num_beams=4)
    listed = decoder.ranked(Records(found.tokens, found.parents, found.extras, found.values))
    assert [each.tokens for each in seen.finished.ranked] == [choice.tokens for choice in listed]
    assert [each.score for each in seen.finished.ranked] == pytest.approx([c.score for c in listed], abs=1e-3)

    board = Transcript(started)
    for batch in seen.all(TokenBatch):
        board.extend(batch)
    shown = board.hypotheses()
    finished = [each for each in shown if each.finished]
    assert finished[0].tokens[-1] == seen.finished.ranked[0].tokens[-1]
    assert finished[0].score == pytest.approx(seen.finished.ranked[0].score, abs=1e-5)
