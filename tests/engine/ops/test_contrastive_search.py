"""Contrastive search's fused step against the strategy's own."""

from __future__ import annotations

import pytest
import torch

from edge_tui import decoders
from edge_tui.decoders.base import Env, Output, Params
from edge_tui.verify.driver import with_layers
from tests.decoders.driver import numbers, param_values, table

fused_triton = pytest.importorskip("edge_tui.engine.ops.triton.contrastive_search")
launch = pytest.importorskip("edge_tui.engine.ops.triton.launch")
DEVICE = "cpu" if launch.INTERPRETED else "cuda"


@pytest.mark.parametrize("rows", [1, 4])
def test_steps_agree(rows: int) -> None:
    """With penalties, whose counts follow the winner, and logits wider than the vocabulary."""
    vocab, decoder = 40, decoders.find("contrastive_search")
    values = {"num_candidates": rows, "repetition_penalty": 1.5, "frequency_penalty": 0.3}
    resolved = param_values(decoder, **values)
    prompt = torch.tensor([[1, 2, 3]], device=DEVICE).expand(rows, -1)
    env = Env(rows, vocab, DEVICE, prompt, torch.tensor([7], device=DEVICE), resolved, 9, prefix=1)
    states = decoder.init(env), decoder.init(env)
    params = table(decoder, rows, **values)
    params = Params(list(params), params.table.to(DEVICE))
    buffers = torch.zeros(2, rows, dtype=torch.int64, device=DEVICE)
    fused = fused_triton.FusedContrastiveSearch(vocab, *buffers)
    generator = torch.Generator().manual_seed(3)
    winners = set()
    for number in range(6):
        logits = torch.randn(rows, 1, vocab + 3, generator=generator).to(DEVICE) * 3
        outs = {"model": with_layers(decoder, resolved, Output(logits), number)}
        expected = decoder.step(outs, states[0], params, numbers(rows))
        found = fused(outs, states[1], params, numbers(rows))
        fused.finish()
        assert torch.equal(fused.raw, logits[:, 0, :vocab])
        for name in ("chosen", "parent", "done", "final"):
            assert torch.equal(getattr(found, name), getattr(expected, name)), (name, number)
        for name, column in expected.extras.items():
            assert torch.equal(found.extras[name].nan_to_num(9), column.nan_to_num(9)), name
        for name, tensor in states[0].items():
            assert torch.equal(states[1][name], tensor), name
        winners.add(int(expected.parent[0]))  # type: ignore[index]
    assert rows == 1 or len(winners) > 1
