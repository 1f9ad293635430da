"""Checks that proposals change nothing: tokens come as often as the main model alone would draw them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.random import RandomState

from edge_tui.decoders.base import Decoder, Output, numbers
from edge_tui.verify import driver
from edge_tui.verify.chi_squared import DRAWS, chi_squared
from edge_tui.verify.distributions import values
from edge_tui.verify.finding import Finding
from edge_tui.verify.outcome import Comparison, words
from edge_tui.verify.references.kinds import ProposalReference
from edge_tui.verify.references.mathematics import softmax

if TYPE_CHECKING:
    import torch

_VOCAB = 6
_ROWS = 1000
"""Rows of one step, each of which a lookup compares with all of its text."""
_CONTEXT = 12
"""Tokens of a prompt; the models look at the last alone, a lookup at all."""


def _models(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Makes the logits of two models that look one token back, float32 `[V, V]` each."""
    import torch

    drawn = RandomState(seed).standard_normal((2, _VOCAB, _VOCAB)) * 1.5
    main, draft = torch.from_numpy(drawn.astype(np.float32)).unbind()
    return main, draft


def _propose_and_check(
    decoder: Decoder, v: dict[str, float], last: np.ndarray, seed: int, first: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Does one step after the ids `last`, int64 `[R]`; returns tokens `[R, K]` and how many were accepted."""
    import torch

    main, draft = _models(seed)
    count = decoder.num_draft_tokens(v)
    rng, p = driver.random_numbers(len(last), seed, first), driver.table([v], len(last))
    before = RandomState(seed + first).randint(0, _VOCAB, (len(last), _CONTEXT - 1))
    state = driver.start(decoder, driver.environment(decoder, np.c_[before, last], _VOCAB, v))
    tokens = [torch.from_numpy(last)]
    for place in range(count):
        out = Output(draft[tokens[-1]][:, None]) if len(decoder.streams) > 1 else None
        tokens.append(decoder.propose(out, state, p, rng, place))
    name = decoder.streams[0].name
    step = decoder.step({name: Output(main[torch.stack(tokens, 1)])}, state, p, rng)
    if step.tokens is None or step.accepted is None:
        raise TypeError(f"{decoder.name} gave a step without tokens, although it proposes")
    return step.tokens.numpy(), step.accepted.numpy()


def compare_lookups(decoder: Decoder, reference: ProposalReference, cases: int, seed: int = 0) -> Comparison:
    """Compares proposals that come from the text with those of another program, as far as it has some."""
    comparison = Comparison()
    if reference.lookup is None:
        return comparison
    for number in range(seed, seed + cases):
        random = RandomState(number)
        v = values(random, numbers(decoder.params))
        ids = random.randint(0, random.randint(2, 12), (1, random.randint(1, 40)))
        state = decoder.init(driver.environment(decoder, ids, _VOCAB, v))
        p, rng = driver.table([v], 1), driver.random_numbers(1, number)
        count = decoder.num_draft_tokens(v)
        found = [int(decoder.propose(None, state, p, rng, at)) for at in range(count)]
        expected = list(reference.lookup(ids[0].tolist(), v))
        comparison.cases += 1
        if found[: len(expected)] != expected:
            comparison.faults.append(f"text {number} ({words(v)}): {found} is proposed, not {expected}.")
    return comparison


def count_proposals(decoder: Decoder, reference: ProposalReference, draws: int = DRAWS) -> Finding:
    """Counts pairs of tokens after a fixed one against the product of the main model's probabilities."""
    finding = Finding(decoder.name, f"χ² of {draws:,} pairs of tokens", limit=0.0)
    for seed, setting in enumerate(reference.settings):
        v = driver.defaults(decoder) | dict(setting)
        counts = np.zeros(_VOCAB**2, dtype=np.int64)
        for first in range(0, draws, _ROWS):
            last = np.zeros(min(_ROWS, draws - first), dtype=np.int64)
            tokens, accepted = _propose_and_check(decoder, v, last, seed, first)
            # Where the first token was a correction, the second is the first of another step.
            again, _ = _propose_and_check(decoder, v, tokens[:, 0].copy(), seed, 2 * draws + first)
            second = np.where(accepted > 0, tokens[:, 1], again[:, 0])
            counts += np.bincount(tokens[:, 0] * _VOCAB + second, minlength=_VOCAB**2)
        p = softmax(reference.target(_models(seed)[0].double().numpy(), v))
        found, limit = chi_squared(counts, (p[0][:, None] * p).ravel())
        finding.add_chi_squared(found, limit, f"models {seed} ({words(v)})")
    return finding


def compare_greedy(decoder: Decoder, reference: ProposalReference, runs: int, seed: int = 0) -> Comparison:
    """Compares tokens at temperature 0 with the main model's likeliest."""
    comparison = Comparison()
    for number in range(seed, seed + runs):
        v = driver.defaults(decoder) | dict(reference.greedy)
        last = np.arange(_VOCAB, dtype=np.int64)
        tokens, accepted = _propose_and_check(decoder, v, last, number)
        likeliest = reference.target(_models(number)[0].double().numpy(), v).argmax(-1)
        for row in range(_VOCAB):
            comparison.cases += 1
            before = last[row]
            for token in tokens[row, : accepted[row] + 1]:
                if token != likeliest[before]:
                    comparison.faults.append(
                        f"models {number}: {token} after {before}, not {likeliest[before]}."
                    )
                before = token
    return comparison
