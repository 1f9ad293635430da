"""Compares the log-probabilities of a text with those of transformers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from edge_tui.engine.checkpoints.checkpoint import open_checkpoint
from edge_tui.engine.events import Failed, PromptRead
from edge_tui.engine.local import LocalEngine
from edge_tui.engine.models.capacity import STEP
from edge_tui.engine.port import Request
from edge_tui.engine.text.tokenizer import Tokenizer
from tests.engine.random_checkpoints import make_checkpoint
from tests.engine.watch import watch

TEXT = "the quick brown fox jumps over the lazy dog, " * 5


def test_log_probabilities_are_those_of_transformers(engine: LocalEngine, checkpoint: Path) -> None:
    from transformers import AutoModelForCausalLM

    seen = watch(engine, Request(TEXT, strategy="greedy", max_length=4, prompt_logps=True))
    read = seen.all(PromptRead)[0]
    assert len(read.ids) > 128, "several chunks"
    assert "".join(read.text) == TEXT
    ids = torch.tensor([read.ids])
    tokenizer = Tokenizer.open(open_checkpoint(str(checkpoint)))
    with torch.no_grad():
        logits = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)(ids).logits[0]
    expected = logits[:, : tokenizer.size].log_softmax(-1)
    theirs = expected[:-1].gather(1, ids[0, 1:, None])
    likeliest = expected.topk(20).values.numpy()
    entropy = -(expected.exp() * expected).sum(-1).numpy()
    close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)
    close(read.logp[1:], theirs[:, 0].numpy())
    close(read.top_logp[1:], likeliest[:-1])
    close(read.entropy[1:], entropy[:-1])
    assert read.rank[1:].tolist() == (expected[:-1] > theirs).sum(-1).tolist()
    first = read.logp[0], read.entropy[0], read.top_logp[0]
    assert all(np.isnan(each).all() for each in first)
    assert read.rank[0] == -1
    close(read.next_logp, likeliest[-1])
    close(read.next_entropy, entropy[-1])
    assert read.next_ids[0] == seen.ids[0], "greedy takes the likeliest token after the prompt"


def test_decoding_goes_on_from_what_was_scored(
    engine: LocalEngine, open_engine: Callable[..., LocalEngine], checkpoint: Path
) -> None:
    plain = watch(open_engine(model=checkpoint), Request(TEXT, strategy="greedy", max_length=8))
    scored = watch(engine, Request(TEXT, strategy="greedy", max_length=8, prompt_logps=True))
    assert scored.ids == plain.ids
    assert scored.started.reused_tokens == scored.started.prompt_tokens - 1
    assert watch(engine, Request(TEXT, strategy="greedy", max_length=8)).ids == plain.ids


def test_the_run_after_a_reading_reads_nothing_again(
    open_engine: Callable[..., LocalEngine], tmp_path: Path
) -> None:
    """A context made for the reading alone has no room for the run, which would read all of it again."""
    engine = open_engine(model=make_checkpoint(tmp_path / "long", context=2048, seed=3))
    text = "the dog " * 230
    watch(engine, Request(text, strategy="greedy", max_length=0, prompt_logps=True))
    run = watch(engine, Request(text, strategy="top-p", max_length=150)).started
    assert STEP - 150 < run.prompt_tokens < STEP
    assert run.reused_tokens == run.prompt_tokens


def test_nothing_needs_to_be_decoded(engine: LocalEngine) -> None:
    seen = watch(engine, Request("", ids=(5, 6, 7), strategy="greedy", max_length=0, prompt_logps=True))
    assert seen.all(PromptRead)[0].ids == (5, 6, 7)
    assert (seen.finished.reason, seen.finished.new_tokens) == ("length", 0)


@pytest.mark.parametrize("ids", [(5, -1), (10**9,)])
def test_ids_that_nobody_knows_are_refused(
    engine: LocalEngine, ids: tuple[int, ...], open_engine: Callable[..., LocalEngine]
) -> None:
    failed = watch(engine, Request("", ids=ids, strategy="greedy", max_length=2)).all(Failed)[0]
    assert failed.field == "ids"
    assert str(min(ids) if min(ids) < 0 else ids[0]) in failed.message
