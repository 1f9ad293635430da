"""Defines what a reference says of a step, and compares logits with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Float64: TypeAlias = NDArray[np.float64]
Bool: TypeAlias = NDArray[np.bool_]

ULP = 2.0**-23
"""Distance of 1 from the next float32."""
EDGE_ULPS = 64
TOKENS_PER_ULP = 300
"""A token whose criterion is as close as so many units of float32's last place to a cut may fall on either
side, and one unit more for so many tokens: a sum of 152,064 exponentials is wrong by some hundreds."""


def rounding(vocab: int) -> float:
    """Returns the relative error that is taken for rounding in sums over a vocabulary."""
    return (EDGE_ULPS + vocab / TOKENS_PER_ULP) * ULP


@dataclass(frozen=True, slots=True)
class Context:
    """Holds the ids that a step follows.

    Attributes:
        prompt: Of the prompt.
        output: Of the answer so far.
        texts: Parameters that are lists of texts, by name.
        step: How many tokens the answer has.
        ends: Ids that end an answer.
        steps: Logits float64 `[V]` and the token taken from them, of steps that a stage learned from.
    """

    prompt: tuple[int, ...] = ()
    output: tuple[int, ...] = ()
    texts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    step: int = 0
    ends: tuple[int, ...] = ()
    steps: tuple[tuple[Float64, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """Holds the logits that a reference expects, up to one summand for all.

    Attributes:
        logits: float64 `[V]`, −inf for removed tokens.
        doubt: bool `[V]`, tokens so close to a cut that rounding decides about them; also those whose logit
            rounding decides.
        equal: bool `[V]`, tokens that tie with the last one kept: libraries keep some of them, by the order
            in which a sort leaves them.
        chance: The probability of this outcome, for steps that toss a coin.
        slack: Relative error of all logits that rounding may cause beyond `TOLERANCE`, where a formula is
            ill-conditioned.
        single: True if exactly one token stays, whichever of those in doubt it is.
    """

    logits: Float64
    doubt: Bool
    equal: Bool
    chance: float = 1.0
    slack: float = 0.0
    single: bool = False


def outcome(
    z: Float64, kept: Bool, doubt: Bool | None = None, equal: Bool | None = None, chance: float = 1.0
) -> Outcome:
    """Makes the outcome of a cut: `z` where `kept`, −inf elsewhere."""
    none = np.zeros(z.shape, dtype=np.bool_)
    left = np.where(kept, z, -inf)
    return Outcome(left, none if doubt is None else doubt, none if equal is None else equal, chance)


def of_library(logits: NDArray[Any], outcomes: Sequence[Outcome]) -> Outcome:
    """Makes the outcome of another program's logits, float `[V]`.

    In doubt are the tokens that are so in an outcome of the own loop, or about which its outcomes differ.
    """
    kept = np.stack([each.logits > -inf for each in outcomes])
    return Outcome(
        logits.astype(np.float64),
        np.any([each.doubt for each in outcomes], 0) | (kept.any(0) & ~kept.all(0)),
        np.any([each.equal for each in outcomes], 0),
        slack=max(each.slack for each in outcomes),
        single=all(each.single for each in outcomes),
    )


@dataclass(slots=True)
class Comparison:
    """Sums up how cases compared.

    Attributes:
        cases: Their number.
        ties: Cases in which tokens at the very edge of a cut differ, and nothing else does.
        difference: The largest difference of a logit, relative to its size where that is above 1.
        faults: One sentence for each case that differs by more.
    """

    cases: int = 0
    ties: int = 0
    difference: float = 0.0
    faults: list[str] = field(default_factory=list)

    def add(
        self, found: NDArray[Any], expected: Sequence[Outcome], case: str, *, sorts: bool = False
    ) -> None:
        """Compares logits with what is expected.

        Args:
            found: float `[V]`.
            expected: The outcomes, one of which it must be.
            case: The case in words, for the sentence about a fault.
            sorts: True where what is expected comes from a library that breaks ties by sort order.
        """
        self.cases += 1
        tries = [_differ(found.astype(np.float64), each, sorts) for each in expected]
        difference, tie, fault = min(tries, key=lambda each: (bool(each[2]), each[1], each[0]))
        if fault:
            self.faults.append(f"{case}: {fault}")
            return
        self.ties += tie
        self.difference = max(self.difference, difference)

    def merge(self, other: Comparison) -> None:
        """Adds the cases of another comparison."""
        self.cases += other.cases
        self.ties += other.ties
        self.difference = max(self.difference, other.difference)
        self.faults += other.faults


TOLERANCE = 2e-5
"""Largest difference of a logit that is taken for rounding."""


def _differ(found: Float64, expected: Outcome, sorts: bool) -> tuple[float, bool, str]:
    """Returns the difference, whether tokens at the edge differ, and a fault or ""."""
    stays, should = found > -inf, expected.logits > -inf
    if not (found < inf).all():  # NaN compares false
        return inf, False, "NaN or +inf."
    differ = stays != should
    allowed = expected.doubt | expected.equal if sorts else expected.doubt
    wrong = np.flatnonzero(differ & ~allowed)
    if len(wrong):
        token = wrong[0]
        does = (
            "stays, and the reference removes it"
            if stays[token]
            else "is removed, and the reference keeps it"
        )
        return inf, False, f"token {token} {does} ({len(wrong)} of {len(found)} differ)."
    if expected.single and stays.sum() != 1:
        return inf, False, f"{stays.sum()} tokens stay, and the reference keeps one."
    both = np.flatnonzero(stays & should & ~expected.doubt)
    if not len(both):
        return (0.0, True, "") if stays.any() else (inf, False, "no token is left.")
    best = both[expected.logits[both].argmax()]
    ours, theirs = found[both] - found[best], expected.logits[both] - expected.logits[best]
    sizes = np.maximum(1.0, np.maximum(np.abs(expected.logits[both]), np.abs(expected.logits[best])))
    gaps = np.abs(ours - theirs) / sizes
    worst = int(gaps.argmax())
    if gaps[worst] > TOLERANCE + expected.slack:
        return inf, False, f"the logit of token {both[worst]} differs by {gaps[worst]:.2g}."
    gap = float(gaps[worst])
    return gap if gap <= TOLERANCE else 0.0, bool(differ.any()), ""


def words(values: Mapping[str, float]) -> str:
    """Writes parameter values for a sentence."""
    return ", ".join(f"{name} {number:.6g}" for name, number in values.items())
