"""Follows a strategy's numbers of the alternatives from its step to the batch."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from edge_tui.engine.events import TOP, TokenBatch
from edge_tui.engine.local import LocalEngine
from edge_tui.engine.ops.stats import ALTERNATIVES, FLOATS, record
from edge_tui.engine.port import Request
from tests.engine.watch import watch


def test_looked_up_at_the_alternatives_on_record() -> None:
    vocab = 9  # fewer than there are places
    z, final = torch.randn(2, vocab), torch.randn(2, vocab)
    final[:, :4] = -torch.inf
    column, other = torch.randn(2, vocab), torch.randn(2, vocab)
    chosen = torch.tensor([5, 6])
    rest = (chosen, torch.arange(2), torch.zeros(2, dtype=torch.bool), torch.zeros(2), [torch.ones(2)])
    plain_ints, plain = record(z, final, *rest)
    ints, floats = record(z, final, *rest, candidates=[column, other])
    assert torch.equal(ints, plain_ints)
    torch.testing.assert_close(floats[:, : plain.shape[1]], plain, rtol=0, atol=0, equal_nan=True)
    told = floats[:, plain.shape[1] :].view(2, 2, 2, TOP)
    ids = ints[:, ALTERNATIVES].reshape(2, 2, TOP)
    for row in range(2):
        for side in range(2):
            for place, token in enumerate(ids[row, side].tolist()):
                for k, each in enumerate((column, other)):
                    value = told[row, k, side, place]
                    assert value.isnan() if token < 0 else value == each[row, token]
    assert (ids[:, 1] >= 0).sum() == 2 * (vocab - 4)
    assert plain.shape[1] == len(FLOATS) + 2 * TOP + 1


@pytest.mark.parametrize("formula", ["li2022", "obrien2023", "seed"])
@pytest.mark.parametrize("penalty", [1.0, 1.5])
def test_contrastive_tells_expert_amateur_and_score_of_each_alternative(
    open_engine: Callable[..., LocalEngine], formula: str, penalty: float
) -> None:
    engine = open_engine(model="demo/expert", amateur="demo/amateur")
    values = {"formula": formula, "repetition_penalty": penalty}
    seen = watch(engine, Request("import os\n", strategy="contrastive", values=values, max_length=6))
    assert seen.started.columns == ("expert", "amateur", "score")
    told = np.stack(seen.column("candidates"))
    assert told.shape == (6, 3, 2, TOP)
    # The columns are the numbers that the score is made of, so that a reader can add them up.
    expert, amateur, score = told[:, 0], told[:, 1], told[:, 2]
    made = {"li2022": expert - amateur, "obrien2023": 1.5 * expert - 0.5 * amateur, "seed": expert / amateur}
    inside = np.isfinite(score)
    np.testing.assert_allclose(score[inside], made[formula][inside], rtol=1e-3, atol=1e-4)
    if penalty == 1.0:  # without penalties the expert is the model itself, of obrien2023 its logits
        raw = np.stack(seen.column("top_logp"))
        offset = expert[:, 0, :1] - raw[:, :1] if formula == "obrien2023" else 0.0
        np.testing.assert_allclose(expert[:, 0] - offset, raw, atol=1e-4)
    # Only plausible tokens stand in the final distribution.
    final_ids, final = np.stack(seen.column("final_ids")), np.stack(seen.column("final_top_logp"))
    kept = final_ids >= 0
    assert (np.isfinite(told[:, 2, 1]) == kept).all()
    for step in range(6):
        scores = told[step, 2, 1][kept[step]]
        np.testing.assert_allclose(scores - scores[0], final[step][kept[step]] - final[step][0], atol=1e-4)
        place = final_ids[step].tolist().index(seen.ids[step])
        np.testing.assert_allclose(told[step, :, 1, place], seen.column("extras")[step], atol=1e-5)


def test_other_strategies_tell_nothing(engine: LocalEngine) -> None:
    seen = watch(engine, Request("the quick", strategy="beam", max_length=3))
    assert all(batch.candidates is None for batch in seen.all(TokenBatch))
