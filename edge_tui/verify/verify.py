"""Compares strategies with their references: what `edge-tui verify` does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from edge_tui import decoders
from edge_tui.decoders.base import Decoder
from edge_tui.decoders.core.chain import Link
from edge_tui.decoders.core.checks import is_own
from edge_tui.decoders.registry.chain_text import ChainStrategy
from edge_tui.decoders.registry.sampling import Sampling
from edge_tui.verify.draws import count_answers, count_draws
from edge_tui.verify.finding import Finding
from edge_tui.verify.generated import compare_generated_steps, compare_searches, compare_with_all
from edge_tui.verify.layer_runs import compare_loop_runs, compare_recorded_runs
from edge_tui.verify.properties import check_properties
from edge_tui.verify.proposals import compare_greedy, compare_lookups, count_proposals
from edge_tui.verify.references.chains import STAGES, chain
from edge_tui.verify.references.kinds import (
    ProposalReference,
    Reference,
    RunReference,
    SearchReference,
    StepReference,
)
from edge_tui.verify.references.proposals import PROPOSALS
from edge_tui.verify.references.searches import SEARCHES
from edge_tui.verify.references.whole_steps import STEPS
from edge_tui.verify.steps import compare_recorded, compare_steps

REFERENCES: Mapping[str, Reference] = {**STEPS, **SEARCHES, **PROPOSALS}
"""The reference of each strategy, by its name."""
LOOP = "own loop in float64"
GENERATE = "transformers generate()"
RECORDED_RUNS = "transformers 4.55.4 generate()"
CASES = 1000
_CASES_OF_A_RUN = 25
"""A run of a model costs so many cases."""
_LEAST_DRAWS = 2000
_LEAST_RUNS = 100
_DRAWS_OF_A_RUN = 20
"""A run of a search on a toy model costs so many draws."""
_TOKENS_OF_DRAWS = 4
"""Proposals are drawn under two settings, two tokens each time."""


def find(names: Sequence[str]) -> list[Decoder]:
    """Finds strategies, chains and single stages by name; without names, all that there are.

    A stage that is no strategy stands as a chain of itself alone.

    Raises:
        UnknownStrategy: there is none of a name.
    """
    registry = decoders.current()
    strategies, stages = registry.strategies(), {stage.name: stage for stage in registry.stages()}
    known = {decoder.name for decoder in strategies}
    alone = {name: ChainStrategy((Link(stage),)) for name, stage in stages.items() if name not in known}
    if not names:
        return [*strategies, *alone.values()]
    return [alone.get(name) or registry.find(name) for name in names]


def verify(subjects: Sequence[Decoder], cases: int = CASES, draws: int | None = None) -> Iterator[Finding]:
    """Compares each strategy with its reference, as far as it has one, and checks its properties.

    Args:
        subjects: The strategies, as `find` gives them.
        cases: Random distributions for each comparison; runs of tiny models are fewer.
        draws: Draws of each χ²; by default 100 a case, at most 100,000.
    """
    draws = draws or min(100_000, max(_LEAST_DRAWS, 100 * cases))
    with _one_thread():
        for decoder in subjects:
            reference = reference_of(decoder)
            if reference is not None:
                yield from _compare(decoder, reference, cases, draws)
            elif is_shipped(decoder) and not decoder.links_around:
                yield Finding(decoder.name, "no reference", faults=["It is shipped, so it must have one."])
            yield check_properties(decoder, max(1, cases // 10))


def reference_of(decoder: Decoder) -> Reference | None:
    """Returns the reference of a shipped strategy, or composes that of a chain of shipped stages."""
    if not is_shipped(decoder):
        return None
    if isinstance(decoder, ChainStrategy):
        links = tuple(link.name for link in decoder.before.links)
        names = [link.stage.name for link in decoder.before.links]
        if any(name not in STAGES for name in names):
            return None
        return chain(lambda values: links, names[0] if len(names) == 1 else "")
    return REFERENCES.get(decoder.name)


def is_shipped(decoder: Decoder) -> bool:
    """Tells whether a strategy comes with this package; a user's file has no reference here."""
    if isinstance(decoder, ChainStrategy):
        return all(is_own(type(link.stage)) for link in decoder.before.links)
    return is_own(type(decoder.filter if isinstance(decoder, Sampling) else decoder))


def _compare(decoder: Decoder, reference: Reference, cases: int, draws: int) -> Iterator[Finding]:
    """Compares a strategy in every way that its reference offers."""
    name, runs = decoder.name, max(1, cases // _CASES_OF_A_RUN)
    if isinstance(reference, StepReference):
        yield from _compare_steps(decoder, reference, cases, draws)
    elif isinstance(reference, SearchReference):
        if reference.generate is not None:
            by_generate = compare_searches(decoder, reference, runs)
            yield Finding.of(name, GENERATE, by_generate, reference.disagreements)
        if reference.exhaustive is not None:
            yield Finding.of(name, "all sequences", compare_with_all(decoder, reference, runs))
        if reference.draws is not None:
            yield count_answers(decoder, reference.draws, max(_LEAST_RUNS, draws // _DRAWS_OF_A_RUN))
    elif isinstance(reference, RunReference):
        if reference.loop is not None:
            yield Finding.of(name, LOOP, compare_loop_runs(decoder, reference, runs))
        yield Finding.of(name, RECORDED_RUNS, compare_recorded_runs(decoder, reference))
    elif isinstance(reference, ProposalReference):
        by_target = compare_greedy(decoder, reference, runs)
        yield Finding.of(name, "greedy decoding", by_target, reference.disagreements)
        if reference.lookup is not None:
            yield Finding.of(name, "transformers prompt lookup", compare_lookups(decoder, reference, cases))
        # A lookup reads all of the text, in each row.
        share = _TOKENS_OF_DRAWS if reference.lookup is None else _DRAWS_OF_A_RUN
        yield count_proposals(decoder, reference, draws // share)


def _compare_steps(decoder: Decoder, reference: StepReference, cases: int, draws: int) -> Iterator[Finding]:
    """Compares final logits: with the own loop, other programs, what was recorded of them, and by draws."""
    name, known = decoder.name, reference.disagreements
    peer, recording = reference.peer, reference.recording
    by_loop, by_peer = compare_steps(decoder, reference, cases)
    yield Finding.of(name, LOOP, by_loop, () if peer or recording else known)
    if peer is not None and by_peer.cases:
        yield Finding.of(name, peer.name, by_peer, () if recording else known)
    if recording is not None:
        yield Finding.of(name, recording.name, compare_recorded(decoder, reference, recording), known)
    if reference.generate is not None:
        runs = max(1, cases // _CASES_OF_A_RUN)
        yield Finding.of(name, GENERATE, compare_generated_steps(decoder, reference, runs))
    if reference.runs is not None:
        yield Finding.of(name, RECORDED_RUNS, compare_recorded_runs(decoder, reference.runs))
    found = count_draws(decoder, reference, draws)
    if found is not None:
        yield found


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
