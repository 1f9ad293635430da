"""Fused steps of every strategy and of chains in any order: the decisions of the strategy's own step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from edge_tui import decoders
from edge_tui.decoders.base import Env, Filter, Link, Output, Param, Params, Rng, Stage, State
from edge_tui.decoders.base import numbers as numbers_of
from edge_tui.decoders.core.chain import is_idle
from edge_tui.decoders.core.random import key_of
from edge_tui.decoders.penalties import Penalties
from edge_tui.decoders.registry.chain_text import ChainStrategy, write_chain
from edge_tui.decoders.registry.orders import put_in_order
from edge_tui.decoders.registry.sampling import Sampling
from edge_tui.decoders.temperature import Temperature
from edge_tui.engine.ops import stats
from edge_tui.engine.ops.choose_plan import Pass, idle_links, plan
from tests.decoders.driver import begin, numbers, table
from tests.engine.ops.fused_pair import DEVICE, Pair, random

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, about infinities
FILTERS = {each.filter.name: each.filter for each in decoders.strategies() if isinstance(each, Sampling)}
STAGES = {**FILTERS, "penalties": Penalties(), "temperature": Temperature()}
SELECTS = [name for name, stage in STAGES.items() if stage.last]
TEXTS = {
    "logit_bias": ("#3=4", "#5=-100", "#7=-2.5"),
    "bad_words": ("\x03", "\x04\x05"),
    "dry_breakers": ("\x02",),
}
"""Of the driver's tokenizer, which has a token for each byte."""
NAMES = [each.name for each in decoders.strategies() if plan(each) is not None]


AROUND = ("cfg:dry+min_p", "top_k:xtc+min_p", "dola:no_repeat_ngram+eta", "auto:bad_words+quadratic")
HOT = torch.tensor([0.0, 1.0, 0.6])


def soon_or_later(name: str) -> Any:
    """Leaves strategies that are kernels alone to the long tests: `test_choose` has steps of theirs."""
    how = plan(decoders.find(name))
    return name if how is not None and how.parts else pytest.param(name, marks=pytest.mark.proof)


def value_of(param: Param, share: float) -> float:
    """Gives a value of a parameter: its neutral value, its default, or one between its ends."""
    if share < 0.25 and param.neutral is not None:
        return param.neutral
    if share < 0.5:
        return param.default
    top = min(param.high, 12.0 if param.integer else 3.0)
    value = param.low + (top - param.low) * (2 * share - 1)
    return param.parse(round(value) if param.integer else max(value, param.low + 1e-3))


def pair_of(name: str, shares: Sequence[float], vocab: int = 40) -> Pair:
    """Makes three rows, with a temperature each; links at their neutral values are left out."""
    decoder = decoders.find(name)
    own = numbers_of(decoder.params)
    values = {param.name: value_of(param, shares[i % len(shares)]) for i, param in enumerate(own)}
    idle = idle_links(decoder, values)
    pair = Pair.of(decoder, 3, vocab, DEVICE, TEXTS, idle, **values)
    for row, param in enumerate(own):
        links = (*decoder.before.links, *decoder.after.links)
        is_idle_here = any(n in idle and param in link.params for n, link in enumerate(links))
        if param.name.startswith("temperature") and not is_idle_here:
            pair.params.table[row] = HOT.to(DEVICE)
    return pair


@pytest.mark.parametrize("name", [soon_or_later(name) for name in (*NAMES, *AROUND)])
def test_every_strategy_agrees(name: str) -> None:
    pair = pair_of(name, (0.3, 0.7, 0.9))
    for number in range(1 + pair.decoder.learns):
        pair.agree(random(3, 43, 5 + number), number)


shares = st.lists(st.integers(0, 99).map(lambda i: i / 100), min_size=5, max_size=5)
chains = st.tuples(
    st.lists(st.sampled_from(sorted(STAGES.keys() - set(SELECTS))), min_size=1, max_size=6),
    st.sampled_from([[], *([name] for name in SELECTS)]),
).map(lambda names: write_chain(names[0] + names[1]))


@settings(max_examples=6)
@given(chains, shares, st.integers(0, 999))
def test_chains_agree(name: str, shares: list[float], seed: int) -> None:
    pair_of(name, shares).agree(random(3, 43, seed), seed % 3)


@pytest.mark.proof
@pytest.mark.timeout(900)
@settings(max_examples=200)
@given(chains, shares, st.integers(0, 999))
def test_more_chains_agree(name: str, shares: list[float], seed: int) -> None:
    pair_of(name, shares).agree(random(3, 43, seed), seed % 3)


