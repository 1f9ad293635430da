"""Long ropes are chosen by the run's reserved length, not by what has been read so far."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from edge_tui.engine.models.transformers_tier import load_transformers
from edge_tui.engine.port import Request
from tests.engine.models.references import (
    LONG,
    TOLERANCE,
    checkpoint,
    deviation,
    flat,
    one_by_one,
    random_ids,
    reference,
    source,
)
from tests.engine.random_checkpoints import make_checkpoint
from tests.engine.watch import watch

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edge_tui.engine.local import LocalEngine

ORIGINAL = LONG["original_max_position_embeddings"]


def test_long_rope_is_fixed_per_run(tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "phi3", "phi3 long rope")
    model, module, ids = flat(path), reference(path), random_ids(1, 40)
    with torch.inference_mode():
        short, long = module(ids[:, :ORIGINAL]).logits, module(ids).logits
    got = one_by_one(model, model.open(1, ORIGINAL), ids[:, :ORIGINAL])
    assert deviation(got, short) < TOLERANCE
    got = one_by_one(model, model.open(1, ORIGINAL + 1), ids[:, :ORIGINAL])
    assert deviation(got, long[:, :ORIGINAL]) < TOLERANCE
    assert deviation(got, short) > 10 * TOLERANCE
    got = one_by_one(model, model.open(1, 40), ids)
    assert deviation(got, long) < TOLERANCE


def test_the_runs_total_chooses_and_not_the_room(tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "phi3", "phi3 long rope")
    model, module, ids = flat(path), reference(path), random_ids(1, 40)
    with torch.inference_mode():
        short, long = module(ids[:, :ORIGINAL]).logits, module(ids).logits
    for total, wanted in ((ORIGINAL, short), (ORIGINAL + 1, long[:, :ORIGINAL])):
        context = model.open(1, 512, total)
        assert total in context.totals
        assert 2 * ORIGINAL + 1 - total not in context.totals
        assert deviation(one_by_one(model, context, ids[:, :ORIGINAL]), wanted) < TOLERANCE
        assert context.fork(2).totals == context.totals


def test_a_kept_context_with_other_factors_is_read_again(
    tmp_path: Path, open_engine: Callable[..., LocalEngine]
) -> None:
    """Each run gives what it gives on its own, whatever ran before; and says which factors it had."""
    path = checkpoint(tmp_path / "phi3", "phi3 long rope")
    prompt = tuple(range(20, 34))
    short = Request("", ids=prompt, strategy="greedy", max_length=ORIGINAL - len(prompt))
    long = Request("", ids=prompt, strategy="greedy", max_length=40)
    alone = [watch(open_engine(model=path), request).ids for request in (short, long)]
    assert alone[1][: len(alone[0])] != alone[0], "the factors do not show"
    engine = open_engine(model=path)
    runs = [watch(engine, request) for request in (short, long, short, short, long, long)]
    assert [run.ids for run in runs] == [alone[0], alone[1], alone[0], alone[0], alone[1], alone[1]]
    assert [run.started.reused_tokens > 0 for run in runs] == [False, False, False, True, False, True]
    assert ["The long rotary" in " ".join(run.started.notices) for run in runs] == [
        run is runs[1] or run in runs[4:] for run in runs
    ]


def test_the_other_tier_ends_where_the_factors_would_change(tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "phi3", "phi3 long rope")
    model = load_transformers(source(path), device="cpu", dtype=torch.float32, precision="float32")
    assert model.info.context == ORIGINAL
    assert f"change beyond {ORIGINAL} positions" in model.caps.reason


def test_dynamic_factors_are_plain_as_far_as_the_model_goes(tmp_path: Path) -> None:
    rope = {"rope_type": "dynamic", "factor": 4.0}
    path = make_checkpoint(tmp_path / "llama", "llama", rope=rope, context=40)
    model, ids = flat(path, context=1000), random_ids(1, 40)
    with torch.inference_mode():
        wanted = reference(path)(ids).logits
    assert model.info.context == 40
    assert deviation(one_by_one(model, model.open(1, 64, 40), ids), wanted) < TOLERANCE
