"""Lays out why a token was taken: each stage's probability, its cut, the luck and the sum, in lines of cells.

A line is a row of texts with their roles, so that a terminal, a pipe and a page colour it in their own way.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import exp, inf, isnan
from typing import TYPE_CHECKING, Literal, NamedTuple

from rich.cells import cell_len

from edge_tui.transcript.fitting import fit_start, pad, wrap_words
from edge_tui.transcript.why_text import criterion_text, final_logp, has_constant, has_number, share, signed
from edge_tui.util.sanitise import one_line, visible

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from edge_tui.engine.explanation import Candidate, Explanation, StageView

Role = Literal["", "sentence", "head", "taken", "number", "cut", "luck", "sum", "rule", "muted"]
"""Meaning of a text, by which a face colours it."""
Order = Literal["sum", "p"]
"""Order of the tokens that were left: by their sums, or by their probability."""

_WIDE = 64
"""Width from which each stage has a column."""
_SHORTEST_TEXT = 6
"""Least cells of a token's text, which columns give way to."""
_LONGEST_TEXT = 14
_LONGEST_NAME = 8
"""Cells of the name of a number of the strategy's own."""
_NTH = ("1st", "2nd", "3rd")


class LadderLine(NamedTuple):
    """Holds one line: texts with their roles, together as wide as was asked for.

    Attributes:
        parts: The texts.
        id: Token that the line is about; −1 for none.
        unfolds: True for the line that stands for tokens that are not listed.
    """

    parts: tuple[tuple[str, Role], ...]
    id: int = -1
    unfolds: bool = False

    @property
    def text(self) -> str:
        """The line without roles."""
        return "".join(text for text, _ in self.parts)


