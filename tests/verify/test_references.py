"""References notice strategies that are wrong by little."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from edge_tui import decoders
from edge_tui.decoders import min_p, speculative, top_k, top_p, typical
from edge_tui.decoders.base import Filter, Params, Rng, State
from edge_tui.decoders.registry.sampling import Sampling
from edge_tui.verify.chi_squared import chi_squared
from edge_tui.verify.draws import count_draws
from edge_tui.verify.generated import compare_with_all
from edge_tui.verify.outcome import Comparison, Context, Outcome, outcome
from edge_tui.verify.proposals import count_proposals
from edge_tui.verify.references.basics import argmax
from edge_tui.verify.references.chains import compose
from edge_tui.verify.references.kinds import SearchReference, StepReference
from edge_tui.verify.references.proposals import PROPOSALS
from edge_tui.verify.references.searches import SEARCHES
from edge_tui.verify.references.whole_steps import STEPS
from edge_tui.verify.steps import compare_steps


def changed(filter: type[Filter], apply: Callable[..., torch.Tensor]) -> Sampling:
    """A filter whose `apply` gets the original one first."""

    class Changed(filter):  # type: ignore[valid-type, misc]
        name, title, summary = filter.name, filter.title, filter.summary

        def apply(self, z: torch.Tensor, p: Params, s: State, rng: Rng) -> torch.Tensor:
            return apply(super().apply, z, p, s, rng)

    return Sampling(Changed())


def drop_last(original: Callable[..., torch.Tensor], z: torch.Tensor, *rest: object) -> torch.Tensor:
    """Removes the least likely of those kept, where there are several."""
    out = original(z, *rest)
    kept = out > -torch.inf
    least = out.masked_fill(~kept, torch.inf).argmin(-1, keepdim=True)
    return out.scatter(-1, least, -torch.inf).where(kept.sum(-1, keepdim=True) > 1, out)


def flatten(original: Callable[..., torch.Tensor], z: torch.Tensor, *rest: object) -> torch.Tensor:
    return original(z, *rest) * 0.999


@pytest.mark.parametrize("filter", [top_k.TopK, top_p.TopP, min_p.MinP, typical.Typical])
@pytest.mark.parametrize("wrong", [drop_last, flatten])
def test_a_filter_that_is_wrong_by_little_differs(
    filter: type[Filter], wrong: Callable[..., torch.Tensor]
) -> None:
    decoder = changed(filter, wrong)
    by_loop, by_peer = compare_steps(decoder, STEPS[filter.name], 40)
    assert by_loop.faults
    assert by_peer.faults


@pytest.mark.parametrize("name", ["greedy", "auto", "contrastive"])
def test_a_step_of_another_strategy_differs(name: str) -> None:
    reference = STEPS[name]

    def shifted(streams: object, v: object, context: object) -> object:
        found = reference.step(streams, v, context)  # type: ignore[arg-type]
        return [replace(each, logits=np.roll(each.logits, 1)) for each in found]

    wrong = replace(reference, step=shifted)  # type: ignore[arg-type]
    assert compare_steps(decoders.find(name), wrong, 20)[0].faults


def test_draws_from_another_distribution_exceed_the_limit() -> None:
    decoder = changed(min_p.MinP, flatten)
    assert count_draws(decoder, STEPS["min_p"], 30_000).faults == []  # type: ignore[union-attr]
    hot = changed(min_p.MinP, lambda original, z, *rest: original(z, *rest) * 0.95)
    assert count_draws(hot, STEPS["min_p"], 30_000).faults  # type: ignore[union-attr]


def test_proposals_that_are_accepted_too_often_exceed_the_limit() -> None:
    class Credulous(speculative.Speculative):
        def step(self, outs, s, p, rng):  # type: ignore[no-untyped-def]
            s["q"].mul_(0.8)
            return super().step(outs, s, p, rng)

    assert count_proposals(Credulous(), PROPOSALS["speculative"], 5_000).faults


def test_a_search_that_drops_the_best_differs() -> None:
    narrow = replace(SEARCHES["beam"], exhaustive=lambda vocab, length: {"num_beams": 1.0})
    assert isinstance(narrow, SearchReference)
    assert compare_with_all(decoders.find("beam"), narrow, 12).faults


def test_a_token_in_doubt_is_a_tie_and_not_a_fault() -> None:
    z = np.array([1.0, 0.0, -1.0])
    comparison = Comparison()
    expected = outcome(z, z > -0.5, np.array([False, True, False]))
    comparison.add(np.array([1.0, -np.inf, -np.inf]), [expected], "a")
    assert (comparison.cases, comparison.ties, comparison.faults) == (1, 1, [])
    comparison.add(np.array([1.0, 0.0, -1.0]), [expected], "b")
    assert (comparison.cases, comparison.ties, len(comparison.faults)) == (2, 1, 1)
    comparison.add(np.array([6.0, 5.0, -np.inf]), [expected], "c")  # up to one summand
    assert len(comparison.faults) == 1
    comparison.add(np.array([1.0, np.nan, -np.inf]), [expected], "d")
    assert len(comparison.faults) == 2


def only(*tokens: int) -> np.ndarray:
    """Logits of three tokens, −inf but for some."""
    return np.array([0.0 if token in tokens else -np.inf for token in range(3)])


@pytest.mark.parametrize(
    ("expected", "either"),
    [
        pytest.param(argmax(np.array([1.0, 1.0 - 1e-7, 0.0])), {0, 1}, id="close"),
        pytest.param(argmax(np.array([1.0 - 1e-7, 1.0, 0.0])), {0, 1}, id="close, the other way round"),
        pytest.param(argmax(np.array([1.0, 1.0 - 1e-3, 0.0])), {0}, id="apart"),
        pytest.param(argmax(np.array([0.0, 1.0, 1.0])), {1}, id="equal: the first"),
        pytest.param(
            argmax(np.array([0.0, 1.0, 1.0]), (np.array([0.0, 1.0, 2.0]), np.array([0.0, 1.0, 0.0]))),
            {1, 2},
            id="equal sums of other numbers",
        ),
        pytest.param(
            argmax(np.array([1.0, 2.0, 0.0]), doubt=np.array([False, True, False])), {0, 1}, id="at a cut"
        ),
        pytest.param(argmax(np.array([2.0, 1.0, 0.0]), error=0.6), {0, 1}, id="wrong by more"),
    ],
)
def test_exactly_one_of_the_tokens_that_rounding_may_put_first_stays(
    expected: Outcome, either: set[int]
) -> None:
    for tokens in [(), (0,), (1,), (2,), (0, 1), (1, 2), (0, 1, 2)]:
        comparison = Comparison()
        comparison.add(only(*tokens), [expected], "a")
        assert (comparison.faults == []) == (len(tokens) == 1 and set(tokens) <= either), tokens


def test_scores_that_tie_but_for_rounding_are_no_fault_of_contrastive() -> None:
    """At a strength of 1 each token that the amateur removed has the score of its best."""
    assert compare_steps(decoders.find("contrastive"), STEPS["contrastive"], 4, 969)[0].faults == []


def test_only_a_library_may_break_ties_by_the_order_of_a_sort() -> None:
    z = np.array([1.0, 0.0, 0.0])
    expected = outcome(z, z > -np.inf, equal=z == 0)
    found = np.array([1.0, 0.0, -np.inf])
    own, library = Comparison(), Comparison()
    own.add(found, [expected], "own")
    library.add(found, [expected], "library", sorts=True)
    assert own.faults
    assert (library.ties, library.faults) == (1, [])


def test_a_token_in_doubt_goes_both_ways_into_the_next_stage() -> None:
    """The second token lies at the edge of top-p; typical then keeps it, or the first alone."""
    z = np.log([0.5, 0.25, 0.25])
    values = {"top_p": 0.5, "typical_p": 0.99}
    found = compose(("top_p", "typical"), z, values, Context())
    assert {int((each.logits > -np.inf).sum()) for each in found} >= {1, 3}


def test_chi_squared_by_hand() -> None:
    found, limit = chi_squared(np.array([60, 40]), np.array([0.5, 0.5]))
    assert found == pytest.approx(4.0)
    assert 19.5 < limit < 22  # the table has 19.5 for one in 100,000; the approximation is a little higher
    assert chi_squared(np.array([99, 1]), np.array([1.0, 0.0]))[0] == np.inf


def test_a_step_reference_without_draws_counts_none() -> None:
    assert isinstance(STEPS["greedy"], StepReference)
    assert count_draws(decoders.find("greedy"), STEPS["greedy"]) is None
