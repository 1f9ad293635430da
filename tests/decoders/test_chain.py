"""Penalties, temperature and their order; what happens when nothing is left."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import LlamaForCausalLM, RepetitionPenaltyLogitsProcessor

from edge_tui import decoders
from edge_tui.decoders.base import Env, Filter, Needs, Output, Param, Params, Stage, Token
from edge_tui.decoders.core.chain import Chain, unless_neutral
from edge_tui.decoders.min_p import MinP
from edge_tui.decoders.penalties import penalties
from edge_tui.decoders.registry.sampling import Sampling
from edge_tui.decoders.temperature import Temperature, scale
from edge_tui.decoders.top_k import TopK
from edge_tui.decoders.top_p import TopP
from edge_tui.decoders.typical import Typical
from tests.decoders.conftest import VOCAB, logits_of
from tests.decoders.driver import numbers, param_values, run, table

if TYPE_CHECKING:
    from edge_tui.decoders.base import State
    from edge_tui.decoders.core.random import Rng


def start(chain: Chain, prompt: list[list[int]], vocab: int) -> State:
    ids = torch.tensor(prompt)
    return chain.init(Env(len(prompt), vocab, "cpu", ids, torch.tensor([]), {}, 9))


def observe(chain: Chain, state: State, chosen: list[int], z: Tensor) -> None:
    """Tells a chain the tokens taken, with their log-probabilities in `z`."""
    ids = torch.tensor(chosen)
    logps = z.log_softmax(-1).gather(-1, ids[:, None])[:, 0]
    chain.observe(state, params(chain, len(chosen)), Token(ids, logps, logps, torch.tensor([0])))


def params(chain: Chain, rows: int = 1, **values: float) -> Params:
    names = [p.name for p in chain.params]
    return Params(
        names, torch.tensor([values.get(p.name, p.default) for p in chain.params])[:, None].repeat(1, rows)
    )


@settings(max_examples=60)
@given(
    theta=st.floats(0.125, 4.0, width=32),
    prompt=st.lists(st.integers(0, 11), min_size=1, max_size=8),
    output=st.lists(st.integers(0, 11), max_size=8),
    seed=st.integers(0, 1000),
)
def test_repetition_is_transformers_own(
    theta: float, prompt: list[int], output: list[int], seed: int
) -> None:
    chain = Chain(penalties())
    z = torch.randn(1, 12, generator=torch.Generator().manual_seed(seed)) * 3
    z[0, 5] = -torch.inf
    state = start(chain, [prompt], 12)
    for token in output:
        observe(chain, state, [token], z)
    reference = RepetitionPenaltyLogitsProcessor(theta)(torch.tensor([prompt + output]), z)
    found = chain.apply(z, params(chain, repetition_penalty=theta), state, numbers())
    torch.testing.assert_close(found, reference)


def test_presence_and_frequency_count_the_output_alone() -> None:
    chain = Chain(penalties())
    state = start(chain, [[0, 0, 1, -1]], 4)
    z = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    for token in (1, 2, 2):
        observe(chain, state, [token], z)
    found = chain.apply(z, params(chain, presence_penalty=0.5, frequency_penalty=0.25), state, numbers())
    assert found.tolist() == [[1.0, 2.0 - 0.75, 3.0 - 1.0, 4.0]]


def test_a_kept_prefix_counts_as_output() -> None:
    chain = Chain(penalties())
    env = Env(1, 4, "cpu", torch.tensor([[0, 1, 2, 2]]), torch.tensor([]), {}, 9, prefix=2)
    z = torch.zeros(1, 4)
    state = chain.init(env)
    assert state["prompt_counts"].tolist() == [[1, 1, 0, 0]]
    found = chain.apply(z, params(chain, frequency_penalty=0.5), state, numbers())
    assert found.tolist() == [[0.0, 0.0, -1.0, 0.0]]


def test_neutral_penalties_and_temperature_keep_every_bit() -> None:
    """Stage by stage, because a chain on the CPU does not even run them."""
    chain = Chain((*penalties(), Temperature()))
    state = start(chain, [[3, 4]], 1000)
    z = torch.randn(1, 1000, generator=torch.Generator().manual_seed(0)) * 30
    z[0, 7] = -torch.inf
    observe(chain, state, [9], z)
    for stage in chain.stages:
        assert torch.equal(stage.apply(z, params(chain), state, numbers()), z)
    assert torch.equal(chain.apply(z, params(chain), state, numbers()), z)


class Shift(Stage):
    """Adds its parameter, or says that it ran."""

    params = (Param("shift", 0, -9, 9, "Moves logits.", neutral=0),)
    ran = 0

    def apply(self, z: Tensor, p: Params, s: State, rng: Rng) -> Tensor:
        self.ran += 1
        return z + p["shift"]


def test_a_stage_is_left_out_only_while_it_is_neutral_in_every_row() -> None:
    chain = Chain((stage := Shift(),))
    state, z = start(chain, [[0], [0]], 3), torch.zeros(2, 3)
    table = torch.zeros(1, 2)
    p = Params(["shift"], table)
    chain.apply(z, p, state, numbers(2))
    assert stage.ran == 0
    table[0, 1] = 2
    assert chain.apply(z, p, state, numbers(2)).tolist() == [[0.0] * 3, [2.0] * 3]
    assert stage.ran == 1


@pytest.mark.parametrize("filter", [TopK, TopP, MinP, Typical])
def test_neutral_filters_keep_every_bit(filter: type[Filter]) -> None:
    chain = Chain((stage := filter(),))
    z = torch.randn(2, 5000, generator=torch.Generator().manual_seed(0)) * 30
    z[0, 7] = -torch.inf
    neutral = {param.name: param.neutral for param in stage.params}
    assert torch.equal(
        stage.apply(z, params(chain, 2, **neutral), start(chain, [[0], [0]], 5000), numbers(2)), z
    )


class Steps(Stage):
    """Counts its steps, and adds something even where it says that it does nothing."""

    params = (
        Param("steps", 0, 0, 9, "Adds to logits.", neutral=0),
        Param("more", 1, 0, 9, "More.", neutral=1),
    )

    def init(self, env: Env) -> State:
        return {"n": torch.zeros(env.rows, 1)}

    def apply(self, z: Tensor, p: Params, s: State, rng: Rng) -> Tensor:
        s["n"] += 1
        return z + 1


def test_what_a_neutral_stage_remembers_goes_on_and_what_it_makes_is_left_out() -> None:
    chain = Chain((Steps(),))
    state, z = start(chain, [[0]], 3), torch.zeros(1, 3)
    assert torch.equal(chain.apply(z, params(chain), state, numbers()), z)
    assert state["0.n"].tolist() == [[1.0]]
    assert chain.apply(z, params(chain, steps=1), state, numbers()).tolist() == [[1.0] * 3]
    assert state["0.n"].tolist() == [[2.0]]


def test_rows_in_which_a_stage_is_neutral_stay_as_on_a_cpu() -> None:
    """A captured step cannot leave a stage out."""
    stage, z = Steps(), torch.zeros(4, 2)
    table = torch.tensor([[0.0, 0.0, 3.0, 3.0], [1.0, 2.0, 1.0, 2.0]])
    kept = unless_neutral(stage, Params(["steps", "more"], table), z, z + 1)
    assert kept[:, 0].tolist() == [0.0, 1.0, 1.0, 1.0]


def test_temperature_zero_keeps_one_token_even_among_ties() -> None:
    z = torch.tensor([[1.0, 3.0, 3.0, 0.0], [5.0, -1.0, 2.0, 5.0]])
    assert (scale(z, torch.zeros(2, 1)) > -torch.inf).tolist() == [
        [False, True, False, False],
        [True, False, False, False],
    ]
    mixed = scale(z, torch.tensor([[0.0], [0.5]]))
    assert (mixed[0] > -torch.inf).sum() == 1
    assert mixed[1].tolist() == [10.0, -2.0, 4.0, 10.0]


def test_temperature_zero_is_greedy(models: list[LlamaForCausalLM]) -> None:
    logits = {"model": logits_of(models[0])}
    greedy = run(decoders.find("greedy"), logits, [1, 2, 3], 10, VOCAB).answer
    for order in ("transformers", "llama.cpp"):
        assert (
            run(decoders.find("top_p"), logits, [1, 2, 3], 10, VOCAB, temperature=0, order=order).answer
            == greedy
        )


def test_order_decides_what_a_nucleus_holds() -> None:
    """At temperature 4 the nucleus is wide when measured after it, narrow when measured before."""
    z = torch.tensor([[4.0, 2.0, 1.0, 0.0]])
    decoder = decoders.find("top_p")
    env = Env(1, 4, "cpu", torch.tensor([[0]]), torch.tensor([]), param_values(decoder), 9)

    def final(order: str) -> Tensor:
        p = table(decoder, temperature=4, top_p=0.8, order=order)
        return decoder.step({"model": Output(z[:, None])}, decoder.init(env), p, numbers()).final

    hot = z / 4  # probabilities .39 .24 .19 .15
    assert (
        final("transformers").tolist()
        == torch.where(torch.tensor([[True, True, True, False]]), hot, -torch.inf).tolist()
    )
    # Cold: .82 .11 .04 .02, so the first alone holds 0.8.
    assert (
        final("llama.cpp").tolist()
        == torch.where(torch.tensor([[True, False, False, False]]), hot, -torch.inf).tolist()
    )


class Nothing(Filter):
    name, title, summary = "nothing", "nothing", "Removes every candidate."

    def apply(self, z: Tensor, p: Params, s: State, rng: Rng) -> Tensor:
        return torch.full_like(z, -torch.inf)


def test_a_row_without_candidates_keeps_its_best() -> None:
    decoder = Sampling(Nothing())
    z = torch.tensor([[0.0, 3.0, 1.0], [9.0, 0.0, 0.0]])
    env = Env(2, 3, "cpu", torch.tensor([[0], [0]]), torch.tensor([]), param_values(decoder), 9)
    step = decoder.step({"model": Output(z[:, None])}, decoder.init(env), table(decoder, 2), numbers(2))
    assert step.chosen.tolist() == [1, 0]
    assert (step.final > -torch.inf).tolist() == [[False, True, False], [True, False, False]]


class Tally(Stage):
    """Remembers what it was told."""

    params = (Param("tally", 0, 0, 1, "Nothing."),)
    needs = Needs(counts=True)

    def init(self, env: Env) -> State:
        return {"sum": torch.zeros(env.rows)}

    def apply(self, z: Tensor, p: Params, s: State, rng: Rng) -> Tensor:
        assert s.keys() == {"sum", "prompt_counts", "output_counts"}
        return z

    def observe(self, s: State, p: Params, token: Token) -> None:
        s["sum"] += token.id + token.final


def test_stages_keep_states_apart_and_rows_can_be_permuted() -> None:
    chain = Chain((Tally(), Tally()))
    state = start(chain, [[0], [1], [2]], 4)
    addresses = {key: tensor.data_ptr() for key, tensor in state.items()}
    z = torch.zeros(3, 4)
    chain.apply(z, params(chain, 3), state, numbers(3))
    observe(chain, state, [1, 2, 3], z)
    expected = torch.tensor([1.0, 2.0, 3.0]) + torch.tensor(0.25).log()
    for key in ("0.sum", "1.sum"):
        torch.testing.assert_close(state[key], expected)
    chain.reorder(state, torch.tensor([2, 2, 0]))
    torch.testing.assert_close(state["0.sum"], expected[[2, 2, 0]])
    assert state["prompt_counts"].argmax(-1).tolist() == [2, 2, 0]
    assert state["output_counts"].argmax(-1).tolist() == [3, 3, 1]
    assert {key: tensor.data_ptr() for key, tensor in state.items()} == addresses


def test_two_meanings_of_one_parameter_are_refused() -> None:
    class Other(Tally):
        params = (Param("tally", 1, 0, 1, "Nothing."),)

    with pytest.raises(ValueError, match="tally"):
        Chain((Tally(), Other()))
