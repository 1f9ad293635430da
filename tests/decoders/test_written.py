"""Stages that look at the text so far, and those that learn: against loops, transformers and closed forms."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from transformers import MinNewTokensLengthLogitsProcessor, NoRepeatNGramLogitsProcessor

from edge_tui import decoders
from edge_tui.decoders.adaptive_p import AdaptiveP
from edge_tui.decoders.base import Chain, Env, Params, Rng, Token, repeat_lengths, texts
from edge_tui.decoders.dry import LONGEST, WINDOW, Dry
from edge_tui.decoders.min_new_tokens import MinNewTokens
from edge_tui.decoders.mirostat import Mirostat
from edge_tui.decoders.no_repeat_ngram import NoRepeatNgram
from edge_tui.decoders.watermark import Watermark, is_green, words, z_score
from tests.decoders.driver import numbers, run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from edge_tui.decoders.base import Filter

VOCAB = 48
NEUTRAL: list[tuple[type[Filter], tuple[float, ...]]] = [
    (Dry, (0.0, 1.75, 2)),
    (NoRepeatNgram, (0,)),
    (MinNewTokens, (0,)),
    (Watermark, (0.25, 0.0)),
    (AdaptiveP, (-1.0, 0.9)),
]


def table(stage: Filter, rows: int, values: Sequence[float]) -> Params:
    names = [param.name for param in stage.params][: len(values)]
    return Params(names, torch.tensor([[float(value)] * rows for value in values]))


def apply(
    stage: Filter,
    z: Tensor,
    ids: Sequence[Sequence[int]],
    *values: float,
    rng: Rng | None = None,
    eos: Sequence[int] = (),
) -> Tensor:
    """Applies a stage to logits `[R, V]` after rows of ids, of any lengths."""
    longest = max(map(len, ids))
    prompt = torch.tensor([[*row, *[-1] * (longest - len(row))] for row in ids])
    defaults = {param.name: param.default for param in texts(stage.params)}
    env = Env(len(z), z.shape[1], "cpu", prompt, torch.tensor(eos, dtype=torch.int64), {}, 9, texts=defaults)
    chain = Chain((stage,))
    return chain.apply(z, table(stage, len(z), values), chain.init(env), rng or numbers(len(z)))


def noise(rows: int = 1, vocab: int = VOCAB, seed: int = 0) -> Tensor:
    return torch.randn(rows, vocab, generator=torch.Generator().manual_seed(seed)) * 3


rows_of_ids = st.lists(
    st.lists(st.sampled_from([1, 2, 3, 34, 42]), min_size=1, max_size=40), min_size=1, max_size=3
)


def dry_loop(ids: Sequence[int], m: float, b: float, least: int) -> dict[int, float]:
    """The definition: what each token costs. 34 and 42 are the bytes of a quote and an asterisk."""
    costs: dict[int, float] = {}
    for place in range(1, len(ids)):
        n = 0
        while n < min(place, LONGEST) and ids[place - 1 - n] == ids[len(ids) - 1 - n] not in (34, 42):
            n += 1
        if n >= least and ids[place] not in (34, 42):
            costs[ids[place]] = max(costs.get(ids[place], 0.0), m * b ** (n - least))
    return costs


@settings(max_examples=80)
@given(rows_of_ids, st.floats(0.1, 2.0), st.floats(1.0, 2.5), st.integers(1, 5))
@example([[1, 34, 2, 3, 1, 34, 2]], 1.0, 2.0, 2)  # a repetition that a breaker ends
def test_dry_is_the_loop_over_all_pairs(ids: list[list[int]], m: float, b: float, least: int) -> None:
    z = noise(len(ids))
    expected = z.clone().double()
    for row, each in enumerate(ids):
        for token, cost in dry_loop(each, m, b, least).items():
            expected[row, token] -= cost
    found = apply(Dry(), z, ids, m, b, least)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)


def test_dry_looks_at_its_window_alone_and_counts_no_further_than_the_longest() -> None:
    z, gap = noise(), [4 + n % 30 for n in range(WINDOW)]
    assert torch.equal(apply(Dry(), z, [[1, 2, 3, *gap, 1, 2]], 1.0, 2.0, 2), z)
    near = apply(Dry(), z, [[1, 2, 3, *gap[: WINDOW - 60], 1, 2]], 1.0, 2.0, 2)
    assert (z - near)[0, 3].item() == pytest.approx(1.0)
    same = apply(Dry(), z, [[1] * 200], 1.0, 1.1, 2)
    assert (z - same)[0, 1].item() == pytest.approx(1.1 ** (LONGEST - 2), rel=1e-4)


@settings(max_examples=60)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=30), st.integers(1, 6))
def test_no_repeated_ngram_is_what_transformers_bars(ids: list[int], n: int) -> None:
    z = noise(vocab=6)
    expected = NoRepeatNGramLogitsProcessor(n)(torch.tensor([ids]), z)
    assert torch.equal(apply(NoRepeatNgram(), z, [ids], n), expected)


def test_a_run_repeats_no_trigram() -> None:
    rigid = noise(vocab=8)
    done = run(
        decoders.find("no_repeat_ngram"), {"model": lambda ids: rigid.expand(len(ids), -1)}, [1], 60, 8
    )
    text = [1, *done.answer]
    assert len({tuple(text[at : at + 3]) for at in range(len(text) - 2)}) == len(text) - 2


@pytest.mark.parametrize("step", [0, 3, 4, 9])
def test_no_answer_ends_before_its_fewest_tokens(step: int) -> None:
    z, ends = noise(2), [3, 7, 500]
    found = apply(MinNewTokens(), z, [[1], [2]], 4, rng=numbers(2, step=step), eos=ends)
    expected = MinNewTokensLengthLogitsProcessor(0, 4, ends)(torch.zeros(2, step, dtype=torch.int64), z)
    assert torch.equal(found, expected)
    assert bool((found[:, 3] == -math.inf).all()) == (step < 4)


def test_green_tokens_are_the_share_and_two_contexts_agree_by_chance() -> None:
    """Each of 400 contexts has a set of its own: their sizes, and the overlaps of pairs, are binomial."""
    hashes, share = words(torch.arange(4000)), 0.25
    green = is_green(hashes[:400, None], hashes, share).double()
    deviations = (green.sum(1) - 4000 * share) / math.sqrt(4000 * share * (1 - share))
    assert abs(deviations.mean()) < 5 / 20
    assert deviations.std() == pytest.approx(1.0, abs=0.2)
    both = (green @ green.T)[~torch.eye(400, dtype=torch.bool)]
    chance = share**2
    overlaps = (both - 4000 * chance) / math.sqrt(4000 * chance * (1 - chance))
    assert abs(overlaps.mean()) < 0.1
    assert overlaps.std() == pytest.approx(1.0, abs=0.1)


def test_z_is_standard_normal_without_a_watermark_and_large_with_it() -> None:
    generator = torch.Generator().manual_seed(4)
    plain = [z_score(torch.randint(0, 5000, (200,), generator=generator).tolist()) for _ in range(300)]
    assert abs(sum(plain)) / 300 < 5 / math.sqrt(300)
    assert torch.tensor(plain).std().item() == pytest.approx(1.0, abs=0.2)
    flat = {"model": lambda ids: torch.zeros(len(ids), 5000)}
    text = run(decoders.find("watermark"), flat, [1], 120, 5000).answer
    # Of flat logits each green token has weight e², so a token is green with probability 0.71.
    green = 0.25 * math.exp(2) / (0.25 * math.exp(2) + 0.75)
    expected = (green - 0.25) * math.sqrt(119) / math.sqrt(0.25 * 0.75)
    assert z_score(text) == pytest.approx(expected, abs=5 * math.sqrt(green * (1 - green) / (0.25 * 0.75)))
    assert z_score(text[::-1]) < 4  # green is a matter of order
    assert z_score([3]) == 0.0


def token(final: float, raw: float = -1.0) -> Token:
    return Token(torch.tensor([5]), torch.tensor([raw]), torch.tensor([final]), torch.tensor([0]))


def test_mirostat_moves_its_bound_by_the_error_and_keeps_the_likeliest() -> None:
    """μ begins at 2τ = 4 bits; a token of 3 bits moves it to 4 − 0.5 · (3 − 2) = 3.5."""
    stage, z = Mirostat(), torch.tensor([[0.5, 0.3, 0.1, 0.07, 0.03]]).log()  # 1, 1.7, 3.3, 3.8, 5.1 bits
    p, state = table(stage, 1, (2.0, 0.5)), {"drift": torch.zeros(1, 1), "mu": torch.zeros(1, 1)}
    assert (stage.apply(z, p, state, numbers()) > -math.inf).tolist() == [[True, True, True, True, False]]
    stage.observe(state, p, token(-3 * math.log(2)))
    assert state["drift"].item() == pytest.approx(-0.5)
    assert state["mu"].item() == pytest.approx(2 * 2.0 - 0.5)
    assert (stage.apply(z, p, state, numbers()) > -math.inf).tolist() == [[True, True, True, False, False]]
    state["drift"].fill_(-100.0)
    assert (stage.apply(z, p, state, numbers()) > -math.inf).tolist() == [[True, False, False, False, False]]


def test_a_token_forced_from_outside_moves_mirostats_bound_by_the_models_surprise() -> None:
    stage, state = Mirostat(), {"drift": torch.zeros(1, 1), "mu": torch.zeros(1, 1)}
    stage.observe(state, table(stage, 1, (2.0, 0.5)), token(-math.inf, raw=-10 * math.log(2)))
    assert state["drift"].item() == pytest.approx(-4.0)


def test_mirostat_keeps_to_its_target() -> None:
    logits = -torch.arange(1.0, 400.0).log()[None]
    decoder = decoders.find("mirostat")
    models = {"model": lambda ids: logits.expand(len(ids), -1)}
    for tau in (2.0, 3.5):
        done = run(decoder, models, [1], 300, 399, mirostat_tau=tau, mirostat_eta=0.2)
        kept = [
            final.log_softmax(-1)[0, chosen]
            for final, (chosen,) in zip(done.finals, done.tokens, strict=True)
        ]
        bits = -torch.stack(kept[50:]).mean().item() / math.log(2)
        assert bits == pytest.approx(tau, abs=0.15)


def test_adaptive_p_peaks_at_a_target_that_makes_up_for_the_tokens_before() -> None:
    stage, prob = AdaptiveP(), torch.tensor([[0.6, 0.3, 0.08, 0.02]])
    p, state = table(stage, 1, (0.3, 0.5)), {"excess": torch.zeros(1, 1)}
    found = stage.apply(prob.log(), p, state, numbers())
    assert found[0].tolist() == pytest.approx([0.0, 5.0, 1.897, 0.494], abs=2e-3)  # d = 1, 0, .733, .933
    stage.observe(state, p, token(0.0, raw=math.log(0.6)))  # average 0.45, so the next target is 0.15
    assert state["excess"].item() == pytest.approx(0.15)
    assert stage.apply(prob.log(), p, state, numbers())[0].argmax() == 2


@pytest.mark.parametrize(("kind", "values"), NEUTRAL)
def test_neutral_values_keep_every_bit(kind: type[Filter], values: tuple[float, ...]) -> None:
    z = noise(2)
    z[0, 7] = -math.inf
    assert torch.equal(apply(kind(), z, [[1, 2, 1, 2, 1], [3]], *values, eos=[5]), z)


def test_lengths_of_repetitions_by_hand() -> None:
    rows = {
        (1, 2, 3, 1, 2, 9, 3, 1, 2): [0, 0, 2, 0, 0, 3, 0, 0, 0],
        (-1, -1, -1, 4, 4, 4, 4, 4, 4): [0, 0, 0, 0, 1, 2, 3, 3, 3],
        (0, 0, 0, 3, -1, 5, 9, -1, 5): [0, 0, 0, 0, 0, 0, 1, 0, 0],
    }
    assert repeat_lengths(torch.tensor(list(rows)), 3).tolist() == list(rows.values())
