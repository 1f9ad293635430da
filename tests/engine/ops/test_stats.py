from __future__ import annotations

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_tui.engine.events import TOP
from edge_tui.engine.ops.stats import FLOATS, INTS, record, summarise, top


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), vocab=st.integers(2, 60), removed=st.floats(0, 0.9))
def test_summary_agrees_with_double_precision(seed: int, vocab: int, removed: float) -> None:
    gen = torch.Generator().manual_seed(seed)
    z = torch.randn(3, vocab, generator=gen) * 5
    z[torch.rand(3, vocab, generator=gen) < removed] = -torch.inf
    z[:, 0] = 0.5
    chosen = torch.zeros(3, dtype=torch.int64)
    logp, rank, entropy, ids, values = summarise(z, chosen)
    reference = z.double().log_softmax(-1)
    probabilities = reference.exp()
    expected = -(probabilities * reference.masked_fill(probabilities == 0, 0)).sum(-1)
    assert torch.allclose(logp.double(), reference[:, 0], atol=1e-5)
    assert torch.allclose(entropy.double(), expected, atol=1e-4)
    assert torch.equal(rank, (z > z[:, :1]).sum(-1))
    assert ids.shape == values.shape == (3, TOP)
    kept = (z > -torch.inf).sum(-1)
    for row in range(3):
        shown = min(int(kept[row]), TOP)
        assert (ids[row, :shown] >= 0).all()
        assert (ids[row, shown:] == -1).all()
        assert torch.allclose(
            values[row, :shown], reference[row].float().sort(descending=True)[0][:shown], atol=1e-5
        )


def test_broken_logits_show_in_the_entropy() -> None:
    for broken in (math.nan, math.inf):
        z = torch.zeros(1, 30)
        z[0, 7] = broken
        assert not torch.isfinite(summarise(z, torch.tensor([0]))[2]).any()


def test_small_vocabularies_are_padded() -> None:
    values, ids = top(torch.tensor([[0.1, 0.9]]).log())
    assert ids[0].tolist() == [1, 0] + [-1] * (TOP - 2)
    assert values[0, 2:].eq(-torch.inf).all()


def test_record_layout() -> None:
    z, final = torch.randn(2, 40), torch.randn(2, 40)
    chosen, parent = torch.tensor([3, 4]), torch.tensor([1, 0])
    done, version = torch.tensor([True, False]), torch.tensor([2.0, 2.0])
    extra = torch.tensor([7.0, 8.0])
    ints, floats = record(z, final, chosen, parent, done, version, [extra])
    assert ints.shape == (2, len(INTS) + 2 * TOP)
    assert ints.dtype == torch.int32
    assert ints[:, INTS.index("id")].tolist() == [3, 4]
    assert ints[:, INTS.index("parent")].tolist() == [1, 0]
    assert ints[:, INTS.index("done")].tolist() == [1, 0]
    assert ints[:, INTS.index("version")].tolist() == [2, 2]
    expected = final.log_softmax(-1).gather(-1, chosen[:, None])[:, 0]
    assert torch.allclose(floats[:, FLOATS.index("final_logp")], expected)
    assert floats[:, -1].tolist() == [7.0, 8.0]
