"""Long ropes are chosen by the run's reserved length, not by what has been read so far."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from tests.engine.models.references import (
    LONG,
    TOLERANCE,
    checkpoint,
    deviation,
    flat,
    one_by_one,
    random_ids,
    reference,
)

if TYPE_CHECKING:
    from pathlib import Path

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