def test_a_chain_of_neutral_stages_has_the_plan_of_a_plain_draw() -> None:
    """In the order of either program, and in others but for penalties behind the temperature."""
    stages = {
        name: stage
        for name, stage in STAGES.items()
        if stage.params
        and not stage.last
        and all(isinstance(param.neutral, int | float) for param in stage.params)
    }
    assert len(stages) == 17
    plain = plan(decoders.find("penalties+temperature"))
    assert plain is not None
    assert (plain.passes, plain.cuts, plain.late) == ((Pass(penalties=True, temperature=True),), (), None)
    orders = [put_in_order(list(stages), program, stages) for program in ("transformers", "llama.cpp")]
    orders.append(sorted(stages))
    for order in orders:
        decoder = decoders.find(write_chain(order))
        values = {param.name: float(param.neutral or 0) for param in numbers_of(decoder.params)}
        idle = idle_links(decoder, values)
        assert len(idle) == 15
        assert plan(decoder, idle) == plain
        assert plan(decoder) != plain
        values["xtc_probability"] = 0.5
        other = plan(decoder, idle_links(decoder, values))
        assert other is not None
        assert [part.chain.links[part.first].name for part in other.parts] == ["xtc"]


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_that_is_left_out_changes_no_bit(name: str) -> None:
    """Whatever the values of its other parameters are, and whatever it knows."""
    stage = STAGES[name]
    decoder = ChainStrategy((link := Link(stage),))
    z = random(2, 40, 7)[:, 0]
    z[0, ::3] = -math.inf
    prompt = torch.tensor([[3, 4, 5, 3, 4, 5, 3, 4], [7] * 8])
    for share in (0.55, 0.95):
        values = {
            param.name: value_of(param, share) if param.neutral is None else param.neutral
            for param in numbers_of(link.params)
        }
        if not is_idle(stage, link.params, lambda param, values=values: values[param.name] == param.neutral):
            assert all(param.neutral is None for param in numbers_of(link.params))
            return
        env = Env(2, 40, "cpu", prompt, torch.tensor([1]), values, 9, texts=TEXTS)
        # A chain's state has the names of a stage behind "before.0." and "before.0:".
        own = {key.partition(".0")[2][1:] or key: tensor for key, tensor in begin(decoder, env).items()}
        before = {key: tensor.clone() for key, tensor in own.items()}
        assert torch.equal(stage.apply(z, table(decoder, 2, **values), own, numbers(2).link(link.name)), z)
        assert all(torch.equal(before[key], tensor) for key, tensor in own.items())


@pytest.mark.parametrize("stage", STAGES.values(), ids=STAGES)
def test_a_stage_is_left_out_only_while_none_of_its_parameters_acts(stage: Stage) -> None:
    for param in numbers_of(stage.params):
        assert param.neutral is None or not is_idle(
            stage, stage.params, lambda each, acts=param: each != acts
        )


class Breaks(Filter):
    """Gives numbers that are none, in one place or everywhere."""

    __module__ = Sampling.__module__  # as if it were a file of ours
    name = title = summary = "breaks"
    params = (Param("broken", 0, 0, 2, "Which.", integer=True),)

    def apply(self, z: Tensor, p: Params, s: State, rng: Rng) -> Tensor:
        one = z.index_fill(1, torch.tensor([3], device=z.device), math.nan)
        kinds = one, z * math.nan, z + math.inf
        return kinds[int(p["broken"][0, 0])]


@pytest.mark.parametrize("cut", [False, True])
@pytest.mark.parametrize("kind", range(3))
def test_broken_logits_show_in_the_record_and_give_a_token_that_there_is(kind: int, cut: bool) -> None:
    """An id behind the vocabulary would end every later call of a GPU."""
    links = [*decoders.find("penalties+temperature").before.links, Link(Breaks())]
    links += decoders.find("min_p").before.links[2:3] if cut else []
    pair = Pair.of(ChainStrategy(tuple(links)), 2, 70, DEVICE, broken=kind)
    outs = {"model": Output(random(2, 70).to(DEVICE))}
    step = pair.fused(outs, pair.states[1], pair.params, numbers_on(2))
    pair.fused.finish()
    assert ((step.chosen >= 0) & (step.chosen < 70)).all()
    where = torch.arange(2, device=DEVICE)
    done = torch.zeros(2, dtype=torch.bool, device=DEVICE)
    _, floats = stats.record(pair.fused.raw, step.final, step.chosen, where, done, where.float(), [])
    assert floats[:, stats.FLOATS.index("final_logp")].isnan().all()
    assert floats[:, stats.FLOATS.index("entropy")].isfinite().all()


def numbers_on(rows: int) -> Rng:
    host = numbers(rows, 3)
    return Rng(host.key.to(DEVICE), host.step.to(DEVICE))


VOCAB = 151_936


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", [*NAMES, *AROUND])
def test_a_true_vocabulary_is_captured_and_agrees(name: str, dtype: torch.dtype) -> None:
    """Replayed steps take the tokens of the strategy's own, and learn what it learns."""
    pair = Pair.of(decoders.find(name), 1, VOCAB, "cuda", TEXTS)
    logits = random(1, VOCAB, 2).cuda().to(dtype)
    outs = pair.outs(logits)
    rng = Rng(torch.full((1,), key_of(7), device="cuda"), torch.zeros(1, dtype=torch.int64, device="cuda"))
    start = {key: tensor.clone() for key, tensor in pair.states[1].items()}

    def work() -> Any:
        step = pair.fused(outs, pair.states[1], pair.params, rng)
        pair.fused.finish()
        return step

    work()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = work()
    for key, tensor in start.items():
        pair.states[1][key].copy_(tensor)
    for number in range(8):
        rng.step.fill_(number)
        graph.replay()
        expected = pair.decoder.step(outs, pair.states[0], pair.params, rng)
        assert captured.chosen.item() == expected.chosen.item()
        # Sums in another order may move the edge of a set by a candidate or two; equal keys go together.
        differ = int(((captured.final > -math.inf) != (expected.final > -math.inf)).sum())
        assert differ <= (4 if dtype == torch.float32 else 2000)
        for key, tensor in pair.states[0].items():
            torch.testing.assert_close(pair.states[1][key], tensor, rtol=1e-4, atol=1e-4, msg=key)
