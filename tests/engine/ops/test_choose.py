"""Fused steps against the strategies' own: interpreted on the CPU, compiled where there is a GPU."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from edge_tui import decoders
from edge_tui.decoders.base import Decoder, Output, Params
from edge_tui.decoders.base import numbers as numbers_of
from edge_tui.decoders.core.edge_reference import fits
from edge_tui.decoders.core.random import Rng, key_of
from edge_tui.decoders.dola import Dola
from edge_tui.decoders.registry.sampling import Sampling
from edge_tui.decoders.top_p import TopP
from edge_tui.engine.ops.choose import fused_step
from edge_tui.engine.ops.choose_plan import Links, plan
from tests.decoders.driver import numbers
from tests.engine.ops.fused_pair import DEVICE, PENALTIES, Pair, random

triton = pytest.importorskip("triton")
choose_kernels = pytest.importorskip("edge_tui.engine.ops.triton.choose_kernels")
choose_search = pytest.importorskip("edge_tui.engine.ops.triton.choose_search")
choose_parts = pytest.importorskip("edge_tui.engine.ops.triton.choose_parts")
noise_kernels = pytest.importorskip("edge_tui.engine.ops.triton.noise")
tl = triton.language
CHAIN = "penalties+temperature+top_k+top_p"
MIXED = "penalties+temperature+xtc+min_p+temperature#2"
NAMES = ("greedy", "top_k", "top_p", "min_p", "typical", "auto", CHAIN, "xtc", "quadratic", MIXED)
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, about infinities
EACH = pytest.mark.parametrize("name", NAMES)


def some(*names: str) -> pytest.MarkDecorator:
    """A few strategies; the others in the long tests."""
    proof = pytest.mark.proof
    each = [name if name in names else pytest.param(name, marks=proof) for name in NAMES]
    return pytest.mark.parametrize("name", each)


@some("greedy", "typical", "auto", "xtc", MIXED)
def test_steps_agree(name: str) -> None:
    """Odd sizes, more programs than one, counts that grow, logits wider than the vocabulary."""
    values = {**PENALTIES, "do_sample": 1, "top_k": 9, "top_p": 0.8, "min_p": 0.02, "typical_p": 0.7}
    known = {param.name for param in decoders.find(name).params}
    pair = Pair.make(name, 2, 39, **{key: value for key, value in values.items() if key in known})
    for number in range(2):
        pair.agree(random(2, 45, number), number)


@pytest.mark.parametrize(
    ("name", "temperature"),
    [("top_k", 0.0), ("typical", 1.5), pytest.param("auto", 0.0, marks=pytest.mark.proof)],
)
def test_temperature_acts_where_the_order_says(name: str, temperature: float) -> None:
    orders = (0,) if name == "auto" else (0, 1)
    for order in orders:
        given = {"do_sample": 1, "typical_p": 0.3} if name == "auto" else {"order": order}
        pair = Pair.make(name, 1, 30, temperature=temperature, **given)
        pair.agree(random(1, 30, order))


@some("auto")
def test_four_rows_each_with_its_own_values(name: str) -> None:
    pair = Pair.make(name, 4, 30)
    for index, param in enumerate(pair.decoder.params):
        if param.name in ("top_k", "top_p", "min_p", "typical_p", "temperature"):
            spread = torch.linspace(0.1, 1.0, 4, device=DEVICE)
            pair.params.table[index] = (spread * 20).round() if param.integer else spread
        if param.name == "do_sample":
            pair.params.table[index] = torch.tensor([1.0, 0.0] * 2, device=DEVICE)
    pair.agree(random(4, 30))


@pytest.mark.parametrize(
    ("name", "neutral"),
    [
        ("top_k", 0),
        pytest.param("top_p", 1, marks=pytest.mark.proof),
        ("min_p", 0),
        pytest.param("typical", 1, marks=pytest.mark.proof),
    ],
)
def test_neutral_values_keep_everything(name: str, neutral: float) -> None:
    param = decoders.find(name).params[0].name
    pair = Pair.make(name, 1, 35, **{param: neutral})
    z = random(1, 35, scale=30.0)
    z[0, 0, 7] = -math.inf
    _, found, _ = pair.step(z)
    assert torch.equal(found.final > -math.inf, z[:, 0].to(DEVICE) > -math.inf)
    pair.agree(z, 1)


def test_more_than_there_is_keeps_everything() -> None:
    Pair.make("top_k", 1, 20, top_k=1000).agree(random(1, 20))


@some("greedy", "top_k")
def test_ties_go_to_the_first_and_stay_together(name: str) -> None:
    given = {"do_sample": 1, "top_k": 3} if name == "auto" else {}
    pair = Pair.make(name, 1, 40, **given)
    pair.agree(torch.zeros(1, 1, 40))
    pair.agree(random(1, 40).round().to(torch.bfloat16), 1)


@some("typical")
def test_zeros_of_either_sign_are_equal(name: str) -> None:
    z = torch.zeros(1, 1, 40)
    z[..., ::3] = -0.0
    z[..., 5] = -1.0
    Pair.make(name, 1, 40).agree(z)
    Pair.make(name, 1, 40).agree(-z)


@some("greedy", "min_p")
def test_removed_candidates_stay_removed(name: str) -> None:
    z = random(2, 33, 5)
    z[:, :, ::2] = -math.inf
    z[1, 0, 1:] = -math.inf
    z[1, 0, 0] = -50.0
    Pair.make(name, 2, 33).agree(z)


@pytest.mark.parametrize("name", ["greedy", "top_p"])
def test_a_row_that_loses_everything_keeps_what_was_likeliest(name: str) -> None:
    z = torch.full((1, 1, 40), -3e38)
    z[0, 0, 33] = -2.9e38
    pair = Pair.make(name, 1, 40, presence_penalty=0.0, repetition_penalty=5.0)
    for state in pair.states:
        state["prompt_counts"].fill_(1)
    expected, found, _ = pair.step(z)
    assert found.chosen.tolist() == expected.chosen.tolist() == [33]
    assert (found.final > -math.inf).sum() == 1


@some("greedy", "top_p")
@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_broken_logits_give_some_token(name: str, broken: float) -> None:
    """What is wrong shows in the record; a token out of range would bring the next forward down."""
    z = random(1, 32)
    z[0, 0, 3] = broken
    for logits in (z, torch.full_like(z, broken)):
        pair = Pair.make(name, 1, 32)
        _, found, _ = pair.step(logits)
        assert 0 <= int(found.chosen) < 32


@settings(max_examples=10)
@given(
    name=st.sampled_from(["top_k", "top_p", "min_p", "typical"]),
    vocab=st.integers(2, 40),
    scale=st.sampled_from([1e-6, 0.1, 1.0, 10.0, 300.0]),
    grid=st.sampled_from([0.0, 0.5]),
    share=st.integers(1, 999).map(lambda i: i / 1000),
    seed=st.integers(0, 1000),
)
def test_what_stays_is_what_the_edge_says(
    name: str, vocab: int, scale: float, grid: float, share: float, seed: int
) -> None:
    """And the choice is the best of it under the run's own noise."""
    decoder = decoders.find(name)
    assert isinstance(decoder, Sampling)
    edge = decoder.filter.edge
    assert edge is not None
    value = max(1.0, round(share * vocab)) if edge.weight == "count" else share
    z = random(1, vocab, seed, scale)
    z = (z / grid).round() * grid if grid else z
    pair = Pair.make(name, 1, vocab, **{edge.param: value})
    _, found, rng = pair.step(z, seed=seed)
    final = found.final.cpu()
    kept = final > -math.inf
    assert fits(kept, z[:, 0], edge, value)
    assert torch.equal(final[kept], z[:, 0][kept])
    noisy = found.final + rng.gumbel(torch.arange(vocab, device=DEVICE)[None])
    assert noisy[0, found.chosen] >= noisy.max() - 1e-5


