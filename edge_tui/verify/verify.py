"""Compares strategies with their references: what `edge-tui verify` does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from edge_tui.decoders.base import Decoder
from edge_tui.decoders.core.checks import is_own
from edge_tui.decoders.registry.sampling import Sampling
from edge_tui.verify.draws import count_draws
from edge_tui.verify.finding import Finding
from edge_tui.verify.generated import compare_generated_steps, compare_searches, compare_with_all
from edge_tui.verify.properties import check_properties
from edge_tui.verify.proposals import compare_greedy, count_proposals
from edge_tui.verify.references.kinds import (
    ProposalReference,
    Reference,
    SearchReference,
    StepReference,
)
from edge_tui.verify.references.proposals import PROPOSALS
from edge_tui.verify.references.searches import SEARCHES
from edge_tui.verify.references.whole_steps import STEPS
from edge_tui.verify.steps import compare_steps

REFERENCES: Mapping[str, Reference] = {**STEPS, **SEARCHES, **PROPOSALS}
"""The reference of each strategy, by its name."""
LOOP = "own loop in float64"
CASES = 1000
_CASES_OF_A_RUN = 25
"""A run of a model costs so many cases."""
_LEAST_DRAWS = 2000


def verify(decoders: Sequence[Decoder], cases: int = CASES, draws: int | None = None) -> Iterator[Finding]:
    """Compares each strategy with its reference, as far as it has one, and checks its properties.

    Args:
        decoders: The strategies.
        cases: Random distributions for each comparison; runs of tiny models are fewer.
        draws: Draws of each χ²; by default 100 a case, at most 100,000.
    """
    draws = draws or min(100_000, max(_LEAST_DRAWS, 100 * cases))
    with _one_thread():
        for decoder in decoders:
            reference = REFERENCES.get(decoder.name) if is_shipped(decoder) else None
            if reference is not None:
                yield from _compare(decoder, reference, cases, draws)
            elif is_shipped(decoder):
                yield Finding(decoder.name, "no reference", faults=["It is shipped, so it must have one."])
            yield check_properties(decoder, max(1, cases // 10))


def is_shipped(decoder: Decoder) -> bool:
    """Tells whether a strategy comes with this package; a user's file has no reference here."""
    return is_own(type(decoder.filter if isinstance(decoder, Sampling) else decoder))


def _compare(decoder: Decoder, reference: Reference, cases: int, draws: int) -> Iterator[Finding]:
    """Compares a strategy in every way that its reference offers."""
    name, runs = decoder.name, max(1, cases // _CASES_OF_A_RUN)
    if isinstance(reference, StepReference):
        by_loop, by_peer = compare_steps(decoder, reference, cases)
        peer, known = reference.peer, reference.disagreements
        yield Finding.of(name, LOOP, by_loop, known if peer is None else ())
        if peer is not None:
            yield Finding.of(name, peer.name, by_peer, known)
        if reference.generate is not None:
            yield Finding.of(
                name, "transformers generate()", compare_generated_steps(decoder, reference, runs)
            )
        found = count_draws(decoder, reference, draws)
        if found is not None:
            yield found
    elif isinstance(reference, SearchReference):
        by_generate = compare_searches(decoder, reference, runs)
        yield Finding.of(name, "transformers generate()", by_generate, reference.disagreements)
        yield Finding.of(name, "all sequences", compare_with_all(decoder, reference, runs))
    elif isinstance(reference, ProposalReference):
        yield Finding.of(
            name, "greedy decoding", compare_greedy(decoder, reference, runs), reference.disagreements
        )
        yield count_proposals(decoder, reference, draws)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Lets torch compute on one thread meanwhile: small tensors wait for threads longer than they compute."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
