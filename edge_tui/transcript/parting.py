"""Says why two runs part at the first token that differs.

A draw is `argmax(z + luck)`, and luck is a function of key, step and token. So two runs of one key, with the
same logits and stages that reshape them alike, part only where a stage of one removed the token that the
other took. Where that does not hold, the first condition that fails is named.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

from edge_tui.engine.token_fields import KEPT, TOP, UNKNOWN
from edge_tui.transcript.draw_conditions import cutter_of, failed_condition, numbers_differ, stage_of
from edge_tui.transcript.parting_table import candidate_of, parting_rows
from edge_tui.util.sanitise import one_line, visible

if TYPE_CHECKING:
    from edge_tui.transcript.draw_conditions import Side
    from edge_tui.transcript.parting_table import PartingRow
    from edge_tui.transcript.token_table import TokenView
    from edge_tui.transcript.transcript import Transcript


@dataclass(frozen=True, slots=True)
class Parting:
    """Tells of the first token in which two runs differ.

    Attributes:
        index: Its position.
        comparable: True where both drew with the same luck from the same numbers.
        sentence: Why they part.
        rows: The tokens concerned, best sum first.
    """

    index: int
    comparable: bool
    sentence: str
    rows: tuple[PartingRow, ...]


def common_length(one: Transcript, other: Transcript, start: int = 0) -> int:
    """Counts the leading tokens that are the same; `start` of them are known to be."""
    a, b = one.ids(), other.ids()
    shorter = min(len(a), len(b))
    return next((i for i in range(min(start, shorter), shorter) if a[i] != b[i]), shorter)


def parting_at(one: Side, other: Side, index: int) -> Parting:
    """Explains why two runs with the same tokens up to a position take different ones there.

    The records of the tokens decide; explanations (`Side.why`) say more, and more exactly.

    Args:
        one: A run.
        other: Another.
        index: The position.
    """
    tokens = one.transcript.token(index), other.transcript.token(index)
    rows = parting_rows(one, other, tokens)
    if why := failed_condition(one, other, index) or numbers_differ(one, other, tokens):
        return Parting(index, False, f"The numbers differ before the draw: {why}.", rows)
    return Parting(index, True, _sentence(one, other, index, tokens), rows)


def _sentence(one: Side, other: Side, index: int, tokens: tuple[TokenView, TokenView]) -> str:
    """Names what removed the token of one from the other."""
    sides = (one, *tokens), (other, *tokens[::-1])
    cuts = [_cut(side, mine, its, index) for side, mine, its in sides]
    if not any(cuts) and None in cuts:
        # Of two sums the larger one wins on both sides, unless a stage of one removed it.
        if "" in cuts:
            at = cuts.index(None)
            cuts[at] = cutter_of(sides[at][0], index)
        else:
            return "They part because a stage of one cut the token that the other took."
    parts = [
        f"{cut} cut {visible(its.text)}, which is number {its.rank + 1:,}"
        for cut, (_, _, its) in zip(cuts, sides, strict=True)
        if cut
    ]
    if not parts:
        return "They part within rounding: both tokens were left on both sides."
    return f"They part because {', and '.join(parts)}."


def _cut(side: Side, mine: TokenView, its: TokenView, index: int) -> str | None:
    """Names the stage of a side that removed the other's token; "" if none did, None if that is not known."""
    if side.why is not None and (found := candidate_of(side.why, its.id)) is not None:
        return one_line(side.why.stages[found.removing_stage].title) if found.removing_stage >= 0 else ""
    stage = dict(zip((each.id for each in mine.top), mine.removing_stage, strict=False)).get(its.id, UNKNOWN)
    if stage != UNKNOWN:
        return "" if stage == KEPT else stage_of(side, stage, index)
    if any(each.id == its.id and each.logp > -inf for each in mine.final):
        return ""
    listed = sum(each.logp > -inf for each in mine.final)
    is_whole = 0 < listed < TOP or listed == mine.candidate_count
    return cutter_of(side, index) if is_whole else None