@dataclass(frozen=True, slots=True)
class LadderOptions:
    """Chooses what a ladder lists.

    Attributes:
        order: Order of the tokens that were left.
        kept: Most tokens to list of those that were left; the token itself is listed beside them.
        cut: Most tokens to list of those that a stage removed.
        watched: Tokens that are listed in any case.
        brief: True leaves out what other strategies would have taken.
        own: Numbers of the strategy's own by their names, each by token (`expert`, `amateur`).
    """

    order: Order = "sum"
    kept: int = 4
    cut: int = 2
    watched: Collection[int] = ()
    brief: bool = False
    own: Mapping[str, Mapping[int, float]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Column:
    """Describes one column: its heading, its cells, and what it writes of a token."""

    head: str
    cells: int
    write: Callable[[Candidate], tuple[str, Role]]
    weight: int = 0
    """Columns of the lowest weight give way first."""


class _Layout(NamedTuple):
    """Says how a wide ladder gives way where columns lack room.

    Attributes:
        has_numbers: True gives the number of a stage a column.
        stage: Most cells of a stage's title.
        text: Cells of tokens' texts that suffice.
    """

    has_numbers: bool
    stage: int
    text: int


_LAYOUTS = _Layout(True, 16, _LONGEST_TEXT), _Layout(True, 9, 8), _Layout(False, 16, _LONGEST_TEXT)


def ladder_lines(why: Explanation, width: int, options: LadderOptions | None = None) -> list[LadderLine]:
    """Lays an explanation out.

    Args:
        why: The explanation.
        width: Cells of each line. From 64 on numbers have their units, and each stage has a column.
        options: What it lists.
    """
    options = options or LadderOptions()
    columns, text = _columns(why, width, options)
    lines = _wrapped(why.sentence, width, "sentence")
    head = "".join(column.head.rjust(column.cells) for column in columns)
    lines.append(_line(width, (" " * (2 + text), ""), (head, "head")))
    kept, groups = _groups(why, options)
    writer = _Writer(why, width, text, columns, options.watched)
    lines += [writer.token(candidate) for candidate in kept]
    if (rest := why.candidate_count - len(kept)) > 0:
        lines.append(_more(width, rest, "more", any(_is_kept(each) for each in _missing(why, kept))))
    for stage, found in groups:
        lines.append(_rule(why.stages[stage], width))
        lines += [writer.token(candidate) for candidate in found]
        missing = [each for each in _missing(why, found) if each.removing_stage == stage]
        if (rest := why.stages[stage].removed - len(found)) > 0:
            lines.append(_more(width, rest, "more cut", bool(missing)))
    lines += _listed(
        [f"{one_line(name)} {one_line(fact)}" for name, fact in _facts(why, options)], width, "muted"
    )
    if not options.brief:
        lines += _listed(_others(why), width, "")
    return lines + _wrapped(why.note, width, "muted")


# Tokens.


def _has_luck(why: Explanation) -> bool:
    """Tells whether the luck of the token that was taken is known."""
    return why.drawn and not isnan(why.candidates[0].luck)


def _is_kept(candidate: Candidate) -> bool:
    return candidate.removing_stage < 0


def _missing(why: Explanation, listed: Sequence[Candidate]) -> list[Candidate]:
    """Lists the tokens that are known and not in a list."""
    ids = {each.id for each in listed}
    return [each for each in why.candidates if each.id not in ids]


def _groups(
    why: Explanation, options: LadderOptions
) -> tuple[list[Candidate], list[tuple[int, list[Candidate]]]]:
    """Selects the tokens to list: those that were left, then what each stage removed, the last one first."""
    by_sum = _has_luck(why) and options.order == "sum"
    left = [each for each in why.candidates if _is_kept(each)]
    left.sort(key=lambda each: each.sum if by_sum else final_logp(each), reverse=True)
    kept = [
        each
        for i, each in enumerate(left)
        if i < options.kept or each.id == why.token or each.id in options.watched
    ]
    groups = []
    for stage in range(len(why.stages) - 1, -1, -1):
        if not why.stages[stage].removed:
            continue
        removed = [each for each in why.candidates if each.removing_stage == stage]
        removed.sort(key=lambda each: each.raw_logp, reverse=True)
        chosen = [
            each
            for i, each in enumerate(removed)
            if i < options.cut or each.id == why.token or each.id in options.watched
        ]
        groups.append((stage, chosen))
    return kept, groups


def _facts(why: Explanation, options: LadderOptions) -> list[tuple[str, str]]:
    """Lists what is told of the draw and stands in no column."""
    facts = [("rank", f"{why.candidates[0].rank + 1:,}")]
    if why.drawn and why.margin < inf:
        facts.append(("margin", f"{why.margin:.2f}"))
    if not isnan(why.entropy):
        facts.append(("H", f"{why.entropy:.2f}"))
    for i, stage in enumerate(why.stages):
        if has_constant(why, i):
            label, _, number = criterion_text(stage.criterion, why.candidates[0].criteria[i]).rpartition(" ")
            facts.append((label, number))
    return [*facts, *((name, _with_minus(fact)) for name, fact in why.facts if name not in options.own)]


def _with_minus(fact: str) -> str:
    """Writes a number below 0 with the minus of the columns; leaves texts as they are."""
    return f"−{fact[1:]}" if fact[:1] == "-" and fact[1:2].isdigit() else fact


# Columns.


def _columns(why: Explanation, width: int, options: LadderOptions) -> tuple[list[_Column], int]:
    """Chooses the columns for a width, and the cells of the tokens' texts."""
    own = [_own_column(name, values) for name, values in options.own.items()]
    last = _luck_columns(why, wide=True)
    acting = [i for i, stage in enumerate(why.stages) if not stage.neutral]
    longest = min(max((cell_len(visible(each.text)) for each in why.candidates), default=0), _LONGEST_TEXT)
    if width >= _WIDE:
        raw = _Column("raw", 9, lambda each: (share(exp(each.raw_logp)), "number"))
        for dropped in range(max(len(acting), 1)):
            shown = acting[dropped:]
            gap = [_omitted(acting[:dropped])] if dropped else []
            for layout in _LAYOUTS if any(has_number(why, i) for i in shown) else _LAYOUTS[-1:]:
                stages = [column for i in shown for column in _stage_columns(why, i, layout)]
                columns = [raw, *own, *gap, *stages, *last]
                text = width - 2 - sum(column.cells for column in columns)
                if text >= min(longest, layout.text):
                    return columns, min(text, _LONGEST_TEXT)
    columns = [_Column("raw", 5, lambda each: (share(exp(each.raw_logp), 4), "number"), 1)]
    if acting:
        columns.append(_Column("p", 5, _write_short, 2))
    columns = [*columns[:1], *own, *columns[1:], *_luck_columns(why, wide=False)]
    while sum(column.cells for column in columns) > width - 2 - _SHORTEST_TEXT and len(columns) > 1:
        columns.remove(min(columns, key=lambda column: column.weight))
    return columns, width - 2 - sum(column.cells for column in columns)


def _stage_columns(why: Explanation, index: int, layout: _Layout) -> list[_Column]:
    """Makes the columns of a stage: its number of each token, if it cuts by none, and what it left."""
    stage = why.stages[index]
    column = _stage_column(stage, index, layout.stage)
    if not layout.has_numbers or not has_number(why, index):
        return [column]
    head = one_line(stage.criterion)

    def write(candidate: Candidate) -> tuple[str, Role]:
        number = candidate.criteria[index]
        return ("" if isnan(number) else signed(number, 2, 7, "+"), "number")

    return [_Column(head, max(cell_len(head), 6) + 2, write), column]


def _stage_column(stage: StageView, index: int, widest: int) -> _Column:
    """Makes the column of a stage: probabilities that it left, "cut" where it removed the token."""
    title = one_line(stage.title)
    cells = min(max(cell_len(title), 7), widest) + 2
    head = title if cell_len(title) <= cells - 2 else fit_start(title, cells - 2)

    def write(candidate: Candidate) -> tuple[str, Role]:
        if candidate.removing_stage == index:
            return "cut", "cut"
        gone = 0 <= candidate.removing_stage < index
        return ("", "") if gone else (share(exp(candidate.logps[index])), "number")

    return _Column(head, cells, write)


def _omitted(stages: Sequence[int]) -> _Column:
    """Makes the column that stands for stages that have no room."""
    return _Column("…", 5, lambda each: ("cut", "cut") if each.removing_stage in stages else ("…", "muted"))


def _own_column(name: str, values: Mapping[int, float]) -> _Column:
    head = fit_start(one_line(name), _LONGEST_NAME).rstrip()
    cells = max(cell_len(head), 5) + 1

    def write(candidate: Candidate) -> tuple[str, Role]:
        value = values.get(candidate.id)
        return ("", "") if value is None or value == -inf else (signed(value, 2, cells - 1), "number")

    return _Column(head, cells, write, 3)


def _luck_columns(why: Explanation, *, wide: bool) -> list[_Column]:
    """Makes the columns of log p, luck, sum and place; log p and place alone where the best is taken."""
    digits, cells = (2, 8) if wide else (1, 5)
    last = [each for each in why.candidates if _is_kept(each)]
    last.sort(key=lambda each: each.sum if _has_luck(why) else final_logp(each), reverse=True)
    places = {each.id: _place(i) for i, each in enumerate(last)}

    def column(head: str, cells: int, value: Callable[[Candidate], float], role: Role) -> _Column:
        def write(candidate: Candidate) -> tuple[str, Role]:
            if not _is_kept(candidate):
                return "", ""
            sign = "" if head == "log p" else "+"
            return signed(value(candidate), digits, cells - 1, sign), role

        return _Column(head, cells, write, 4)

    columns = [column("log p", 9, final_logp, "number")] if wide else []
    if _has_luck(why):
        columns += [
            column("luck", cells, lambda each: each.luck, "luck"),
            column("sum", cells + 1, lambda each: each.sum, "sum"),
        ]
    if wide:
        columns.append(_Column("", 5, lambda each: (places.get(each.id, ""), "muted")))
    return columns


def _place(i: int) -> str:
    """Writes the place of the i-th best, as long as the list is sure to have all those before it."""
    return _NTH[i] if i < len(_NTH) else ""


def _write_short(candidate: Candidate) -> tuple[str, Role]:
    """Writes the probability that the last stage left, in four cells."""
    return (share(exp(final_logp(candidate)), 4), "number") if _is_kept(candidate) else ("cut", "cut")


# Lines.


@dataclass(frozen=True, slots=True)
class _Writer:
    """Writes the line of a token."""

    why: Explanation
    width: int
    text: int
    columns: Sequence[_Column]
    watched: Collection[int]

    def token(self, candidate: Candidate) -> LadderLine:
        """Writes a candidate's mark and text, and a cell for each column."""
        taken = candidate.id == self.why.token
        is_winner, is_watched = candidate.id == self.why.winner, candidate.id in self.watched
        mark = "● " if taken else "○ " if is_winner else "◇ " if is_watched else "  "
        style: Role = "taken" if taken else "" if _is_kept(candidate) else "muted"
        # Marks are parts of their own, so that a face can replace them where fonts lack them.
        parts: list[tuple[str, Role]] = [
            (mark, style),
            (fit_start(visible(candidate.text), self.text), style),
        ]
        for column in self.columns:
            text, role = column.write(candidate)
            parts.append((text.rjust(column.cells), role))
        return _line(self.width, *parts, token=candidate.id)


def _line(width: int, *parts: tuple[str, Role], token: int = -1) -> LadderLine:
    used = sum(cell_len(text) for text, _ in parts)
    return LadderLine((*parts, (" " * (width - used), "")), token)


def _more(width: int, count: int, words: str, unfolds: bool) -> LadderLine:
    """Writes how many tokens are not listed."""
    text = fit_start(f"  ⋮ {count:,} {words}", width)
    return LadderLine(((text, "muted"),), unfolds=unfolds)


def _rule(stage: StageView, width: int) -> LadderLine:
    """Draws the rule where a stage cuts, with the number at which it stopped."""
    title, edge = one_line(stage.title), criterion_text(stage.criterion, stage.edge)
    texts = [
        f"{title} stops here: {edge}, {stage.removed:,} cut ({share(stage.mass)})" if edge else "",
        f"{title} stops, {edge}" if edge else "",
        f"{title} cut {stage.removed:,}",
    ]
    wide = width >= _WIDE
    lead = "╌╌ " if wide else "╌ "
    room = width - len(lead) - 2
    fits = (text for text in texts[not wide :] if text and cell_len(text) <= room)
    text = next(fits, fit_start(texts[-1], room))
    rest = "╌" * (width - len(lead) - cell_len(text) - 1)
    return LadderLine(((lead, "rule"), (text, "rule"), (f" {rest}", "rule")))


def _others(why: Explanation) -> list[str]:
    """Lists what other strategies would have taken, those that agree together."""
    takers: dict[str, list[str]] = {}
    for each in why.others:
        takers.setdefault(visible(each.text), []).append(one_line(each.title))
    found = [f"{', '.join(titles)} {token}" for token, titles in takers.items()]
    return [f"Others: {found[0]}", *found[1:]] if found else []


def _listed(parts: Iterable[str], width: int, role: Role) -> list[LadderLine]:
    """Writes short texts, as many on a line as it holds."""
    lines: list[str] = []
    for part in parts:
        if lines and cell_len(f"{lines[-1]} · {part}") <= width:
            lines[-1] += f" · {part}"
        else:
            lines += wrap_words(part, width)
    return [LadderLine(((pad(line, width), role),)) for line in lines]


def _wrapped(text: str, width: int, role: Role) -> list[LadderLine]:
    """Breaks a sentence into lines."""
    return [LadderLine(((pad(line, width), role),)) for line in wrap_words(one_line(text), width)]
