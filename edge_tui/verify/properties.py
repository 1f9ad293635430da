"""Checks what holds of every strategy: shapes, finite numbers, equal results of equal steps, rows apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

from numpy.random import RandomState

from edge_tui.decoders.base import Decoder, Output, numbers
from edge_tui.decoders.core import step_checks
from edge_tui.decoders.core.attributes import Attributes
from edge_tui.decoders.core.checks import Inspection
from edge_tui.decoders.core.errors import StrategyError
from edge_tui.verify import driver
from edge_tui.verify.distributions import values
from edge_tui.verify.finding import Finding
from edge_tui.verify.steps import random_rows

if TYPE_CHECKING:
    import torch

_ROWS = 3
_POSITIONS_VOCAB = 30
_REMOVED = 0.3
"""Share of the tokens that a third of the cases removes; another third removes twice as many."""


def check_properties(decoder: Decoder, cases: int, seed: int = 0) -> Finding:
    """Does steps on random logits and checks each as a run's first step is checked."""
    finding = Finding(decoder.name, "properties")
    for number in range(seed, seed + cases):
        finding.cases += 1
        try:
            sentence = (
                _proposing_step(decoder, number) if decoder.kind == "propose" else _step(decoder, number)
            )
        except Exception as error:  # a user's file may raise anything
            sentence = str(error) if isinstance(error, StrategyError) else f"{type(error).__name__}: {error}"
        if sentence:
            finding.faults.append(f"case {number}: {sentence}")
    return finding


def _step(decoder: Decoder, number: int) -> str:
    """Does one step twice, and one row alone; returns what is wrong, or ""."""
    import torch

    count = _ROWS
    rows = random_rows(decoder, number, count)
    if decoder.kind == "search":  # all of its rows share one setting
        one = rows.values[0]
        count = decoder.rows(one)
        rows = random_rows(decoder, number, count)
        rows = driver.Rows(rows.streams, [one] * count, rows.prompt, rows.output, number)
    before = Attributes(decoder)
    with Inspection(decoder.step, {}).watch({}):  # which names the stage at fault
        first = driver.step(decoder, rows)
    second = driver.step(decoder, rows)
    before.check("step")
    raw = torch.from_numpy(next(iter(rows.streams.values())))
    step_checks.check_step(decoder, first, count, raw.shape[1], 0, "cpu")
    step_checks.check_numbers(decoder, first, count, raw)
    if not (torch.equal(first.final, second.final) and torch.equal(first.chosen, second.chosen)):
        return "the same step twice gives two results."
    if decoder.kind == "sample":
        last = driver.step(decoder, driver.one_row(rows, count - 1))
        if not torch.allclose(last.final, first.final[-1:], atol=1e-5) or last.chosen[0] != first.chosen[-1]:
            return "a row depends on the rows beside it."
    return ""


def _proposing_step(decoder: Decoder, number: int) -> str:
    """Proposes and checks once; returns what is wrong, or ""."""
    import torch

    random = RandomState(number)
    v = values(random, numbers(decoder.params))
    count = decoder.num_draft_tokens(v)
    generator = torch.Generator().manual_seed(number)

    def output(positions: int) -> torch.Tensor:
        z = torch.randn(1, positions, _POSITIONS_VOCAB, generator=generator) * 3
        removed = torch.rand(z.shape, generator=generator) < number % 3 * _REMOVED
        return z.masked_fill(removed & (z < z.amax(-1, keepdim=True)), -torch.inf)

    prompt = random.randint(0, _POSITIONS_VOCAB, (1, 4))
    state = driver.start(decoder, driver.environment(decoder, prompt, _POSITIONS_VOCAB, v))
    p, rng = driver.table([v], 1), driver.random_numbers(1, number)
    for at in range(count):
        out = Output(output(1)) if len(decoder.streams) > 1 else None
        proposed = decoder.propose(out, state, p, rng, at)
        step_checks.check_proposal(decoder, proposed, 1, "cpu")
    raw = output(count + 1)
    step = decoder.step({decoder.streams[0].name: Output(raw)}, state, p, rng)
    step_checks.check_step(decoder, step, 1, _POSITIONS_VOCAB, count + 1, "cpu")
    step_checks.check_numbers(decoder, step, 1, raw)
    assert step.tokens is not None
    assert step.accepted is not None
    taken = step.tokens[:, : int(step.accepted) + 1]
    if (raw[:, : taken.shape[1]].gather(-1, taken[..., None]) == -torch.inf).any():
        return "it takes a token that the main model has removed."
    return ""
