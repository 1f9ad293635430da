"""Says of a token what its record alone tells of why it was taken, where nothing can be computed again."""

from __future__ import annotations

from math import exp, inf, isnan, nan
from typing import TYPE_CHECKING

from edge_tui import decoders
from edge_tui.decoders.registry.registry import UnknownStrategy
from edge_tui.engine.explanation import Candidate, Explanation, StageView
from edge_tui.engine.token_fields import TOP
from edge_tui.transcript.fitting import visible
from edge_tui.transcript.why_text import share

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edge_tui.engine.events import Started
    from edge_tui.transcript.token_table import TokenView


def explanation_of_record(
    token: TokenView,
    started: Started,
    decode: Callable[[Sequence[int]], list[str]],
    reason: str,
    vocab: int = 0,
) -> Explanation:
    """Builds an explanation of the numbers that were recorded with a token. It has no luck and no sums.

    All stages together count as one. Where they left more tokens than the record has room for, what became
    of the others is not known, and they are not among the candidates.

    Args:
        token: The token.
        started: Its run.
        decode: Texts of ids.
        reason: Why nothing can be computed; becomes the note.
        vocab: Number of tokens that there are; 0 where that is not known.
    """
    raw = {each.id: (each.logp, rank) for rank, each in enumerate(token.top)}
    raw[token.id] = (token.raw_logp, token.rank)
    final = {each.id: each.logp for each in token.final}
    is_whole = 0 < len(final) < TOP
    final[token.id] = token.final_logp
    ids = [each for each in dict.fromkeys((token.id, *final, *raw)) if is_whole or each in final]
    title, drawn = _strategy(started)
    stage = StageView(
        started.strategy,
        title,
        kept=len(final) if is_whole else -1,
        removed=vocab - len(final) if is_whole and vocab else 0,
        mass=nan,
    )
    texts = {**dict(zip(ids, decode(ids), strict=True)), **({token.id: token.text} if token.text else {})}

    def candidate(each: int) -> Candidate:
        logp, rank = raw.get(each, (nan, -1))
        is_left = each in final
        return Candidate(
            *(each, texts[each], logp, rank, (final.get(each, -inf),), (nan,)),
            removing_stage=-1 if is_left else 0,
            sum=nan if is_left else -inf,
        )

    return Explanation(
        token=token.id,
        winner=token.id,
        margin=nan,
        candidate_count=stage.kept,
        chance=exp(token.final_logp),
        entropy=token.entropy,
        drawn=drawn and stage.kept != 1,
        stages=(stage,),
        candidates=tuple(candidate(each) for each in ids),
        sentence=_sentence(token, texts[token.id], drawn),
        facts=_facts(token, started),
        exactness="record",
        note=reason,
    )


def _strategy(started: Started) -> tuple[str, bool]:
    """Returns the title of a run's strategy, and whether it draws; a strategy that is gone may have."""
    try:
        decoder = decoders.find(started.strategy)
    except UnknownStrategy:
        return started.strategy, True
    return decoder.title, decoder.kind != "search" and not decoder.takes_argmax


def _sentence(token: TokenView, text: str, drawn: bool) -> str:
    if isnan(token.raw_logp):
        return f"{visible(text)} was taken; no number of it is known."
    model = f"{share(exp(token.raw_logp))} under the model"
    if not drawn or isnan(token.final_logp):
        return f"{visible(text)} was taken with {model}."
    return f"{visible(text)} was drawn with {share(exp(token.final_logp))}; it had {model}."


def _facts(token: TokenView, started: Started) -> tuple[tuple[str, str], ...]:
    """Lists the strategy's own numbers."""
    numbers = ((column, token.extras.get(column.name, nan)) for column in started.column_details)
    return tuple((column.name, column.text(number)) for column, number in numbers if not isnan(number))
