"""Barred texts and biased tokens: what they do, and that transformers does the same."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import NoBadWordsLogitsProcessor, SequenceBiasLogitsProcessor

from edge_tui import decoders
from edge_tui.decoders.bad_words import BadWords
from edge_tui.decoders.base import LONGEST, ByteTokenizer, Chain, Env, Output, ParamError, SequenceBias, Token
from edge_tui.decoders.logit_bias import LogitBias
from tests.decoders.driver import numbers, table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from edge_tui.decoders.base import Sequences, Stage, Text

V = 5
NO_PARAMS = table(decoders.find("greedy"))


class Fixed(SequenceBias):
    """Takes its sequences as they are."""

    name = title = summary = "fixed"

    def __init__(self, found: Sequences) -> None:
        self.found = found

    def sequences(self, env: Env) -> Sequences:
        return self.found


def env_of(prompt: Sequence[Sequence[int]], vocab: int, eos: int = 0, **texts: Text) -> Env:
    ids = torch.tensor(prompt, dtype=torch.int64)
    return Env(len(ids), vocab, "cpu", ids, torch.tensor([eos]), {}, 9, texts=texts)


def walk(stage: Stage, env: Env, logits: Sequence[Tensor], chosen: Tensor) -> list[Tensor]:
    """Gives what the stage makes of each step's logits `[R, V]`, where `chosen` `[T, R]` is taken."""
    chain = Chain([stage])
    state, found = chain.init(env), []
    for z, taken in zip(logits, chosen, strict=True):
        found.append(chain.apply(z.clone(), NO_PARAMS, state, numbers(env.rows)))
        none = torch.zeros(env.rows)
        chain.observe(state, NO_PARAMS, Token(taken, none, none, torch.tensor([0])))
    return found


SEQUENCE = st.lists(st.integers(0, V - 1), min_size=1, max_size=4).map(tuple)
BIASES = st.dictionaries(SEQUENCE, st.integers(-100, 100).filter(bool).map(float), min_size=1, max_size=9)


