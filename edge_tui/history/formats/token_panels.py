"""Lays out what a record says of a token, and an explanation of it, as lines for a page."""

from __future__ import annotations

from math import exp, inf, isnan, nan
from typing import TYPE_CHECKING

from edge_tui.decoders.registry.description import stage_title
from edge_tui.engine.token_fields import KEPT, OWN, UNKNOWN
from edge_tui.transcript.fitting import fit_start
from edge_tui.transcript.ladder import LadderOptions, ladder_lines
from edge_tui.transcript.token_table import Alternative
from edge_tui.transcript.values_at import strategy_of, values_at
from edge_tui.transcript.why_text import share, signed
from edge_tui.util.sanitise import one_line, visible

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from edge_tui.decoders.base import Column
    from edge_tui.engine.explanation import Explanation
    from edge_tui.transcript.ladder import Role
    from edge_tui.transcript.transcript import TokenView, Transcript

    Line = list[tuple[str, Role]]

WIDTH = 76
"""Cells of a ladder's lines."""
_TEXT, _SHARE, _OWN = 20, 9, 9
_MOST_OWN = 3
"""Columns of the strategy's own numbers."""
_SHOWN_ROLES = ("", "sum", "score", "token")
"""Roles of columns that are listed."""


class TokenPanels:
    """Writes the lines about each token of a run, from its record alone.

    Args:
        transcript: The tokens.
        token_strings: Texts of ids; alternatives without one show their id.
    """

    def __init__(self, transcript: Transcript, token_strings: Mapping[int, str]) -> None:
        self._transcript = transcript
        self._titles: dict[int, dict[int, str]] = {}
        self._strings = token_strings
        columns = transcript.started.column_details
        self._columns = [column for column in columns if column.role in _SHOWN_ROLES]

    def lines(self, index: int, why: Explanation | None = None) -> Iterator[Line]:
        """Yields the lines about the token at a position; with an explanation the ladder of its stages."""
        token = self._transcript.token(index)
        yield [(f"{visible(token.text)} #{index}", "sentence")]
        yield [(_numbers(token), "")]
        if choice := _choice(token):
            yield [(choice, "")]
        if own := [self._own_fact(column, token.extras.get(column.name, nan)) for column in self._columns]:
            yield [(" · ".join(filter(None, own)), "")]
        for change in self._transcript.changes_at(index):
            yield [(one_line(f"{change.name} {change.value:.6g} from here on"), "number")]
        yield []
        if why is not None:
            yield from ([*line.parts] for line in ladder_lines(why, WIDTH, LadderOptions(kept=20, cut=20)))
        elif token.top:
            yield from self._alternatives(token)
        else:
            yield [("Nothing is recorded of other tokens.", "muted")]

    def _own_fact(self, column: Column, value: float) -> str:
        """Writes one of the strategy's own numbers; "" where it has none here."""
        fact = column.fact(value, self._string)
        return fact and one_line(f"{column.name} {fact}")

    def _alternatives(self, token: TokenView) -> Iterator[Line]:
        """Yields a line for each alternative: its probabilities, or that it was removed."""
        final = {each.id: each.logp for each in token.final}
        likeliest = {each.id for each in token.top}
        names = [each.name for each in self._columns if each.name in token.top[0].extras][:_MOST_OWN]
        heads = "".join(f"{one_line(name)[: _OWN - 1]:>{_OWN}}" for name in names)
        yield [(f"{'':{_TEXT + 2}}{'raw':>{_SHARE}}{heads}{'final':>{_SHARE}}", "head")]
        listed = [*token.top, *(other for other in token.final if other.id not in likeliest)]
        if all(each.id != token.id for each in listed):
            listed.append(Alternative(token.id, token.raw_logp, token.extras))
            likeliest.add(token.id)
            final[token.id] = token.final_logp
        for place, each in enumerate(listed):
            raw = share(exp(each.logp)) if each.id in likeliest else ""
            own = "".join(f"{_own_number(each, name):>{_OWN}}" for name in names)
            style: Role = "taken" if each.id == token.id else ""
            mark = "● " if each.id == token.id else "  "
            line: Line = [
                (mark + fit_start(self._string(each.id), _TEXT), style),
                (f"{raw:>{_SHARE}}{own}", "number"),
            ]
            if each.id in final:
                yield [*line, (f"{share(exp(final[each.id])):>{_SHARE}}", "number")]
            else:
                yield [*line, (f"{self._removal(token, place):>{_SHARE}}", "cut")]

    def _removal(self, token: TokenView, place: int) -> str:
        """Says what removed an alternative; "" where it may have been left, without a place in that list."""
        stage = token.removing_stage[place] if place < len(token.removing_stage) else UNKNOWN
        changes = sum(change.index <= token.index for change in self._transcript.changes)
        if changes not in self._titles:
            self._titles[changes] = stage_titles(self._transcript, token.index)
        if stage in self._titles[changes]:
            return f"   cut by {self._titles[changes][stage]}"
        return "cut" if stage != KEPT and len(token.final) < len(token.top) else ""

    def _string(self, id: int) -> str:
        text = self._strings.get(id)
        return f"id {id}" if text is None else visible(text)


def _numbers(token: TokenView) -> str:
    rank = f"{token.rank + 1:,}" if token.rank >= 0 else "n/a"
    entropy = "n/a" if isnan(token.entropy) else f"{token.entropy:.2f} nats"
    raw, final = (f"{share(exp(logp))} ({signed(logp, 2, 8)})" for logp in (token.raw_logp, token.final_logp))
    return f"raw {raw} · rank {rank} · final {final} · entropy {entropy}"


def _choice(token: TokenView) -> str:
    """Writes how many tokens were kept, and by what margin this one was taken; "" where neither is known."""
    facts = [f"{token.candidate_count:,} kept"] if token.candidate_count >= 0 else []
    if not isnan(token.margin):
        facts.append("nothing else was left" if token.margin == inf else f"margin {token.margin:.3f} nats")
    return " · ".join(facts)


def stage_titles(transcript: Transcript, index: int) -> dict[int, str]:
    """Lists the titles of a run's stages at a token by their numbers in records; {} if it is unknown."""
    decoder = strategy_of(transcript)
    if decoder is None:
        return {}
    values = values_at(transcript, index)
    links = (*decoder.before.links, *decoder.after.links)
    titles = {number: one_line(stage_title(link, values)) for number, link in enumerate(links)}
    return {OWN: one_line(decoder.title), **titles}


def _own_number(alternative: Alternative, name: str) -> str:
    value = alternative.extras.get(name, nan)
    return "" if isnan(value) else "cut" if value == -inf else signed(value, 2, _OWN - 1)
