"""Contrastive search's fused step against the strategy's own."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from edge_tui import decoders
from edge_tui.decoders.base import Env, Output, Params
from tests.decoders.driver import numbers, param_values, table

fused_triton = pytest.importorskip("edge_tui.engine.ops.triton.contrastive_search")
launch = pytest.importorskip("edge_tui.engine.ops.triton.launch")
DEVICE = "cpu" if launch.INTERPRETED else "cuda"
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, about infinities


def agree(rows: int, vocab: int, width: int, capacity: int, steps: int) -> None:
    """Compares steps with penalties, whose counts follow the winner, and logits wider than the vocabulary."""
    decoder = decoders.find("contrastive_search")
    values = {"num_candidates": rows, "repetition_penalty": 1.5, "frequency_penalty": 0.3}
    resolved = param_values(decoder, **values)
    prompt = torch.tensor([[1, 2, 3]], device=DEVICE).expand(rows, -1)
    ends = torch.arange(0, vocab, 2, device=DEVICE)[:150]
    env = Env(rows, vocab, DEVICE, prompt, ends, resolved, 9, prefix=1)
    states = decoder.init(env), decoder.init(env)
    params = table(decoder, rows, **values)
    params = Params(list(params), params.table.to(DEVICE))
    buffers = torch.zeros(2, rows, dtype=torch.int64, device=DEVICE)
    fused = fused_triton.FusedContrastiveSearch(vocab, *buffers)
    generator = torch.Generator().manual_seed(3)
    winners, overs = set(), set()
    for number in range(steps):
        logits = torch.randn(rows, 1, vocab + 3, generator=generator) * 3
        if number == steps - 2:
            logits[:, :, ends.cpu()] += 9  # weighed in the last step, where the run is over
        logits[:, :, 4::9] = -torch.inf
        past = torch.randn(rows, capacity, width, generator=generator)
        hidden = torch.randn(rows, 1, 1, width, generator=generator)
        if number % 2:
            hidden[0] = 2 * past[0, 0]  # the likeliest says again what was said
        length = torch.full((rows,), 1 if number == 2 else capacity - 3 + number % 3)
        tensors = (each.to(DEVICE) for each in (logits, hidden, past, length))
        outs = {"model": Output(next(tensors), next(tensors), None, *tensors)}
        expected = decoder.step(outs, states[0], params, numbers(rows))
        found = fused(outs, states[1], params, numbers(rows))
        fused.finish()
        assert torch.equal(fused.raw, outs["model"].logits[:, 0, :vocab])
        for name in ("chosen", "parent", "done", "final"):
            assert torch.equal(getattr(found, name), getattr(expected, name)), (name, number)
        for name, column in expected.extras.items():
            torch.testing.assert_close(found.extras[name], column, equal_nan=True, rtol=1e-5, atol=2e-6)
        for name, tensor in states[0].items():
            torch.testing.assert_close(states[1][name], tensor, rtol=1e-5, atol=2e-6)
        winners.add(int(expected.parent[0]))  # type: ignore[index]
        overs.add(bool(expected.done[0]))  # type: ignore[index]
    assert rows == 1 or len(winners) > 1
    assert len(overs) == 2


@pytest.mark.parametrize(("rows", "vocab", "width", "capacity"), [(1, 40, 6, 9), (4, 300, 150, 12)])
def test_steps_agree(rows: int, vocab: int, width: int, capacity: int) -> None:
    """With one position's states in a block, and with several; the past is empty once."""
    agree(rows, vocab, width, capacity, 4)


def test_more_candidates_than_tokens() -> None:
    agree(5, 3, 6, 9, 4)


def test_a_similarity_is_that_of_double_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """States in half precision, which float32 holds exactly, by few programs for many positions."""
    monkeypatch.setattr(fused_triton, "PROGRAMS", 2)
    generator = torch.Generator().manual_seed(5)
    past = torch.randn(40, 130, generator=generator).to(torch.bfloat16)
    newest = torch.randn(2, 130, generator=generator).to(torch.bfloat16)
    units = [each.double() / each.double().norm(dim=-1, keepdim=True) for each in (newest, past)]
    expected = (units[0] @ units[1][:36].T).amax(-1)
    decoder = decoders.find("contrastive_search")
    resolved = param_values(decoder, num_candidates=2)
    prompt, none = torch.zeros(2, 1, dtype=torch.int64, device=DEVICE), torch.zeros(0, dtype=torch.int64)
    state = decoder.init(Env(2, 20, DEVICE, prompt, none.to(DEVICE), resolved, 9))
    state["proposed"].fill_(3)
    params = table(decoder, 2, num_candidates=2)
    params = Params(list(params), params.table.to(DEVICE))
    out = Output(torch.zeros(2, 1, 20, device=DEVICE), newest[:, None, None].to(DEVICE))
    length = torch.full((2,), 37, device=DEVICE)
    out = replace(out, past=past.expand(2, -1, -1).to(DEVICE), past_length=length)
    fused = fused_triton.FusedContrastiveSearch(20, *torch.zeros(2, 2, dtype=torch.int64, device=DEVICE))
    found = fused({"model": out}, state, params, numbers(2))
    torch.testing.assert_close(found.extras["similarity"].double().cpu(), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.gpu
@pytest.mark.parametrize("width", [896, 3584])
def test_steps_of_true_size_agree(width: int) -> None:
    agree(4, 151_936, width, 5_000, 5)