@given(biases=BIASES, seed=st.integers(0, 999))
@settings(max_examples=60)
def test_each_step_is_that_of_transformers(biases: dict[tuple[int, ...], float], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    # transformers leaves out a sequence until as many tokens are written as it has; ours needs one fewer.
    prompt = torch.randint(0, V, (3, 4), generator=generator)
    chosen = torch.randint(0, V, (6, 3), generator=generator)
    logits = torch.randn(6, 3, V, generator=generator)
    biased = walk(Fixed(biases), env_of(prompt.tolist(), V), list(logits), chosen)
    barred = walk(Fixed(dict.fromkeys(biases, -math.inf)), env_of(prompt.tolist(), V), list(logits), chosen)
    known = [[list(ids), bias] for ids, bias in biases.items() if 0 not in ids]  # transformers 5.17 refuses 0
    added = SequenceBiasLogitsProcessor(known) if len(known) == len(biases) else None
    removed = NoBadWordsLogitsProcessor([list(ids) for ids in biases], eos_token_id=None)
    for step, z in enumerate(logits):
        ids = torch.cat((prompt, chosen[:step].T), 1)
        if added is not None:
            torch.testing.assert_close(biased[step], added(ids, z.clone()))
        theirs = removed(ids, z.clone())
        left = theirs.amax(-1) > -math.inf  # a row that loses every token keeps its likeliest one here
        assert torch.equal(barred[step][left], theirs[left])
        assert torch.equal(barred[step][~left].argmax(-1), z[~left].argmax(-1))


def test_a_sequence_longer_than_the_text_waits_for_it() -> None:
    env = env_of([[1]], V)
    found = walk(Fixed({(1, 1, 1): 5.0, (1, 2): 3.0}), env, [torch.zeros(1, V)] * 3, torch.tensor([[1]] * 3))
    assert [z.tolist()[0][:3] for z in found] == [[0, 0, 3], [0, 5, 3], [0, 5, 3]]


def test_ids_beyond_the_logits_are_left_out() -> None:
    z = torch.randn(1, V)
    (found,) = walk(Fixed({(V,): 5.0, (V, 1): 5.0}), env_of([[1]], V), [z], torch.tensor([[0]]))
    assert torch.equal(found, z)


def test_thousands_of_sequences_take_little_memory() -> None:
    found = {(first, 0): 1.0 for first in range(2000)} | {(token,): 1.0 for token in range(1, 2000)}
    env = env_of([[1999]], 2000)
    assert sum(tensor.numel() for tensor in Fixed(found).constants(env).values()) < 20 * len(found)
    (z,) = walk(Fixed(found), env, [torch.zeros(1, 2000)], torch.tensor([[0]]))
    assert torch.equal(z, torch.ones(1, 2000))


def after(stage: Stage, text: str, **texts: Text) -> dict[str, float]:
    """Gives the bytes whose logits differ from 0 behind a text, each token being a byte."""
    prompt = [list(text.encode())]
    (z,) = walk(stage, env_of(prompt, 256, **texts), [torch.zeros(1, 256)], torch.tensor([[0]]))
    return {chr(token): z[0, token].item() for token in z[0].nonzero()[:, 0].tolist()}


@pytest.mark.parametrize(
    ("words", "text", "barred"),
    [
        (("cat",), "the ca", "t"),
        (("cat",), "the bobca", "t"),
        (("cat",), "the c", ""),
        (("cat", "cup"), "cu", "p"),
        (("cat", "cap"), "ca", "pt"),
        (("x",), "", "x"),
        ((" x", "\tx"), "a ", "x"),
        ((" x", "\tx"), "a", ""),
        ((), "the ca", ""),
    ],
)
def test_the_token_that_completes_a_text_is_barred(words: tuple[str, ...], text: str, barred: str) -> None:
    found = after(BadWords(), text or "q", bad_words=words)
    assert "".join(sorted(found)) == barred
    assert set(found.values()) <= {-math.inf}


def test_a_text_is_barred_behind_a_space_too() -> None:
    class Words(ByteTokenizer):
        """Has a token of its own for " cat"."""

        def encode(self, text: str) -> tuple[int, ...]:
            return (7,) if text == " cat" else super().encode(text)

    env = replace(env_of([[1]], 256, bad_words=("cat",)), tokenizer=Words())
    (z,) = walk(BadWords(), env, [torch.zeros(1, 256)], torch.tensor([[0]]))
    assert z[0].isinf().nonzero().tolist() == [[7]]


def test_a_token_that_ends_the_answer_stays() -> None:
    env = env_of([[1]], 256, eos=ord("x"), bad_words=("x", "xy"))
    found = walk(BadWords(), env, [torch.zeros(1, 256)] * 2, torch.tensor([[ord("x")], [0]]))
    assert not found[0].isinf().any()
    assert found[1][0].isinf().nonzero().tolist() == [[ord("y")]]


class Named(ByteTokenizer):
    """Has a control token."""

    def named(self) -> Mapping[str, int]:
        return {"<end>": 200}


@pytest.mark.parametrize(
    ("biases", "found"),
    [
        (("a=5",), {"a": 5}),
        (("a=5", "a=-1.5"), {"a": -1.5}),
        (("#98=-100", "<end>=2"), {"b": -100, chr(200): 2}),
        (("==3", "#=1"), {"=": 3, "#": 1}),
        (("qa=5", "#256=5"), {}),
        (("qa=5", "a=2"), {"a": 2}),
        ((), {}),
    ],
)
def test_a_bias_is_added_to_a_token(biases: tuple[str, ...], found: dict[str, float]) -> None:
    env = replace(env_of([[1]], 256, logit_bias=biases), tokenizer=Named())
    if "#256=5" in biases:
        with pytest.raises(ParamError, match="names the token 256, but ids go from 0 to 255"):
            walk(LogitBias(), env, [torch.zeros(1, 256)], torch.tensor([[0]]))
        return
    (z,) = walk(LogitBias(), env, [torch.zeros(1, 256)], torch.tensor([[0]]))
    assert {chr(token): z[0, token].item() for token in z[0].nonzero()[:, 0].tolist()} == found


def test_a_bias_of_a_longer_text_acts_on_its_end() -> None:
    assert after(LogitBias(), "q", logit_bias=("qa=5", "a=2", "zz=1")) == {"a": 7}


@pytest.mark.parametrize("text", ["a", "=5", "a=", "a=b", "a=101", "a=nan", "a=-inf"])
def test_a_bias_without_its_parts_is_refused(text: str) -> None:
    with pytest.raises(ParamError, match="must have a text, = and a number from -100 to 100"):
        LogitBias.params[0].parse([text])


def test_a_text_of_too_many_tokens_is_refused() -> None:
    with pytest.raises(
        ParamError, match=rf"^bad_words has 'x{{39}}…', which is 41 tokens; .* 1 to {LONGEST}\."
    ):
        after(BadWords(), "q", bad_words=("x" * 41,))


def test_temperature_0_takes_the_best_of_what_is_left() -> None:
    decoder = decoders.find("bad_words")
    env = env_of([[1]], 256, bad_words=("b",))
    state = decoder.constants(env) | decoder.init(env)
    z = torch.zeros(1, 1, 256)
    z[..., ord("b")], z[..., ord("c")] = 3, 2
    step = decoder.step({"model": Output(z)}, state, table(decoder, temperature=0), numbers())
    assert step.chosen.tolist() == [ord("c")]
    assert "order" not in [param.name for param in decoder.params]


def test_a_chain_bars_texts_around_a_search() -> None:
    decoder = decoders.find("beam:bad_words")
    assert [type(stage) for stage in decoder.before.stages][-1] is BadWords
