"""Compares strategies with transformers' `generate()` on tiny models: step by step, or answer by answer."""

from __future__ import annotations

import itertools
from functools import cache
from math import isclose

import numpy as np
from numpy.random import RandomState

from edge_tui.decoders.base import Decoder, numbers
from edge_tui.verify import driver
from edge_tui.verify.distributions import values
from edge_tui.verify.outcome import Comparison, Context, of_library, words
from edge_tui.verify.references.kinds import SearchReference, StepReference
from edge_tui.verify.toy_models import VOCAB, generate, llama, next_logits

_MODELS = 3
_VOCAB = 90
"""Wider than the `top_k` of 50 that `generate()` takes where none is named."""
_STEPS = 6
_SEARCH_STEPS = 12
_PROMPT = (5, 1, 9)
_TOLERANCE = 1e-5


def compare_generated_steps(
    decoder: Decoder, reference: StepReference, runs: int, seed: int = 0
) -> Comparison:
    """Compares the final logits of steps with the scores of `generate()` after the tokens that it took."""
    comparison = Comparison()
    if reference.generate is None:
        return comparison
    for number in itertools.count(seed):
        if comparison.cases >= runs * _STEPS or number > seed + 20 * runs:
            return comparison
        v = values(RandomState(number), numbers(decoder.params))
        options = reference.generate(v)
        if options is None:
            continue
        model = llama(number % _MODELS, _VOCAB)
        found = generate(model, _PROMPT, max_new_tokens=_STEPS, **options)
        tokens = found.sequences[0, len(_PROMPT) :].tolist()
        for at in range(len(tokens)):
            _compare_step(
                decoder, reference, comparison, number, v, tokens[: at + 1], found.scores[at][0].numpy()
            )
    return comparison


def _compare_step(
    decoder: Decoder,
    reference: StepReference,
    comparison: Comparison,
    number: int,
    v: dict[str, float],
    tokens: list[int],
    scores: np.ndarray,
) -> None:
    """Compares one step: after `tokens` but the last, which `generate()` took from `scores`."""
    import torch

    kept = tokens[:-1]
    raw = next_logits(llama(number % _MODELS, _VOCAB))(torch.tensor([[*_PROMPT, *kept]])).numpy()
    prompt, output = np.array([_PROMPT], dtype=np.int64), np.array([kept], dtype=np.int64).reshape(1, -1)
    rows = driver.Rows({"model": raw}, [v], prompt, output, number)
    final = driver.step(decoder, rows).final.numpy()[0]
    expected = reference.step({"model": raw[0].astype(np.float64)}, v, Context(_PROMPT, tuple(kept)))
    theirs = scores
    if (final > -np.inf).sum() == 1:  # the argmax: generate() leaves the others in its scores
        theirs = np.where(np.arange(len(theirs)) == tokens[-1], theirs, -np.inf)
    case = f"run {number} step {len(kept)} ({words(v)})"
    comparison.add(final, [of_library(theirs, expected)], case, sorts=True)


def compare_searches(decoder: Decoder, reference: SearchReference, runs: int, seed: int = 0) -> Comparison:
    """Compares the answer of a search and its score with those of `generate()`."""
    comparison = Comparison()
    for number in itertools.count(seed):
        if comparison.cases >= runs or number > seed + 20 * runs:
            return comparison
        random = RandomState(number)
        v = values(random, numbers(decoder.params)) | dict(reference.fixed)
        options = reference.generate(v) if reference.generate is not None else None
        if options is None:
            continue
        model, prompt = llama(number % _MODELS), tuple(random.randint(0, VOCAB, 4).tolist())
        eos = _likely_ends(decoder, number % _MODELS)[: random.randint(3)]
        found = driver.search(decoder, next_logits(model), prompt, _SEARCH_STEPS, VOCAB, v, eos)[0]
        theirs = generate(model, prompt, max_new_tokens=_SEARCH_STEPS, eos_token_id=eos or None, **options)
        if "sequences_scores" not in theirs:
            continue  # one row: no search
        tokens = theirs.sequences[0, len(prompt) :].tolist()
        score = float(theirs.sequences_scores[0])
        case = f"run {number} ({words(v)}, {len(eos)} ends)"
        answer, beyond = tokens[: len(found.tokens)], set(tokens[len(found.tokens) :])
        comparison.cases += 1
        same = list(found.tokens) == answer and beyond <= {0}
        gap = abs(found.score - score) / max(1.0, abs(score))
        if not isclose(gap, 0.0, abs_tol=_TOLERANCE):
            comparison.faults.append(f"{case}: the score is {found.score:.6g}, generate() has {score:.6g}.")
        elif not same:
            comparison.ties += 1  # another sequence of the same score
        comparison.difference = max(comparison.difference, gap)
    raise AssertionError("unreachable")


@cache
def _likely_ends(decoder: Decoder, model: int) -> list[int]:
    """Lists tokens that turn up early, so that as end-of-sequence ids they make hypotheses end at all."""
    v = driver.defaults(decoder)
    found = driver.search(decoder, next_logits(llama(model)), (3, 7, 11, 3), 10, VOCAB, v, [])[0]
    seen = list(found.tokens[2:])
    return sorted(set(seen), key=lambda token: -seen.count(token))


def compare_with_all(decoder: Decoder, reference: SearchReference, runs: int, seed: int = 0) -> Comparison:
    """Compares the answer of a search that drops nothing with the best of all sequences."""
    import torch

    comparison = Comparison()
    if reference.exhaustive is None:
        return comparison
    vocab, length = 3, 4
    for number in range(seed, seed + runs):
        weights = RandomState(number).standard_normal((vocab, vocab, vocab))
        logp = weights - np.log(np.exp(weights).sum(-1, keepdims=True))
        v = driver.defaults(decoder) | dict(reference.fixed) | dict(reference.exhaustive(vocab, length))

        def logits(ids: torch.Tensor, weights: np.ndarray = weights) -> torch.Tensor:
            return torch.from_numpy(weights[ids[:, -2].numpy(), ids[:, -1].numpy()].astype(np.float32))

        found = driver.search(decoder, logits, (0, 0), length, vocab, v, [])[0]
        scores = {
            tokens: sum(
                logp[(0, 0, *tokens)[at], (0, 0, *tokens)[at + 1], tokens[at]] for at in range(length)
            )
            for tokens in itertools.product(range(vocab), repeat=length)
        }
        best = max(scores, key=lambda tokens: scores[tokens])
        comparison.cases += 1
        if found.tokens != best and scores[best] - scores[found.tokens] > _TOLERANCE:
            comparison.faults.append(f"model {number}: {found.tokens} is not the best sequence, {best} is.")
    return comparison
