"""Compares what a record says of a choice with the definitions: margin, tokens left, removing links."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from edge_tui import decoders
from edge_tui.decoders import base
from edge_tui.decoders.base import Decoder, Env, Output, Params, Rng, State
from edge_tui.decoders.core.random import key_of
from edge_tui.engine.decode.step_record import StepBuffers, build_record, sample
from edge_tui.engine.ops.stats import ALTERNATIVES, FLOATS, INTS, STAGES, record
from edge_tui.engine.token_fields import KEPT, OWN, TOP, UNKNOWN
from edge_tui.verify.driver import with_layers
from tests.decoders.driver import begin, param_values

VOCAB = 700
TEXTS = {"bad_words": ("ab", "c"), "logit_bias": ("ab=5", "c=-1")}
STEPS = 3
CHAIN = "penalties+temperature+top_k+min_p+xtc+temperature#2+top_p"
SAMPLERS = [each for each in decoders.strategies() if each.kind == "sample"]
SEARCHES = [each for each in decoders.strategies() if each.kind == "search"]
EACH = pytest.mark.parametrize("decoder", SAMPLERS, ids=lambda decoder: decoder.name)


@dataclass
class Chosen:
    """Holds a step: what it read, the state before it, and its record."""

    decoder: Decoder
    outs: dict[str, Output]
    before: State
    params: Params
    rng: Rng
    final: Tensor
    chosen: Tensor
    ints: Tensor
    floats: Tensor

    @property
    def raw(self) -> Tensor:
        return self.outs[self.decoder.streams[0].name].logits[:, -1]

    @property
    def margin(self) -> Tensor:
        return self.floats[:, FLOATS.index("margin")].double()

    @property
    def stages(self) -> Tensor:
        return self.ints[:, STAGES].long()

    @property
    def ids(self) -> Tensor:
        return self.ints[:, ALTERNATIVES][:, :TOP].long()


def choose(decoder: Decoder, steps: int = STEPS, rows: int = 2, **given: object) -> list[Chosen]:
    """Records steps on random logits."""
    values = param_values(decoder, **given)
    rows = decoder.rows(values) if decoder.kind == "search" else rows
    generator = torch.Generator().manual_seed(1)
    prompt = torch.randint(0, VOCAB, (rows, 12), generator=generator)
    texts = {param.name: TEXTS.get(param.name, param.default) for param in base.texts(decoder.params)}
    env = Env(rows, VOCAB, "cpu", prompt, torch.tensor([5, 9]), values, 20, texts=texts)
    state = begin(decoder, env)
    block = torch.tensor([*values.values(), 0.0])[:, None].repeat(1, rows)
    params = Params(list(values), block[:-1])
    buffers = StepBuffers(
        block=block,
        key=torch.tensor([key_of(7 + row) for row in range(rows)]),
        rows=torch.arange(rows),
        step=torch.zeros(1, dtype=torch.int64),
        eos=env.eos,
        never=torch.zeros(rows, dtype=torch.bool),
        tokens=torch.zeros(rows, dtype=torch.int64),
        parent=torch.arange(rows),
    )
    done = []
    for _ in range(steps):
        outs = {
            stream.name: Output(
                torch.randn(1, 1, VOCAB, generator=generator) * 3  # rows are alike, and not the same
                + torch.randn(rows, 1, VOCAB, generator=generator)
            )
            for stream in decoder.streams
        }
        main = decoder.streams[0].name
        outs[main] = with_layers(decoder, values, outs[main])
        before = {name: tensor.clone() for name, tensor in state.items()}
        rng = Rng(buffers.key, buffers.step.clone())
        sampled = sample(decoder, decoder.step, outs, state, params, buffers)
        record = build_record(decoder, sampled, state, buffers)
        step = sampled.step
        done.append(Chosen(decoder, outs, before, params, rng, step.final, step.chosen, *record))
    return done


def luck(rng: Rng, vocab: int) -> Tensor:
    """Gumbel noise of every token in double precision."""
    bits = rng.bits(torch.arange(vocab).expand(len(rng.key), -1)).double()
    uniform = ((bits + 0.5) * 2.0**-32).clamp(max=1.0 - 2.0**-24)
    return -(-torch.log1p(-uniform)).log()


def lead(sums: Tensor) -> Tensor:
    best = sums.topk(2).values
    return best[:, 0] - best[:, 1]


def removed_by(step: Chosen) -> Tensor:
    """Finds the link that removed each token, by one link after the other: int64 `[R, V]`."""
    decoder, z = step.decoder, step.raw
    found = torch.full(z.shape, KEPT)

    def follow(chain: base.Chain, z: Tensor, first: int) -> Tensor:
        given = z
        for i in range(len(chain.links)):
            z = chain.apply_links(z, step.params, step.before, step.rng, i, i + 1)
            found[(z == -math.inf) & (found == KEPT)] = first + i
        empty = (z == -math.inf).all(-1, keepdim=True)
        return torch.where(empty, given.where(given == given.amax(-1, keepdim=True), -math.inf), z)

    z = follow(decoder.before, z, 0)
    main = decoder.streams[0].name
    outs = {**step.outs, main: replace(step.outs[main], logits=z[:, None])}
    after = decoder.logits(outs, step.before, step.params)
    found[(after == -math.inf) & (found == KEPT)] = OWN
    follow(decoder.after, after, len(decoder.before.links))
    found[(step.final == -math.inf) & (found == KEPT)] = OWN
    return found.masked_fill(step.final > -math.inf, KEPT)


@EACH
def test_the_margin_is_the_best_sum_less_the_second(decoder: Decoder) -> None:
    for step in choose(decoder):
        if decoder.takes_argmax or decoder.name == "contrastive" or decoder.name == "auto":
            continue  # no luck decides there by default
        expected = lead(step.final.double() + luck(step.rng, VOCAB))
        torch.testing.assert_close(step.margin, expected, atol=1e-4, rtol=0)
        assert step.chosen.tolist() == (step.final.double() + luck(step.rng, VOCAB)).argmax(-1).tolist()


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("greedy", {}),
        ("auto", {"do_sample": 0}),
        ("contrastive", {}),
        ("top_k", {"temperature": 0.0, "top_k": 0}),
        ("top_p", {"temperature": 0.0, "order": 1, "top_p": 1.0}),
    ],
)
def test_without_luck_the_margin_is_that_of_the_logits(name: str, given: dict[str, float]) -> None:
    for step in choose(decoders.find(name), **given):
        logits = step.final if name == "contrastive" else step.raw
        torch.testing.assert_close(step.margin, lead(logits.double()), atol=1e-5, rtol=0)


def test_a_cut_before_temperature_0_takes_the_second_away() -> None:
    values = {"temperature": 0.0, "order": 1, "top_k": 1}
    assert all(step.margin.isposinf().all() for step in choose(decoders.find("top_k"), **values))


@EACH
def test_all_tokens_left_are_counted(decoder: Decoder) -> None:
    for step in choose(decoder):
        counts = step.ints[:, INTS.index("candidate_count")]
        assert counts.tolist() == (step.final > -math.inf).sum(-1).tolist()


@EACH
def test_each_alternative_names_the_link_that_removed_it_first(decoder: Decoder) -> None:
    if decoder.name == "contrastive":
        return  # decides in one piece; below
    for step in choose(decoder):
        assert step.stages.tolist() == removed_by(step).gather(-1, step.ids).tolist()


def test_links_of_a_typed_chain_are_told_apart() -> None:
    decoder = decoders.find(CHAIN)
    given = {"top_k": 9, "min_p": 0.05, "top_p": 0.6, "xtc_probability": 1.0, "xtc_threshold": 0.05}
    steps = choose(decoder, 8, **given)
    for step in steps:
        assert step.stages.tolist() == removed_by(step).gather(-1, step.ids).tolist()
    seen = {number for step in steps for number in step.stages.flatten().tolist()}
    assert seen >= {KEPT, 2, 3, 4}


@pytest.mark.parametrize(
    ("name", "given", "number"),
    [
        ("greedy", {}, OWN),
        ("auto", {"do_sample": 0, "top_k": 3, "temperature": 0.5}, OWN),
        ("auto", {"do_sample": 1, "temperature": 0.0, "top_k": 3}, 1),
        ("top_k", {"temperature": 0.0, "top_k": 3}, 1),
        ("contrastive", {"alpha": 1.0}, OWN),
    ],
)
def test_what_removes_all_but_one_is_named(name: str, given: dict[str, float], number: int) -> None:
    for step in choose(decoders.find(name), **given):
        taken = step.ids == step.chosen[:, None]
        assert (step.stages[taken] == KEPT).all()
        assert (step.stages[~taken] == number).all()


def test_a_chain_around_contrastive_removes_after_its_own_cut() -> None:
    steps = choose(decoders.find("contrastive:top_k"), top_k=2, alpha=0.2)
    for step in steps:
        own = step.raw < step.raw.amax(-1, keepdim=True) + math.log(0.2)
        expected = torch.where(step.final > -math.inf, KEPT, torch.where(own, OWN, 1))
        assert step.stages.tolist() == expected.gather(-1, step.ids).tolist()
    assert {number for step in steps for number in step.stages.flatten().tolist()} == {KEPT, OWN, 1}


@pytest.mark.parametrize("decoder", SEARCHES, ids=lambda decoder: decoder.name)
def test_searches_have_no_margin_and_keep_the_rows_they_continue(decoder: Decoder) -> None:
    for step in choose(decoders.find(f"{decoder.name}:top_k"), top_k=12):
        parent = step.ints[:, INTS.index("parent")].long()
        assert step.margin.isnan().all()
        assert step.ids.tolist() == step.raw[parent].topk(TOP).indices.tolist()
        left = step.final.gather(-1, step.ids) > -math.inf
        assert torch.equal(step.stages == KEPT, left)
        assert (step.stages[~left] == len(decoder.before.links) + len(decoder.after.links)).all()


def test_places_without_a_token_are_unknown() -> None:
    z = torch.tensor([[1.0, 2.0, 3.0]])
    ints, _ = record(z, z, *(torch.zeros(1, dtype=torch.int64),) * 3, torch.zeros(1), [])
    assert ints[0, STAGES].tolist() == [KEPT] * 3 + [UNKNOWN] * (TOP - 3)
