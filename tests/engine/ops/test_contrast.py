"""Contrastive decoding's kernels against the strategy's own step."""

from __future__ import annotations

import math

import pytest
import torch

from edge_tui import decoders
from edge_tui.decoders.base import Env, Output, Params
from edge_tui.decoders.core.random import Rng
from edge_tui.decoders.core.step_log import logged
from edge_tui.engine.decode.step_record import margin_of
from tests.decoders.driver import numbers, param_values, table

contrast_triton = pytest.importorskip("edge_tui.engine.ops.triton.contrast")
launch = pytest.importorskip("edge_tui.engine.ops.triton.launch")
DEVICE = "cpu" if launch.INTERPRETED else "cuda"
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, about infinities


def agree(rows: int, vocab: int, device: str, steps: int = 2, **values: object) -> None:
    """A few steps of both, from equal states."""
    decoder = decoders.find("contrastive")
    generator = torch.Generator().manual_seed(vocab)
    prompt = torch.randint(0, vocab, (rows, 4), generator=generator).to(device)
    env = Env(rows, vocab, device, prompt, torch.tensor([1], device=device), param_values(decoder), 9)
    states = decoder.init(env), decoder.init(env)
    params = table(decoder, rows, **values)
    params = Params(list(params), params.table.to(device))
    fused = contrast_triton.FusedContrast(vocab, torch.zeros(rows, dtype=torch.int64, device=device))
    for step in range(steps):
        expert = torch.randn(rows, 1, vocab, generator=generator) * 3
        amateur = expert.repeat(1, 1, 2)[..., : vocab + 5] + torch.randn(
            rows, 1, vocab + 5, generator=generator
        )
        expert[..., 5] = -math.inf
        outs = {"model": Output(expert.to(device)), "amateur": Output(amateur.to(device))}
        host = numbers(rows, 4, step)
        rng = Rng(host.key.to(device), host.step.to(device))
        with logged() as log:
            expected = decoder.step(outs, states[0], params, rng)
        margin = margin_of(decoder, expected, log)
        found = fused(outs, states[1], params, rng)
        assert torch.equal(fused.raw, outs["model"].logits[:, -1])
        assert found.chosen.tolist() == expected.chosen.tolist()
        assert torch.equal(found.final > -math.inf, expected.final > -math.inf)
        assert torch.allclose(found.final, expected.final, rtol=1e-4, atol=1e-4)
        assert margin is not None
        assert found.margin is not None
        torch.testing.assert_close(found.margin, margin, rtol=1e-4, atol=1e-4)
        assert found.extras.keys() == expected.extras.keys()
        for name, column in expected.extras.items():
            assert torch.allclose(found.extras[name], column, rtol=1e-4, atol=1e-4), name
        for name, column in expected.candidates.items():
            assert torch.allclose(found.candidates[name], column, rtol=1e-4, atol=1e-4), name
        for name, tensor in states[0].items():
            assert torch.equal(states[1][name], tensor), name


@pytest.mark.parametrize(
    ("formula", "temperature"),
    [
        ("li2022", 1.5),
        ("obrien2023", 0.0),
        ("seed", 1.5),
        pytest.param("li2022", 0.0, marks=pytest.mark.proof),
        pytest.param("obrien2023", 1.5, marks=pytest.mark.proof),
        pytest.param("seed", 0.0, marks=pytest.mark.proof),
    ],
)
def test_steps_agree(formula: str, temperature: float) -> None:
    agree(2, 40, DEVICE, formula=formula, sample="on", temperature=temperature)


def test_penalties_act_on_the_expert() -> None:
    given = {"repetition_penalty": 1.5, "presence_penalty": 0.7, "frequency_penalty": 0.2}
    agree(2, 34, DEVICE, 2, formula="obrien2023", alpha=0.01, beta=1.0, **given)


def test_fewer_candidates_than_the_seed_wants() -> None:
    agree(1, 7, DEVICE, 1, formula="seed")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU")
@pytest.mark.parametrize("formula", ["li2022", "obrien2023", "seed"])
@pytest.mark.parametrize("sample", ["off", "on"])
def test_a_true_vocabulary(formula: str, sample: str) -> None:
    agree(1, 151_936, "cuda", 4, formula=formula, sample=sample)
