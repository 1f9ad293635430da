"""Writes the numbers and sentences that say why a token was taken."""

from __future__ import annotations

from math import inf, isnan
from typing import TYPE_CHECKING

from edge_tui.util.sanitise import one_line, visible

if TYPE_CHECKING:
    from edge_tui.engine.explanation import Candidate, Explanation


def candidate_sentence(why: Explanation, token: int) -> str:
    """Says what became of one token: by what a stage removed it, or how much it lacked to the best sum.

    Then come the numbers that stages have of it and do not cut by.
    """
    found = next((each for each in why.candidates if each.id == token), None)
    if found is None:
        return ""
    name = visible(found.text)
    if (at := found.removing_stage) >= 0:
        stage = why.stages[at]
        own, edge = (criterion_text(stage.criterion, number) for number in (found.criteria[at], stage.edge))
        limits = f": {own}, the edge is {edge}" if own and edge else ""
        return f"{one_line(stage.title)} cut it{limits}."
    best = find(why, why.winner)
    if found.id == best.id:
        has = f" has the largest sum, by {why.margin:.2f}." if why.drawn else " is the best."
        return f"{name}{has}{_numbers(why, found)}" if why.margin < inf or not why.drawn else ""
    ours, theirs = (each.sum if why.drawn else final_logp(each) for each in (found, best))
    if not ours <= theirs:
        # A search compares whole texts, and a sum that was computed again may tie with the draw's own.
        return ""
    rival = f"{'the sum' if why.drawn else 'log p'} of {visible(best.text)}"
    return f"{name} lacked {theirs - ours:.2f} to {rival}.{_numbers(why, found)}"


def _numbers(why: Explanation, candidate: Candidate) -> str:
    """Lists what stages have of a token and of no other: " Δ log p +0.32 by CFG."; 0 is left out."""
    found = [
        f"{criterion_text(stage.criterion, candidate.criteria[i])} by {one_line(stage.title)}"
        for i, stage in enumerate(why.stages)
        if has_number(why, i) and candidate.criteria[i]
    ]
    return f" {', '.join(found)}." if found else ""


def has_number(why: Explanation, stage: int) -> bool:
    """Tells whether a stage has a number of each token, cuts by none, and tokens differ in it."""
    return _has_any(why, stage) and not _is_constant(why, stage)


def has_constant(why: Explanation, stage: int) -> bool:
    """Tells whether it has one number for all tokens, as a temperature is."""
    return _has_any(why, stage) and _is_constant(why, stage)


def _has_any(why: Explanation, stage: int) -> bool:
    found = why.stages[stage]
    return bool(found.criterion) and isnan(found.edge)


def _is_constant(why: Explanation, stage: int) -> bool:
    return len({each.criteria[stage] for each in why.candidates if not isnan(each.criteria[stage])}) == 1


def criterion_text(criterion: str, value: float) -> str:
    """Writes the number by which a stage decides, in its own unit; "" for NaN."""
    if isnan(value) or not criterion:
        return ""
    if criterion in ("Σp", "p"):
        return f"{criterion.removesuffix('p') or 'p'} {share(value)}"
    if criterion.startswith("Δ"):
        return f"{one_line(criterion)} {signed(value, 2, 8, '+')}"
    number = f"{value:,.0f}" if criterion == "rank" else f"{value:.3g}".replace("-", "−")
    return f"{one_line(criterion)} {number}"


def share(fraction: float, cells: int = 0) -> str:
    """Writes a fraction in percent: "18.3 %"; with 4 cells without a unit: "18.3", "100", ".04", "<.01"."""
    percent = 100 * fraction
    if isnan(percent):
        return "n/a"
    if cells:
        if percent >= 99.95:
            return f"{percent:.0f}"
        if percent >= 0.095 or percent == 0:
            return f"{percent:.1f}"
        return f"{percent:.2f}"[1:] if percent >= 0.01 else "<.01"
    if 0 < percent < 0.001:
        return "<.001 %"
    digits = 1 if percent >= 1 or percent == 0 else 2 if percent >= 0.0095 else 3
    return f"{percent:.{digits}f} %".removeprefix("0" if digits == 3 else "")


def signed(value: float, digits: int, cells: int, sign: str = "") -> str:
    """Writes a number with a minus of the width of its plus, with fewer digits where it is long."""
    if isnan(value):
        return "n/a"
    while len(text := f"{value:{sign}.{digits}f}") > cells and digits:
        digits -= 1
    return (text.lstrip("+-") if float(text) == 0 else text).replace("-", "−")


def find(why: Explanation, token: int) -> Candidate:
    """Finds a token; the first one is the one that was taken."""
    return next((each for each in why.candidates if each.id == token), why.candidates[0])


def final_logp(candidate: Candidate) -> float:
    """Reads the log-probability that the last stage left."""
    return candidate.logps[-1] if candidate.logps else candidate.raw_logp
