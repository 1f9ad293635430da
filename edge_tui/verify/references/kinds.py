"""Defines the kinds of references: of one stage, of a whole step, of a search, of checked proposals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from edge_tui.verify.outcome import Context, Float64, Outcome

if TYPE_CHECKING:
    import torch
    from numpy.random import RandomState

Values: TypeAlias = Mapping[str, float]
Texts: TypeAlias = Mapping[str, tuple[str, ...]]
Loop: TypeAlias = Callable[[Float64, Values, Context], Sequence[Outcome]]
"""Logits float64 `[V]`, parameter values and ids to the outcomes of one stage."""
Library: TypeAlias = "Callable[[torch.Tensor, Values, Context], torch.Tensor | None]"
"""The same by another program on float32 `[1, V]`; None where it has no such value."""
Answers: TypeAlias = tuple[tuple[int, ...], ...]
"""Answers of one run, best first."""
Streams: TypeAlias = Mapping[str, Float64]
"""Logits of each stream by its name."""


@dataclass(frozen=True, slots=True)
class Peer:
    """Names another program's implementation and calls it.

    Attributes:
        name: For readers: "transformers TopKLogitsWarper".
        call: Its logits.
    """

    name: str
    call: Library


@dataclass(frozen=True, slots=True)
class Recording:
    """Names numbers that another program gave, and reads its arguments as ours.

    Attributes:
        name: For readers: "llama.cpp top_k".
        sampler: Its name in the recorded file.
        values: Our parameter values for its arguments.
    """

    name: str
    sampler: str
    values: Callable[[Mapping[str, Any]], Values]


@dataclass(frozen=True, slots=True)
class RunReference:
    """Decodes answers with models whose layers are read, and reads recorded runs of transformers 4 as ours.

    Attributes:
        search: Their name in the recorded file.
        values: Our parameter values for their options; None for options that we do not have.
        loop: The definition, written out in float64: a function that reads ids, the prompt, the number of
            tokens and values to the answer, and the least distance by which a decision fell; None where
            single steps are compared.
    """

    search: str
    values: Callable[[Mapping[str, Any]], Values | None]
    loop: Callable[[Any, Sequence[int], int, Values], tuple[Sequence[int], float]] | None = None


@dataclass(frozen=True, slots=True)
class StageReference:
    """Computes one stage: a filter, penalties, the temperature.

    Attributes:
        loop: The definition, written out in float64.
        peer: Another program's class.
        recording: Another program's numbers.
        disagreements: Sentences about known differences.
        texts: Draws the lists of texts of a case; None where it has none.
        place: Where it stands in a strategy of its own: "penalty", first; "last", behind the temperature;
            "filter", on either side of the temperature.
    """

    loop: Loop
    peer: Peer | None = None
    recording: Recording | None = None
    disagreements: tuple[str, ...] = ()
    texts: Callable[[RandomState], Texts] | None = None
    place: Literal["penalty", "filter", "last"] = "filter"


@dataclass(frozen=True, slots=True)
class StepReference:
    """Computes the final logits of a whole step.

    Attributes:
        step: The definition, written out in float64: logits of the streams, values, ids.
        peer: Another program on the logits of the main stream.
        recording: Another program's numbers.
        generate: Arguments with which transformers' `generate()` decodes in the same way, from values; None
            where it cannot.
        runs: Recorded runs of models, for a strategy that reads their layers.
        sampled: Values under which it draws from its final logits; None where it never does.
        disagreements: Sentences about known differences.
        texts: Draws the lists of texts of a case; None where it has none.
    """

    step: Callable[[Streams, Values, Context], Sequence[Outcome]]
    peer: Peer | None = None
    recording: Recording | None = None
    generate: Callable[[Values], Mapping[str, Any] | None] | None = None
    runs: RunReference | None = None
    sampled: Values | None = field(default_factory=dict)
    disagreements: tuple[str, ...] = ()
    texts: Callable[[RandomState], Texts] | None = None


@dataclass(frozen=True, slots=True)
class ToySearch:
    """Describes a search on a model that looks one token back, small enough to list all that may happen.

    Attributes:
        vocab: Size of the vocabulary; the first token is the prompt, the last one ends an answer.
        length: Most tokens of an answer.
        values: Parameter values.
        answers: Answers, best first, that are looked at of each run.
        chances: Log-probabilities float64 `[V, V]` by the token before, to the chance of each outcome.
    """

    vocab: int
    length: int
    values: Values
    answers: int
    chances: Callable[[Float64], Mapping[Answers, float]]


@dataclass(frozen=True, slots=True)
class SearchReference:
    """Searches for the answer among several rows.

    Attributes:
        generate: Arguments with which transformers' `generate()` searches in the same way; None where it
            cannot.
        exhaustive: Values, for a vocabulary and a length, with which nothing is dropped, so the answer is the
            best of all sequences; None where there are none.
        fixed: Values under which it searches as `generate` and `exhaustive` do.
        draws: What comes of it by chance; None where nothing does.
        disagreements: Sentences about known differences.
    """

    generate: Callable[[Values], Mapping[str, Any] | None] | None = None
    exhaustive: Callable[[int, int], Values] | None = None
    fixed: Values = field(default_factory=dict)
    draws: ToySearch | None = None
    disagreements: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ProposalReference:
    """Checks that proposals change nothing: the main model's own distribution comes out.

    Attributes:
        target: Logits of the distribution that must come out, from the main model's logits float64
            `[…, V]` and values.
        settings: Values under which draws are counted.
        greedy: Values under which it takes the likeliest token.
        lookup: Another program's proposals after ids, for proposals that come from the text; None for others.
        disagreements: Sentences about known differences.
    """

    target: Callable[[Float64, Values], Float64]
    settings: Sequence[Values]
    greedy: Values
    lookup: Callable[[Sequence[int], Values], Sequence[int]] | None = None
    disagreements: tuple[str, ...] = ()


Reference: TypeAlias = StageReference | StepReference | SearchReference | ProposalReference | RunReference
