"""Speculative decoding's kernels against the strategy's own proposals and checks."""

from __future__ import annotations

import math

import pytest
import torch

from edge_tui.decoders.base import Env, Output, Params
from edge_tui.decoders.core.random import Rng
from edge_tui.decoders.speculative import Speculative
from tests.decoders.driver import numbers, param_values, table

speculate_triton = pytest.importorskip("edge_tui.engine.ops.triton.speculate")
launch = pytest.importorskip("edge_tui.engine.ops.triton.launch")
DEVICE = "cpu" if launch.INTERPRETED else "cuda"
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, about infinities


def agree(
    vocab: int,
    device: str = DEVICE,
    rows: int = 1,
    lookahead: int = 2,
    temperature: float = 1.0,
    likeness: float = 0.5,
    dtype: torch.dtype = torch.float32,
    steps: int = 4,
) -> list[int]:
    """Steps of both, the first without proposals; returns how many were taken."""
    decoder = Speculative()
    values = {"lookahead": lookahead, "temperature": temperature}
    resolved = param_values(decoder, **values)
    none = torch.zeros(0, dtype=torch.int64, device=device)
    prompt = torch.zeros(rows, 1, dtype=torch.int64, device=device)
    states = [decoder.init(Env(rows, vocab, device, prompt, none, resolved, 50)) for _ in range(2)]
    params = table(decoder, rows, **values)
    params = Params(list(params), params.table.to(device))
    chosen = torch.zeros(rows, dtype=torch.int64, device=device)
    fused = speculate_triton.FusedSpeculative(vocab, chosen, lookahead)
    generator, taken = torch.Generator().manual_seed(vocab), []
    for step in range(steps):
        host = numbers(rows, 11, 3 * step)
        rng = Rng(host.key.to(device), host.step.to(device))
        draft = torch.randn(rows, lookahead, vocab + 3, generator=generator).to(dtype) * 3
        other = torch.randn(rows, lookahead + 1, vocab, generator=generator).to(dtype) * 3
        target = other if step == 0 else other * (1 - likeness)
        if step:
            target[:, :-1] += draft[..., :vocab] * likeness
        for at in range(lookahead if step else 0):
            out = Output(draft[:, at : at + 1, :vocab].to(device))
            expected = decoder.propose(out, states[0], params, rng, at)
            assert fused.propose(out, states[1], params, rng, at).tolist() == expected.tolist()
        outs = {"model": Output((target if step else target[:, :1]).to(device))}
        expected = decoder.step(outs, states[0], params, rng)
        found = fused.step(outs, states[1], params, rng)
        assert torch.allclose(found.final, expected.final, rtol=1e-6, atol=1e-6)
        for name in ("accepted", "chosen", "tokens"):
            assert getattr(found, name).tolist() == getattr(expected, name).tolist(), name
        for name, column in expected.extras.items():
            assert torch.equal(found.extras[name], column), name
        taken += found.accepted.tolist() if step else []
    return taken


@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_proposals_and_checks_agree(temperature: float) -> None:
    taken = agree(40, temperature=temperature, likeness=0.8)
    taken += agree(30, lookahead=1, temperature=temperature, steps=3)
    assert 0 in taken
    assert max(taken) > 0


def test_rows_are_checked_apart() -> None:
    agree(33, rows=2, likeness=0.9, steps=3)


def test_equal_models_take_everything() -> None:
    assert set(agree(30, lookahead=3, likeness=1.0, steps=2)) == {3}


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_broken_logits_give_some_token(broken: float) -> None:
    decoder, vocab = Speculative(), 40
    resolved = param_values(decoder, lookahead=1)
    prompt, none = torch.zeros(1, 1, dtype=torch.int64), torch.zeros(0, dtype=torch.int64)
    state = decoder.init(Env(1, vocab, DEVICE, prompt.to(DEVICE), none.to(DEVICE), resolved, 5))
    params = table(decoder, 1, lookahead=1)
    params = Params(list(params), params.table.to(DEVICE))
    host = numbers(1)
    rng = Rng(host.key.to(DEVICE), host.step.to(DEVICE))
    fused = speculate_triton.FusedSpeculative(vocab, torch.zeros_like(prompt[0], device=DEVICE), 1)
    out = Output(torch.full((1, 2, vocab), broken, device=DEVICE))
    assert 0 <= int(fused.propose(out, state, params, rng, 0)) < vocab
    found = fused.step({"model": out}, state, params, rng)
    assert 0 <= int(found.chosen) < vocab
    assert 0 <= int(found.accepted) <= 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU")
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_true_vocabulary(temperature: float) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        agree(151_936, "cuda", lookahead=4, temperature=temperature, likeness=0.9, dtype=dtype, steps=8)