@triton.jit
def _finish(scores, winner, logits, final, V, BLOCK: tl.constexpr, PARTS: tl.constexpr):
    ids = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    score = tl.load(scores + ids, mask=ids < V, other=float("nan"))
    alone = tl.full((), 0, tl.int1)
    choose_kernels.finish_choice(score, ids, winner, logits, final, None, V, 0, alone, BLOCK, PARTS)


@pytest.mark.parametrize("best", [math.nan, math.inf, -math.inf])
def test_scores_without_a_best_give_a_token_that_there_is(best: float) -> None:
    """Three programs fill three of four lanes; what lies behind them is no id."""
    chosen = torch.full((1,), -1, device=DEVICE)
    step = choose_parts.FusedStep(70, chosen, 32)
    scores, final = torch.full((70,), best, device=DEVICE), torch.zeros(1, 70, device=DEVICE)
    winner, logits = step.winner(), choose_parts.Logits(scores, 70)
    _finish[step.grid](scores, winner, logits, final, 70, BLOCK=step.block, **step.shape)
    assert step.shape["PARTS"] > step.blocks
    assert 0 <= int(chosen) < 70


@triton.jit
def _noise(out, key, step, COUNT: tl.constexpr):
    ids = tl.program_id(0) * COUNT + tl.arange(0, COUNT)
    noise = noise_kernels.gumbel(ids, tl.load(key), tl.load(step))
    tl.store(out + ids, noise)


