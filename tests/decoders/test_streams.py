"""Steps that mix the logits of several streams: against transformers, closed forms and numbers by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import UnbatchedClassifierFreeGuidanceLogitsProcessor

from edge_tui import decoders
from edge_tui.decoders import base
from edge_tui.decoders.base import Env, Output, difference
from edge_tui.verify import driver
from tests.decoders.driver import begin, numbers, param_values, table

if TYPE_CHECKING:
    from torch import Tensor

NAMES = ("cfg", "cad", "dexperts")
WEIGHT = {"cfg": ("guidance_scale", 1.0), "cad": ("cad_alpha", 0.0), "dexperts": ("dexperts_alpha", 0.0)}


def early(name: str) -> list[str]:
    decoder = decoders.find(name)
    return driver.early_names(decoder, driver.defaults(decoder))


MIXING = [
    each.name
    for each in decoders.strategies()
    if each.kind == "sample" and (len(each.streams) > 1 or early(each.name))
]


def final(name: str, *logits: Tensor, **values: object) -> Tensor:
    """Computes the final logits `[R, V]` of one step from those of the streams, in their order."""
    decoder = decoders.find(name)
    rows, vocab = logits[0].shape
    prompt = torch.zeros(rows, 2, dtype=torch.int64)
    env = Env(rows, vocab, "cpu", prompt, prompt[0, :0], param_values(decoder), 9)
    outs = {each.name: Output(z[:, None]) for each, z in zip(decoder.streams, logits, strict=True)}
    return decoder.step(outs, begin(decoder, env), table(decoder, rows, **values), numbers(rows)).final


def noise(seed: int) -> Tensor:
    return torch.randn(2, 50, generator=torch.Generator().manual_seed(seed)) * 4


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.5, 7.0])
def test_guidance_is_that_of_transformers(gamma: float) -> None:
    z, other = noise(1), noise(2)

    class Model:
        def __call__(self, ids: Tensor, **options: Any) -> Any:
            return SimpleNamespace(logits=other[:, None], get=lambda name, default=None: default)

    processor = UnbatchedClassifierFreeGuidanceLogitsProcessor(gamma, Model(), use_cache=False)
    expected = processor(torch.zeros(2, 3, dtype=torch.int64), z)
    found = final("cfg", z, other, guidance_scale=gamma)
    torch.testing.assert_close(found.log_softmax(-1), expected.log_softmax(-1), rtol=1e-4, atol=1e-4)


def test_cad_by_hand() -> None:
    """(1 + α) · z − α · z_o, up to one summand."""
    z, other = torch.tensor([[1.0, 2.0, 0.0]]), torch.tensor([[3.0, 1.0, 0.0]])
    found = final("cad", z, other, cad_alpha=0.5)
    assert (found - found[:, 2:]).tolist() == [[0.0, 2.5, 0.0]]


def test_dexperts_by_hand() -> None:
    z, expert, amateur = (torch.tensor([row]) for row in ([1.0, 2.0, 0.0], [0.0, 1.0, 3.0], [1.0, 1.0, -1.0]))
    assert final("dexperts", z, expert, amateur, dexperts_alpha=2.0).tolist() == [[-1.0, 2.0, 8.0]]


@pytest.mark.parametrize("name", NAMES)
def test_a_neutral_weight_leaves_every_bit_and_what_is_removed_stays_removed(name: str) -> None:
    count = len(decoders.find(name).streams)
    z, *others = (noise(seed) for seed in range(count))
    z[:, 4] = -torch.inf
    weight, neutral = WEIGHT[name]
    assert torch.equal(final(name, z, *others, **{weight: neutral}), z)
    for number in (0.0, 0.3, 4.0):
        found = final(name, z, *others, **{weight: number})
        assert (found[:, 4] == -torch.inf).all()
        assert (found < torch.inf).all()


@pytest.mark.parametrize("name", NAMES)
def test_penalties_come_first_and_the_temperature_last(name: str) -> None:
    count = len(decoders.find(name).streams)
    streams = [noise(seed) for seed in range(count)]
    plain = final(name, *streams)
    assert torch.allclose(final(name, *streams, temperature=2.0), plain / 2)
    halved = streams[0].clone()
    halved[:, 0] = torch.minimum(halved[:, 0] / 2, halved[:, 0] * 2)  # the prompt is zeros
    penalised = final(name, *streams, repetition_penalty=2.0)
    assert torch.allclose(penalised, final(name, halved, *streams[1:]), atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_a_chain_around_cuts_the_result(name: str) -> None:
    count = len(decoders.find(name).streams)
    streams = [noise(seed) for seed in range(count)]
    prob = final(name, *streams).softmax(-1)
    left = final(f"{name}:min_p", *streams, min_p=0.2) > -torch.inf
    assert torch.equal(left, prob >= 0.2 * prob.amax(-1, keepdim=True))


def test_the_strategies_that_mix_logits_are_found() -> None:
    assert {*NAMES, "contrastive", "dola"} <= set(MIXING)


@pytest.mark.parametrize("name", MIXING)
@settings(max_examples=15)
@given(data=st.data())
def test_a_token_that_a_stream_removes_makes_no_nan_and_no_infinity(name: str, data: st.DataObject) -> None:
    decoder = decoders.find(name)
    random = np.random.RandomState(data.draw(st.integers(0, 99)))
    streams = {}
    for stream in [*(each.name for each in decoder.streams), *early(name)]:
        z = random.standard_normal((1, 6)).astype(np.float32) * 3
        removed = data.draw(st.lists(st.booleans(), min_size=6, max_size=6).filter(lambda row: not all(row)))
        z[0, removed] = -np.inf
        streams[stream] = z
    own = [param for param in base.numbers(decoder.own_params) if param.live]
    values = driver.defaults(decoder) | {
        param.name: data.draw(
            st.sampled_from(sorted({param.default, param.high, param.neutral or param.high}))
        )
        for param in own
    }
    ids = np.zeros((1, 1), dtype=np.int64)
    found = driver.step(decoder, driver.Rows(streams, [values], ids, ids[:, :0]))
    assert (found.final < torch.inf).all()  # of NaN it is false
    assert (found.final > -torch.inf).any()
    main = torch.from_numpy(streams[decoder.streams[0].name])
    assert (found.final[main == -torch.inf] == -torch.inf).all()


def test_a_removed_token_differs_as_the_best_do_whatever_is_added_to_a_stream() -> None:
    z, other = torch.tensor([[3.0, 1.0, 0.0, -torch.inf]]), torch.tensor([[1.0, 0.5, -torch.inf, 0.0]])
    assert difference(z, other).tolist() == [[2.0, 0.5, 2.0, 2.0]]
    assert difference(z, other + 4).tolist() == [[-2.0, -3.5, -2.0, -2.0]]
    assert difference(z, torch.full_like(z, -torch.inf)).tolist() == [[0.0] * 4]


@pytest.mark.parametrize("name", MIXING)
def test_a_token_that_the_other_stream_alone_removes_competes_as_the_best_do(name: str) -> None:
    """Of two tokens that the main stream likes best and alike, the second stream removes one."""
    decoder = decoders.find(name)
    streams = {
        each: torch.tensor([[5.0, 5.0, 0.0, 1.0]])
        for each in (*(s.name for s in decoder.streams), *early(name))
    }
    main = decoder.streams[0].name
    for each in streams.keys() - {main}:
        streams[each] = torch.tensor([[1.0, -torch.inf, 0.0, 0.5]])
    ids = np.zeros((1, 1), dtype=np.int64)
    arrays = {each: z.numpy() for each, z in streams.items()}
    found = driver.step(decoder, driver.Rows(arrays, [driver.defaults(decoder)], ids, ids[:, :0])).final[0]
    assert found.isfinite()[:2].all()
    assert found[0] == pytest.approx(found[1].item(), abs=1e-5)
