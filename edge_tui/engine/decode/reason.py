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

ROUNDING = 1e-4
"""Nats that a sum of a run's own numbers may be off, where fused kernels added it up."""


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
        return _other_winner(explanation, choice, token, winner)
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


def note_of(explanation: Explanation, choice: ExplainedChoice) -> str:
    """Writes what a reader must know about the numbers; "" where there is nothing.

    Args:
        explanation: All but the note.
        choice: What decided.
    """
    decoder = choice.plan.decoder
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
    if _is_tie(explanation, choice) or _edge(explanation, choice) is not None:
        return f"Computed again: each sum is within {_bound(explanation):g}; the run's token stands."
    return "The model, the strategy or a value is another than in the run, or the token was put there."


def _only(quoted: str, cuts: Sequence[StageView]) -> str:
    """Says that one token was left."""
    *others, last = (cut.title for cut in cuts)
    by = f"{', '.join(others)} and {last}" if others else last
    return f"Only {quoted} was left: {by} cut the rest."


def _best(cuts: Sequence[StageView], decoder: Decoder) -> str:
    """Says in what the token was the best: by the score that the strategy makes, or by the model."""
    scored = any(cut.name == decoder.name and not isnan(cut.edge) for cut in cuts)
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


def _bound(explanation: Explanation) -> float:
    """Bounds the error of a sum; the draw's own are added up by other kernels than a run's on a GPU."""
    return max(explanation.epsilon, ROUNDING)


def _is_tie(explanation: Explanation, choice: ExplainedChoice) -> bool:
    """Tells whether the sums of the token and of the winner differ by less than both may be off.

    Where the best is taken without luck, nothing else is left to compare: the margin tells.
    """
    if choice.numbers.took_best:
        return explanation.margin <= 2 * _bound(explanation)
    token, winner = (_find(explanation, each) for each in (explanation.token, explanation.winner))
    return _total(winner) - _total(token) <= 2 * _bound(explanation)


def _edge(explanation: Explanation, choice: ExplainedChoice) -> tuple[Candidate, StageView] | None:
    """Finds the cut at whose edge the numbers of here and now and those of the run part.

    Either the token is cut here by a stage whose edge it lies at, or all tokens with better sums lie at
    edges, so that the run may have cut them.

    Returns:
        The token at the edge, that of the run or the winner, and the stage; None where there is no such cut.
    """
    token, winner = (_find(explanation, each) for each in (explanation.token, explanation.winner))

    def edge_of(candidate: Candidate) -> int | None:
        gaps = choice.edge_gaps.get(candidate.id, ())
        return next((i for i, gap in enumerate(gaps) if gap <= 2 * _bound(explanation)), None)

    if token.removing_stage >= 0:
        at = token.removing_stage
        is_near = choice.edge_gaps[token.id][at] <= 2 * _bound(explanation)
        return (token, explanation.stages[at]) if is_near else None
    least = _total(token) + 2 * _bound(explanation)
    edges = {each.id: edge_of(each) for each in explanation.candidates if _total(each) > least}
    of_winner = edges.get(winner.id)
    if of_winner is None or None in edges.values():
        return None
    return winner, explanation.stages[of_winner]


def _other_winner(
    explanation: Explanation, choice: ExplainedChoice, token: Candidate, winner: Candidate
) -> str:
    """Says that the numbers of here and now would take another token than the run did, and why."""
    taken, other = visible(token.text), visible(winner.text)
    if _is_tie(explanation, choice):
        return f"{taken} and {other} tie within rounding; the run took {taken}."
    if (edge := _edge(explanation, choice)) is None:
        return f"The run took {taken}; computed again, {other} is taken."
    at_edge, stage = edge
    if at_edge is token:
        return f"{taken} lies at the edge of {stage.title}: the run kept it, computed again it is cut."
    return f"{other} lies at the edge of {stage.title}: the run cut it and took {taken}, here it stays."


def _find(explanation: Explanation, token: int) -> Candidate:
    return next(each for each in explanation.candidates if each.id == token)


def _total(candidate: Candidate) -> float:
    """Reads the sum by which it was taken: without luck the log-probability that the last stage left."""
    return _final(candidate) if isnan(candidate.sum) else candidate.sum


def _final(candidate: Candidate) -> float:
    """Reads the log-probability that the last stage left."""
    return candidate.logps[-1] if candidate.logps else candidate.raw_logp