@pytest.mark.parametrize("seed", [0, 2**63 - 1])
def test_noise_is_the_runs_own(seed: int) -> None:
    rng = numbers(1, seed, 12_345)
    out = torch.zeros(8 * 4096, device=DEVICE)
    _noise[(8,)](out, rng.key.to(DEVICE), rng.step.to(DEVICE), COUNT=4096)
    expected = rng.gumbel(torch.arange(len(out))[None])[0]
    assert torch.allclose(out.cpu(), expected, rtol=1e-6, atol=1e-6)
    assert expected.max() > 9  # the tail, where few bits decide


@triton.jit
def _bins(keys, stretches, parts, COUNT: tl.constexpr):
    spots = tl.arange(0, COUNT)
    key = tl.load(keys + spots)
    stretch = choose_search.stretch_of(key)
    tl.store(stretches + spots, stretch)
    tl.store(parts + spots, choose_search.part_of(key, stretch))


def test_stretches_and_their_parts_keep_the_order() -> None:
    edges = torch.tensor([0.0, 0.125, 1.0, 1.875, 2.0, 4.0, 14.0, 24.0, 1e-38, 3e38])
    around = edges.view(torch.int32).tolist()
    near = [bits + d for bits in around for d in (-1, 0, 1) if bits + d >= 0]
    some = torch.randint(0, 0x7F800001, (4096 - len(near),), generator=torch.Generator().manual_seed(1))
    usual = torch.rand(4096, generator=torch.Generator().manual_seed(2)) * 26
    patterns = torch.cat((torch.tensor(near), some)).int()
    keys = torch.cat((patterns.view(torch.float32), usual)).sort().values.to(DEVICE)
    stretches, parts = keys.int(), keys.int()
    _bins[(1,)](keys, stretches, parts, COUNT=len(keys))
    assert sorted(set(stretches.tolist())) == list(range(choose_search.STRETCHES))
    assert int(parts.min()) >= 0
    assert int(parts.max()) < choose_search.BINS
    places = stretches.long() * choose_search.BINS + parts
    assert (places[1:] >= places[:-1]).all()
    assert len(places[keys < 24].unique()) > 3000


class Wider(TopP):
    """Cuts in its own way, under a declaration that it has only inherited."""

    name = "wider"

    def apply(self, z: Tensor, *rest: Any) -> Tensor:
        return z


class Taught(TopP):
    name = "taught"

    def observe(self, *rest: Any) -> None: ...


class Recorded(TopP):
    name = "recorded"
    columns = ("nucleus",)


def between(decoder: Decoder) -> list[str]:
    """Names the links of a strategy that run between the kernels."""
    found = plan(decoder)
    assert found is not None
    parts = [part for part in found.parts if isinstance(part, Links)]
    return [link.name for part in parts for link in part.chain.links[part.first : part.last]]


def test_only_what_is_declared_is_a_cut() -> None:
    for name in ("top_p", CHAIN, "penalties+temperature", "penalties+top_k+temperature", "min_p+temperature"):
        assert between(decoders.find(name)) == []
    assert between(decoders.find("top_n_sigma")) == ["top_n_sigma"]
    assert between(decoders.find(MIXED)) == ["xtc"]
    assert between(decoders.find("penalties+temperature+typical+top_k")) == ["typical"]
    assert between(decoders.find("mirostat")) == ["mirostat"]
    assert between(decoders.find("dry")) == ["dry"]


def test_what_may_bar_the_only_candidate_holds_the_temperature_back() -> None:
    """At temperature 0 the kernels would decide before it, and no filter would be asked again."""
    assert between(decoders.find("temperature+bad_words+xtc")) == ["temperature", "bad_words", "xtc"]
    assert between(decoders.find("temperature+penalties+xtc")) == ["xtc"]
    assert between(decoders.find("bad_words+temperature+xtc")) == ["bad_words", "xtc"]


def test_what_the_kernels_do_not_know_is_not_fused() -> None:
    for decoder in (
        Sampling(Wider()),  # no file of ours: its first step is inspected
        Sampling(Taught()),
        Sampling(Recorded()),
        *map(decoders.find, ("beam", "contrastive", "greedy:top_k", "speculative")),
    ):
        assert plan(decoder) is None
    here = torch.zeros(1, dtype=torch.int64)
    assert fused_step(decoders.find("greedy"), 50, here, here) is None


@pytest.mark.parametrize("name", ["dola", "cfg", pytest.param("dexperts", marks=pytest.mark.proof)])
def test_a_strategy_that_makes_one_distribution_of_several_runs_between_the_kernels(name: str) -> None:
    pair = Pair.make(name, 3, 39, **PENALTIES)
    row = [each.name for each in numbers_of(pair.decoder.params)].index("temperature")
    pair.params.table[row] = torch.tensor([0.0, 1.0, 0.4], device=DEVICE)
    for number in range(3):
        pair.agree(random(3, 45, number), number)


