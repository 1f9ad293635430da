"""Words the reason why a token was taken, in one sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_tui.util.sanitise import one_line

if TYPE_CHECKING:
    from edge_tui.engine.explanation import Candidate, Explanation


def reason_of(explanation: Explanation, title: str) -> tuple[str, str]:
    """Writes the sentence, and the note on how exact it is.

    Args:
        explanation: All but these two.
        title: Of the strategy.
    """
    token = next(each for each in explanation.candidates if each.id == explanation.token)
    if explanation.winner != explanation.token:
        return _other_winner(explanation, token)
    note = ""
    if explanation.exactness == "near":
        note = f"Computed again: each sum is within {explanation.epsilon:g} of the draw's."
    if explanation.drawn:
        return f"{explanation.candidate_count:,} tokens were left; {_luck(explanation, token)}", note
    cuts = [stage for stage in explanation.stages if stage.removed]
    if not cuts:
        return f"{_quoted(token)} was the likeliest, and nothing is drawn.", note
    return f"Only {_quoted(token)} was left: {cuts[-1].title} cut the rest.", note


def _luck(explanation: Explanation, token: Candidate) -> str:
    """Says what luck did among the tokens that were left."""
    chance = explanation.chance
    if chance >= 0.995:
        often = "nearly every run takes"
    elif chance >= 0.095:
        often = f"{100 * chance:.0f} runs in 100 take"
    else:
        often = f"one run in {1 / max(chance, 1e-12):,.0f} takes"
    best = max(explanation.candidates, key=lambda each: each.logps[-1] if each.logps else each.raw_logp)
    had = "was the likeliest and had the best sum" if best.id == token.id else "had the luck"
    return f"{_quoted(token)} {had}: {often} it here."


def _other_winner(explanation: Explanation, token: Candidate) -> tuple[str, str]:
    """Says that the numbers of here and now would take another token than the run did."""
    winner = next(each for each in explanation.candidates if each.id == explanation.winner)
    behind = winner.sum - token.sum
    if behind <= 2 * explanation.epsilon:
        return (
            f"{_quoted(token)} and {_quoted(winner)} tie within {explanation.epsilon:g}; the run took"
            f" {_quoted(token)}.",
            "Computed again, the other one has the better sum by less than rounding moves it.",
        )
    return (
        f"The run took {_quoted(token)}; computed again, {_quoted(winner)} is taken.",
        "The model, the strategy or a value is another than that of the run, or the token was put there.",
    )


def _quoted(token: Candidate) -> str:
    return f"“{one_line(token.text)}”"
