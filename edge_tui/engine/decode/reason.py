"""Words the reason why a token was taken, in one sentence, and a note on how exact it is."""

from __future__ import annotations

from math import isnan
from typing import TYPE_CHECKING

from edge_tui.util.sanitise import visible

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edge_tui.decoders.base import Decoder
    from edge_tui.engine.decode.explained_choice import ExplainedChoice
    from edge_tui.engine.explanation import Candidate, Explanation, StageView


def sentence_of(explanation: Explanation, choice: ExplainedChoice) -> str:
    """Writes the reason.

    Args:
        explanation: All but the sentence.
        choice: What decided.
    """
    decoder, verdict = choice.plan.decoder, choice.verdict if choice.is_by_ratio else "none"
    token, winner = (_find(explanation, each) for each in (explanation.token, explanation.winner))
    quoted, cuts = visible(token.text), [stage for stage in explanation.stages if stage.removed]
    if decoder.lag:
        return f"{quoted} was among the likeliest, and the best of them when they were weighed a step later."
    if decoder.owns_eos:
        return f"{quoted} continues a hypothesis that was among the best: a search compares whole texts."
    if token is not winner:
        return _other_winner(explanation, token, winner)
    often = f"{_often(explanation.chance)} it here."
    if verdict == "accepted":
        return f"The draft proposed {quoted}, and the model accepted it: {often}"
    if verdict == "rejected":
        proposed = visible(choice.proposed)
        return f"The draft proposed {proposed}; the model rejected it and drew {quoted} in its place."
    if explanation.drawn:
        return f"{explanation.candidate_count:,} tokens were left; {_luck(explanation, token)}: {often}"
    if choice.numbers.took_best or not cuts:
        return f"{quoted} {_best(cuts, decoder)}, and nothing is drawn."
    return _only(quoted, cuts)


def note_of(explanation: Explanation, decoder: Decoder) -> str:
    """Writes what a reader must know about the numbers; "" where there is nothing."""
    if decoder.lag:
        return "The weighing reads what follows each candidate and is not computed again: see the record."
    if decoder.owns_eos:
        return (
            "The rows of a search are not computed again: probabilities are those after the text alone, and"
            " parent and sums those of the record."
        )
    near = explanation.exactness == "near"
    if explanation.token == explanation.winner:
        return f"Computed again: each sum is within {explanation.epsilon:g} of the draw's." if near else ""
    if _is_tie(explanation):
        return f"Computed again: each sum is within {explanation.epsilon:g}; the run's token stands."
    return "The model, the strategy or a value is another than in the run, or the token was put there."


def _only(quoted: str, cuts: Sequence[StageView]) -> str:
    """Says that one token was left."""
    *others, last = (cut.title for cut in cuts)
    by = f"{', '.join(others)} and {last}" if others else last
    return f"Only {quoted} was left: {by} cut the rest."


def _best(cuts: Sequence[StageView], decoder: Decoder) -> str:
    """Says in what the token was the best: by the score that the strategy makes, or by the model."""
    scored = any(cut.name == decoder.name and cut.criterion for cut in cuts)
    return "had the best score" if scored else "was the likeliest"


def _luck(explanation: Explanation, token: Candidate) -> str:
    """Says what luck did among the tokens that were left."""
    first = max(explanation.candidates, key=_final)
    reason = "was the likeliest and had the best sum" if first is token else "had the luck"
    return f"{visible(token.text)} {reason}"


def _often(chance: float) -> str:
    """Says how many runs take a token of a probability: "one run in 60 takes"."""
    if chance >= 0.995:
        return "nearly every run takes"
    if chance >= 0.095:
        return f"{100 * chance:.0f} runs in 100 take"
    return f"one run in {1 / max(chance, 1e-12):,.0f} takes"


def _is_tie(explanation: Explanation) -> bool:
    """Tells whether the sums of the token and of the winner differ by less than both may be off."""
    token, winner = (_find(explanation, each) for each in (explanation.token, explanation.winner))
    behind = winner.sum - token.sum if not isnan(token.sum) else _final(winner) - _final(token)
    return behind <= 2 * explanation.epsilon


def _other_winner(explanation: Explanation, token: Candidate, winner: Candidate) -> str:
    """Says that the numbers of here and now would take another token than the run did."""
    taken, other = visible(token.text), visible(winner.text)
    if _is_tie(explanation):
        return f"{taken} and {other} tie within rounding; the run took {taken}."
    return f"The run took {taken}; computed again, {other} is taken."


def _find(explanation: Explanation, token: int) -> Candidate:
    return next(each for each in explanation.candidates if each.id == token)


def _final(candidate: Candidate) -> float:
    """Reads the log-probability that the last stage left."""
    return candidate.logps[-1] if candidate.logps else candidate.raw_logp
