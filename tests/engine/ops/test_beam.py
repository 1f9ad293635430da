"""Beam search's kernels against the strategy's own step."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from edge_tui import decoders
from edge_tui.decoders.base import Env, Output, Params
from edge_tui.engine.ops.choose import fused_step
from tests.decoders.driver import numbers, param_values, table

beam_triton = pytest.importorskip("edge_tui.engine.ops.triton.beam")
launch = pytest.importorskip("edge_tui.engine.ops.triton.launch")
DEVICE = "cpu" if launch.INTERPRETED else "cuda"
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, about infinities


def draws(scale: float = 2.0) -> Callable[[Tensor], Tensor]:
    """Random logits, the same for the same generator."""
    generator = torch.Generator().manual_seed(3)
    return lambda shape: torch.randn(*shape, generator=generator) * scale


def agree(
    vocab: int,
    steps: int,
    ends: list[int],
    device: str = DEVICE,
    scale: float = 2.0,
    loud: list[int] | None = None,
    **values: object,
) -> list[list[bool]]:
    """Steps of both, from equal states; returns what finished."""
    decoder = decoders.find("beam")
    resolved = param_values(decoder, **values)
    rows = decoder.rows(resolved)
    prompt = torch.tensor([[1, 2, 3]], device=device).expand(rows, -1)
    env = Env(
        rows, vocab, device, prompt, torch.tensor(ends, device=device).long(), resolved, steps, prefix=1
    )
    states = decoder.init(env), decoder.init(env)
    params = table(decoder, rows, **values)
    params = Params(list(params), params.table.to(device))
    fused = beam_triton.FusedBeam(vocab, *torch.zeros(2, rows, dtype=torch.int64, device=device))
    draw, finished = draws(scale), []
    for step in range(steps):
        logits = draw((rows, 1, vocab + 3))
        logits[:, :, ends] += 4.0
        logits[:, :, loud or []] += 9.0
        outs = {"model": Output(logits.to(device)[..., :vocab])}
        expected = decoder.step(outs, states[0], params, numbers(rows))
        found = fused(outs, states[1], params, numbers(rows))
        fused.finish()
        assert torch.equal(fused.raw, outs["model"].logits[:, -1])
        assert found.chosen.tolist() == expected.chosen.tolist(), step
        assert found.parent.tolist() == expected.parent.tolist()
        assert found.done.tolist() == expected.done.tolist()
        assert torch.allclose(found.final, expected.final, rtol=1e-5, atol=1e-5)
        for name, column in expected.extras.items():
            assert torch.allclose(found.extras[name], column, rtol=1e-5, atol=1e-5, equal_nan=True), name
        for name, tensor in states[0].items():
            close = {"rtol": 1e-5, "atol": 1e-5} if tensor.is_floating_point() else {"rtol": 0, "atol": 0}
            assert torch.allclose(states[1][name].float(), tensor.float(), **close), name
        finished.append((~expected.extras["finished"].isnan()).tolist())
    return finished


@pytest.mark.parametrize(
    ("early_stopping", "length_penalty"),
    [("off", 1.5), ("on", 0.0), ("never", -1.0), pytest.param("never", 1.5, marks=pytest.mark.proof)],
)
def test_steps_agree_to_the_end(early_stopping: str, length_penalty: float) -> None:
    values = {"early_stopping": early_stopping, "length_penalty": length_penalty}
    finished = agree(40, 3, [4, 9], num_beams=3, **values)
    assert any(map(any, finished))


@pytest.mark.parametrize("beams", [1, pytest.param(2, marks=pytest.mark.proof), 5])
def test_any_number_of_beams(beams: int) -> None:
    agree(45, 1, [7], num_beams=beams)
    agree(20, 1, [], num_beams=beams)


def test_the_best_may_come_from_few_programs() -> None:
    """The best programs of all are of one group, 16 programs of 32 candidates apart."""
    agree(560, 1, [5], num_beams=4, loud=[3, 515])


def test_more_candidates_than_the_kernels_hold_are_left_to_the_strategy() -> None:
    agree(40, 2, list(range(8)), num_beams=16)


def test_penalties_act_on_log_probabilities() -> None:
    given = {"repetition_penalty": 1.5, "presence_penalty": 0.7, "frequency_penalty": 0.2}
    agree(40, 3, [0], num_beams=3, **given)


def test_a_row_that_is_sure_of_one_token_leaves_room_to_others() -> None:
    agree(64, 2, [5], num_beams=4, scale=60.0)


def test_broken_logits_give_some_token() -> None:
    decoder, rows, vocab = decoders.find("beam"), 3, 40
    resolved = param_values(decoder, num_beams=rows)
    prompt, none = torch.zeros(rows, 1, dtype=torch.int64), torch.zeros(0, dtype=torch.int64)
    for broken in (math.nan, math.inf):
        env = Env(rows, vocab, DEVICE, prompt.to(DEVICE), none.to(DEVICE), resolved, 5)
        params = table(decoder, rows, num_beams=rows)
        params = Params(list(params), params.table.to(DEVICE))
        fused = beam_triton.FusedBeam(vocab, *torch.zeros(2, rows, dtype=torch.int64, device=DEVICE))
        state = decoder.init(env)
        logits = torch.full((rows, 1, vocab), broken, device=DEVICE)
        found = fused({"model": Output(logits)}, state, params, numbers(rows))
        assert all(0 <= token < vocab for token in found.chosen.tolist())
        assert all(0 <= parent < rows for parent in found.parent.tolist())


GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU")


@pytest.mark.gpu
@GPU
@pytest.mark.parametrize(("vocab", "beams"), [(151_936, 4), (32_000, 16)])
def test_a_true_vocabulary(vocab: int, beams: int) -> None:
    agree(vocab, 6, [11, 12], "cuda", num_beams=beams)
    agree(vocab, 3, [11], "cuda", num_beams=beams, repetition_penalty=1.3, scale=0.3)


@pytest.mark.gpu
@GPU
def test_one_beam_is_left_to_its_reference() -> None:
    """It penalises logits, as greedy does; the kernels penalise log-probabilities."""
    decoder = decoders.find("beam")
    places = [torch.zeros(rows, dtype=torch.int64, device="cuda") for rows in (1, 2)]
    assert fused_step(decoder, 100, places[0], places[0]) is None
    assert fused_step(decoder, 100, places[1], places[1]) is not None
