"""Lists the tokens that decide where two runs part, with their luck, their sums and what became of them."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf, isnan, nan
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from edge_tui.engine.explanation import Candidate, Explanation
    from edge_tui.transcript.draw_conditions import Side
    from edge_tui.transcript.token_table import TokenView

_TAKES = "● takes it"
_OTHERS = 2
"""Tokens beside the two that were taken and the likeliest."""
_NTH = ("1st", "2nd", "3rd", "4th", "5th")


class PartingRow(NamedTuple):
    """Holds one token of the table at a parting.

    Attributes:
        text: The token's text.
        raw_logp: Log-probability under the model (nats).
        luck: Its Gumbel noise; NaN where that is not known.
        sum: The sum that both runs compare, up to a constant; NaN where that is not known.
        verdicts: What became of it in either run.
    """

    text: str
    raw_logp: float
    luck: float
    sum: float
    verdicts: tuple[str, str]


def parting_rows(one: Side, other: Side, tokens: tuple[TokenView, TokenView]) -> tuple[PartingRow, ...]:
    """Lists the tokens concerned: both that were taken, the best sums beside them, and the likeliest."""
    sides = (one, other)
    if one.why is None or other.why is None:
        found = sorted(tokens, key=lambda token: -token.raw_logp)
        return tuple(
            PartingRow(token.text, token.raw_logp, nan, nan, _takers(token.id, tokens)) for token in found
        )
    known: dict[int, Candidate] = {}
    for side in sides:
        for each in side.why.candidates if side.why is not None else ():
            if each.id not in known or isnan(known[each.id].luck):
                known[each.id] = each
    sums = _common_sums(one.why, other.why, known)
    taken = list(dict.fromkeys(token.id for token in tokens))
    best = sorted((id for id in known if id not in taken), key=lambda id: -_or_least(sums[id]))
    likeliest = [each.id for each in known.values() if each.rank == 0]
    listed = dict.fromkeys([*taken, *best[:_OTHERS], *likeliest])
    rows = [
        PartingRow(
            known[id].text,
            known[id].raw_logp,
            known[id].luck,
            sums[id],
            (_verdict(one.why, id, tokens[0].id), _verdict(other.why, id, tokens[1].id)),
        )
        for id in listed
        if id in known
    ]
    return tuple(sorted(rows, key=lambda row: -_or_least(row.sum)))


def _takers(id: int, tokens: tuple[TokenView, TokenView]) -> tuple[str, str]:
    first, second = (_TAKES if token.id == id else "" for token in tokens)
    return first, second


def _common_sums(one: Explanation, other: Explanation, known: Mapping[int, Candidate]) -> dict[int, float]:
    """Puts the sums of two explanations on one scale, so that those of tokens that one cut compare too.

    The scale is log p of the model plus luck where nothing reshapes; else that of the first run's draw.
    """
    here, there = ({each.id: each.sum for each in why.candidates if each.sum > -inf} for why in (one, other))
    shifts = [here[id] - there[id] for id in here.keys() & there.keys()]
    sums = {id: there[id] + (shifts[0] if shifts else 0.0) for id in there} | here
    plain = {id: each.raw_logp + each.luck for id, each in known.items()}
    gaps = [plain[id] - sums[id] for id in sums.keys() & plain.keys()]
    is_plain = bool(gaps) and max(gaps) - min(gaps) < 0.002
    return plain if is_plain else {id: sums.get(id, nan) for id in known}


def _verdict(why: Explanation, id: int, taken: int) -> str:
    """Says what became of a token in one run."""
    found = candidate_of(why, id)
    if found is None:
        return ""
    if id == taken:
        return _TAKES
    if found.removing_stage >= 0:
        return f"cut, rank {found.rank + 1:,}"
    left = sorted((_score(each) for each in why.candidates if each.removing_stage < 0), reverse=True)
    place = left.index(_score(found))
    if place < len(_NTH):
        return _NTH[place]
    return "likeliest" if not found.rank else ""


def _score(candidate: Candidate) -> float:
    """Reads the number by which a token is chosen: its sum, or its log-probability where nothing is drawn."""
    if not isnan(candidate.sum):
        return candidate.sum
    return candidate.logps[-1] if candidate.logps else candidate.raw_logp


def _or_least(number: float) -> float:
    return -inf if isnan(number) else number


def candidate_of(why: Explanation, id: int) -> Candidate | None:
    return next((each for each in why.candidates if each.id == id), None)