class Further(Dola):
    """Takes the argmax, which the kernels would not."""

    __module__ = Dola.__module__  # as if it were a file of ours

    def choose(self, final: Tensor, p: Params, rng: Rng) -> Tensor:
        return final.argmax(-1)


def test_a_strategy_that_does_more_than_combine_is_not_fused() -> None:
    assert plan(decoders.find("dola")) is not None
    for decoder in (Further(), decoders.find("contrastive_search")):
        assert plan(decoder) is None


@pytest.mark.parametrize("order", ["transformers", "llama.cpp"])
def test_a_filter_between_the_kernels_sees_what_the_temperature_leaves(order: str) -> None:
    """At temperature 0 one candidate, whose rivals XTC cannot drop, or all of them."""
    z = torch.tensor([[[2.0, 1.9, 1.8, 0.0, -3.0] + [-9.0] * 27]]).repeat(3, 1, 1)
    pair = Pair.make("xtc", 3, 32, xtc_probability=1, xtc_threshold=0.2, order=order)
    row = [each.name for each in pair.decoder.params].index("temperature")
    pair.params.table[row] = torch.tensor([0.0, 1.0, 0.4], device=DEVICE)
    pair.agree(z)
    _, found, _ = pair.step(z, 1)
    assert int(found.chosen[0]) == (0 if order == "transformers" else 2)
    pair.agree(torch.full((3, 1, 32), -math.inf).index_fill(2, torch.tensor([7]), 1.0), 2)


GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU")
VOCAB = 151_936


@pytest.mark.gpu
@GPU
@EACH
def test_a_true_vocabulary_is_captured_and_agrees(name: str) -> None:
    """The same tokens as the strategy's own step, and the same run after run of a replayed graph."""
    given = {"do_sample": 1, "top_k": 50, "top_p": 0.9} if name == "auto" else {}
    warm = {} if name == "greedy" else {"temperature": 1.5}
    pair = Pair.make(name, 1, VOCAB, "cuda", **given, **warm, **PENALTIES)
    logits = random(1, VOCAB, 2).cuda()
    outs = {"model": Output(logits)}
    rng = Rng(
        torch.full((1,), key_of(7), device="cuda"),
        torch.zeros(1, dtype=torch.int64, device="cuda"),
    )
    pair.fused(outs, pair.states[1], pair.params, rng)
    counts = pair.states[0]["output_counts"]
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = pair.fused(outs, pair.states[1], pair.params, rng)
    runs = []
    for _ in range(3):
        pair.states[1]["output_counts"].copy_(counts)
        rng.step.zero_()
        tokens, finals = [], []
        for _ in range(8):
            graph.replay()
            tokens.append(captured.chosen.item())
            finals.append(captured.final.clone())
            rng.step += 1
        runs.append((tokens, finals))
    assert all(run[0] == runs[0][0] for run in runs)
    assert all(torch.equal(a, b) for run in runs for a, b in zip(run[1], runs[0][1], strict=True))
    rng.step.zero_()
    expected = []
    for final in runs[0][1]:
        step = pair.decoder.step(outs, pair.states[0], pair.params, rng)
        expected.append(step.chosen.item())
        # Sums in another order may move the edge of a set by a candidate or two.
        assert int(((step.final > -math.inf) != (final > -math.inf)).sum()) <= 4
        rng.step += 1
    assert runs[0][0] == expected


@pytest.mark.gpu
@GPU
@pytest.mark.parametrize("name", ["top_k", "top_p", "min_p", "typical"])
@pytest.mark.parametrize(("scale", "value"), [(8.0, 0.05), (3.0, 0.5), (2.0, 0.9), (0.6, 0.6), (0.05, 0.99)])
def test_a_nucleus_of_any_size_is_found(name: str, scale: float, value: float) -> None:
    """From one token to most of the vocabulary, in float32 and with bfloat16's many ties."""
    decoder = decoders.find(name)
    assert isinstance(decoder, Sampling)
    edge = decoder.filter.edge
    assert edge is not None
    value = round(1000 * value) if edge.weight == "count" else value
    for rows, dtype in ((1, torch.float32), (3, torch.bfloat16)):
        pair = Pair.make(name, rows, VOCAB, "cuda", **{edge.param: value})
        z = random(rows, VOCAB, 4, scale).cuda().to(dtype)
        _, found, _ = pair.step(z)
        kept = found.final > -math.inf
        print(name, scale, value, dtype, kept.sum(-1).tolist())
        assert fits(kept, z[:, 0].float(), edge, value)
